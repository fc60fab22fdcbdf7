//! Man pages and completions, which the binary makes itself.

use std::fs;
use std::process::{Command, Output};

fn output(command: &mut Command) -> Output {
    command.env_clear().env("PATH", "/usr/bin:/bin").output().expect("it starts")
}

fn text(output: &Output) -> String {
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    text
}

/// What the binary prints.
fn loader(args: &[&str]) -> String {
    text(&output(Command::new(env!("CARGO_BIN_EXE_loader")).args(args)))
}

/// The options that a help text lists.
fn options(help: &str) -> Vec<&str> {
    let listed = help.lines().filter_map(|line| line.split_whitespace().find(|word| !word.ends_with(',')));
    listed.filter(|word| word.starts_with("--")).collect()
}

#[test]
fn documents_need_nothing_of_the_environment() {
    for args in [["man"].as_slice(), &["completions", "bash"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loader"));
        command.args(args).env_clear().env("LOADER_ENV_FILE", "/nowhere").env("LOADER_WAIT", "soon");
        let output = command.output().expect("it starts");
        assert_eq!(text(&output), loader(args), "{args:?}");
    }
}

#[test]
fn the_man_pages_name_every_option_and_what_follows_them() {
    let parent = std::env::temp_dir().join(format!("pg_mask-man-{}", std::process::id()));
    // Neither of them is there as yet.
    let folder = parent.join("man1");
    loader(&["man", folder.to_str().expect("UTF-8")]);
    for (page, command) in [
        ("loader.1", [].as_slice()),
        ("loader-check.1", &["check"]),
        ("loader-redrive.1", &["redrive"]),
        ("loader-completions.1", &["completions"]),
        ("loader-man.1", &["man"]),
    ] {
        let source = fs::read_to_string(folder.join(page)).expect(page);
        let help = loader(&[command, &["--help"]].concat());
        assert!(options(&help).contains(&"--help"), "{help}");
        for option in options(&help) {
            // At the beginning of its paragraph, where a hyphen is written as one that can be searched for.
            let escaped = option.replace('-', "\\-");
            assert!(
                source.lines().any(|line| line.contains(&format!("\\fB{escaped}\\fR"))),
                "{page} lacks {option}"
            );
        }
    }
    let page = loader(&["man"]);
    assert_eq!(page, fs::read_to_string(folder.join("loader.1")).expect("loader.1"));
    for wanted in [
        ".SH \"EXIT CODES\"\n.TP\n\\fB0\\fR\ndone, or stopped by a signal\n",
        ".SH SIGNALS\n.TP\n\\fBSIGTERM, SIGINT\\fR\nReceive no more",
        ".SH \"STANDARD OUTPUT\"\nWhen the loader ends:\nreceived N, ",
        ".SH \"A FILE OF VARIABLES\"\nLOADER_ENV_FILE names a file",
        "\\fBLOADER_POLLERS\\fR",
    ] {
        assert!(page.contains(wanted), "{wanted} is missing in {page}");
    }
    fs::remove_dir_all(&parent).expect("it was made");
}

#[test]
fn bash_completes_options_commands_and_values() {
    let script = loader(&["completions", "bash"]);
    let file = std::env::temp_dir().join(format!("pg_mask-completions-{}", std::process::id()));
    fs::write(&file, script).expect("a temporary file");
    let path = file.to_str().expect("UTF-8");
    text(&output(Command::new("bash").args(["-n", path])));
    // What bash does when the last of the words is to be completed.
    let complete = r#"
        . "$0"
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _loader loader "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        echo "${COMPREPLY[*]}""#;
    for (words, completed) in [
        (["loader", "--max"].as_slice(), "--max-in-flight\n"),
        (&["loader", "red"], "redrive\n"),
        (&["loader", "redrive", "--older"], "--older-than\n"),
        (&["loader", "--log-format", "h"], "human\n"),
        (&["loader", "completions", "z"], "zsh\n"),
    ] {
        let args = [&["-c", complete, path], words].concat();
        assert_eq!(text(&output(Command::new("bash").args(args))), completed, "{words:?}");
    }
    fs::remove_file(&file).expect("it was made");
}
