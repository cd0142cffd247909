//! The `man` command: one manual page for all commands, variables and exit codes.

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::{Cli, output};
use crate::error::{Code, Error};

/// Variables of secrets, which have no flag because a secret is never an argument.
const SECRETS: [(&str, &str); 3] = [
    ("HARNESS_API_KEY", "API key"),
    (
        "HARNESS_API_KEY_FILE",
        "file that contains the API key, if HARNESS_API_KEY is unset",
    ),
    ("HARNESS_LAKE_PII_KEY", "key for --pii hash"),
];

/// Prints the manual page in troff format.
pub(super) fn run() -> Result<(), Error> {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    let to_error = |source| Error::Output {
        path: "the manual page".to_owned(),
        source,
    };
    render(&command, &mut page).map_err(to_error)?;
    output::print(&String::from_utf8_lossy(&page))
}

fn render(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let man = Man::new(command.clone());
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    examples(command, ".SH", page)?;
    for subcommand in command.get_subcommands() {
        command_section(subcommand, page)?;
    }
    environment(command, page)?;
    writeln!(page, ".SH EXIT STATUS\n.TP\n0\nSuccess.")?;
    for code in Code::ALL {
        let name = escaped(code.name());
        writeln!(
            page,
            ".TP\n{}\n{name}: {}.",
            code as u8,
            escaped(code.hint())
        )?;
    }
    man.render_version_section(page)
}

/// Writes a section for a command, or for each of its subcommands.
fn command_section(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let subcommands: Vec<_> = command
        .get_subcommands()
        .filter(|subcommand| subcommand.get_name() != "help")
        .collect();
    if command.get_name() == "help" {
        return Ok(());
    }
    if subcommands.is_empty() {
        let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
        writeln!(page, ".SH {}", escaped(&name.to_uppercase()))?;
        let man = Man::new(command.clone());
        let mut sections = Vec::new();
        man.render_description_section(&mut sections)?;
        man.render_synopsis_section(&mut sections)?;
        man.render_options_section(&mut sections)?;
        let sections = String::from_utf8_lossy(&sections).replace(".SH ", ".SS ");
        page.write_all(sections.as_bytes())?;
    }
    for subcommand in &subcommands {
        command_section(subcommand, page)?;
    }
    examples(command, ".SS", page)
}

/// Writes the section on environment variables: those of flags and those of secrets.
fn environment(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let mut variables = BTreeMap::new();
    for (variable, description) in SECRETS {
        variables.insert(variable.to_owned(), description.to_owned());
    }
    let mut commands = vec![command];
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands());
        for flag in command.get_arguments() {
            if let (Some(variable), Some(long)) = (flag.get_env(), flag.get_long()) {
                let variable = variable.to_string_lossy().into_owned();
                variables.insert(variable, format!("sets --{long} unless the flag is given"));
            }
        }
    }
    writeln!(page, ".SH ENVIRONMENT")?;
    for (variable, description) in variables {
        writeln!(page, ".TP\n{variable}\n{}", escaped(&description))?;
    }
    Ok(())
}

fn examples(command: &Command, level: &str, page: &mut Vec<u8>) -> io::Result<()> {
    let Some(text) = command.get_after_help() else {
        return Ok(());
    };
    writeln!(page, "{level} EXAMPLES\n.nf")?;
    let text = text.to_string();
    for line in text.lines().filter(|line| *line != "Examples:") {
        writeln!(page, "{}", escaped(line.trim_start()))?;
    }
    writeln!(page, ".fi")
}

/// Escapes text for troff.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('-', "\\-");
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}
