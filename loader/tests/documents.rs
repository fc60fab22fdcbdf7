//! Man pages and completions, which the binary generates itself.

use std::collections::BTreeSet;
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

/// Returns the output of the binary.
fn loader(args: &[&str]) -> String {
    text(&output(Command::new(env!("CARGO_BIN_EXE_loader")).args(args)))
}

/// Returns the options that a help text lists.
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
    // Neither folder exists yet.
    let folder = parent.join("man1");
    loader(&["man", folder.to_str().expect("UTF-8")]);
    for (page, command) in [
        ("pg_mask-loader.1", [].as_slice()),
        ("pg_mask-loader-check.1", &["check"]),
        ("pg_mask-loader-redrive.1", &["redrive"]),
        ("pg_mask-loader-completions.1", &["completions"]),
        ("pg_mask-loader-man.1", &["man"]),
    ] {
        let source = fs::read_to_string(folder.join(page)).expect(page);
        let help = loader(&[command, &["--help"]].concat());
        assert!(options(&help).contains(&"--help"), "{help}");
        for option in options(&help) {
            // The option is at the start of its paragraph, with its hyphens escaped so that a search finds them.
            let escaped = option.replace('-', "\\-");
            assert!(
                source.lines().any(|line| line.contains(&format!("\\fB{escaped}\\fR"))),
                "{page} lacks {option}"
            );
        }
    }
    let page = loader(&["man"]);
    assert_eq!(page, fs::read_to_string(folder.join("pg_mask-loader.1")).expect("pg_mask-loader.1"));
    for wanted in [
        ".SH \"EXIT CODES\"\n.TP\n\\fB0\\fR\ndone, or stopped by a signal\n",
        ".SH SIGNALS\n.TP\n\\fBSIGTERM, SIGINT\\fR\nStop receiving",
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
    // Does what bash does to complete the last word.
    let complete = r#"
        . "$0"
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _pg_mask__loader pg_mask-loader "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        echo "${COMPREPLY[*]}""#;
    let completions = |words: &[&str]| {
        let args = [&["-c", complete, path], words].concat();
        text(&output(Command::new("bash").args(args)))
    };
    let help = loader(&["--help"]);
    let expected: BTreeSet<_> = options(&help).into_iter().filter(|name| name.starts_with("--max")).collect();
    assert!(expected.contains("--max-in-flight"), "{expected:?}");
    let completed = completions(&["pg_mask-loader", "--max"]);
    assert_eq!(completed.split_whitespace().collect::<BTreeSet<_>>(), expected);
    for (words, completed) in [
        (["pg_mask-loader", "red"].as_slice(), "redrive\n"),
        (&["pg_mask-loader", "redrive", "--older"], "--older-than\n"),
        (&["pg_mask-loader", "--log-format", "h"], "human\n"),
        (&["pg_mask-loader", "completions", "z"], "zsh\n"),
    ] {
        assert_eq!(completions(words), completed, "{words:?}");
    }
    fs::remove_file(&file).expect("it was made");
}

#[test]
fn the_reference_names_every_option() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference");
    let read = |page| fs::read_to_string(format!("{folder}/{page}")).expect(page);
    let pages = ["loader.md", "connections.md", "metrics.md"].map(read).concat();
    for command in [[].as_slice(), &["check"], &["redrive"]] {
        let help = loader(&[command, &["--help"]].concat());
        // clap adds these two by itself.
        for option in options(&help).into_iter().filter(|option| !["--help", "--version"].contains(option)) {
            assert!(pages.contains(&format!("`{option}`")), "docs/reference lacks {option} of {command:?}");
        }
    }
}
