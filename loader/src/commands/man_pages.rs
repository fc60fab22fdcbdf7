//! Man pages and shell completions, generated from the definition of the command line.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Command, ValueHint};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::error::Error;

/// Name of the program once it is installed, and so of its man pages and completions.
const INSTALLED: &str = "pg_mask-loader";

/// `loader completions`.
#[derive(clap::Args)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

/// `loader man`.
#[derive(clap::Args)]
pub(crate) struct ManPages {
    /// Write pg_mask-loader.1 and a page per command into this folder. It is created if missing
    #[arg(value_hint = ValueHint::DirPath)]
    folder: Option<PathBuf>,
}

/// Prints a shell's completion script for the loader.
pub(crate) fn print_completions(loader: Command, options: &Completions) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut loader.name(INSTALLED), INSTALLED, &mut script);
    // clap_complete 4.6 writes a hyphen in a program's name for bash in two ways that don't match.
    let script = String::from_utf8_lossy(&script).replace("pg_mask__subcmd__loader", "pg_mask__loader");
    print(script.as_bytes())
}

/// Prints the loader's man page, or writes it and its commands' pages into a folder.
pub(crate) fn make_man_pages(loader: Command, options: &ManPages) -> Result<(), Error> {
    let mut loader = loader.name(INSTALLED).disable_help_subcommand(true);
    loader.build();
    let Some(folder) = &options.folder else { return print(&page(loader).1) };
    let broken = |path: &Path, e| Error::Config(format!("{} cannot be written: {e}", path.display()));
    fs::create_dir_all(folder).map_err(|e| broken(folder, e))?;
    let commands: Vec<_> = loader.get_subcommands().cloned().collect();
    for command in commands.into_iter().chain([loader]) {
        let (name, page) = page(command);
        let file = folder.join(name);
        fs::write(&file, page).map_err(|e| broken(&file, e))?;
    }
    Ok(())
}

fn print(text: &[u8]) -> Result<(), Error> {
    let written = io::stdout().lock().write_all(text);
    written.map_err(|e| Error::Config(format!("standard output cannot be written to: {e}")))
}

/// Returns the file name and the text of a command's man page.
fn page(mut command: Command) -> (String, Vec<u8>) {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default().replace('`', "");
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    // By default the synopsis would list all options, and NAME would be the whole description.
    let usage = command.render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage).to_owned();
    let name = about.split(['.', ':', ',']).next().unwrap_or_default().to_owned();
    let command = command.override_usage(usage).about(name).long_about(format!("{about}."));
    let has_commands = command.has_subcommands();
    let man = Man::new(command).source(concat!("pg_mask ", env!("CARGO_PKG_VERSION"))).manual("pg_mask");
    let mut text = Vec::new();
    let written = (|| {
        man.render_title(&mut text)?;
        man.render_name_section(&mut text)?;
        man.render_synopsis_section(&mut text)?;
        man.render_description_section(&mut text)?;
        if has_commands {
            man.render_subcommands_section(&mut text)?;
        }
        man.render_options_section(&mut text)?;
        sections(&after).to_writer(&mut text)
    })();
    // Writing to a Vec doesn't fail.
    debug_assert!(written.is_ok());
    (man.get_filename(), text)
}

/// Builds sections from the text that follows the options. A line without indentation is a heading. Below it, a line
/// with a gap is a term and its meaning. A line with more indentation continues the meaning. Any other line is prose.
fn sections(text: &str) -> Roff {
    let mut roff = Roff::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let Some(body) = line.strip_prefix("  ") else {
            let (heading, rest) =
                line.trim_end_matches(':').split_once(", ").unwrap_or((line.trim_end_matches(':'), ""));
            roff.control("SH", [heading.to_uppercase().as_str()]);
            let mut rest = rest.chars();
            if let Some(first) = rest.next() {
                roff.text([roman(format!("{}{}:", first.to_uppercase(), rest.as_str()))]);
            }
            continue;
        };
        match body.split_once("  ") {
            Some((term, meaning)) if !term.is_empty() => {
                roff.control("TP", []);
                roff.text([bold(term)]);
                roff.text([roman(meaning.trim_start())]);
            }
            _ => _ = roff.text([roman(body.trim_start())]),
        }
    }
    roff
}
