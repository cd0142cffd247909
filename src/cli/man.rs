//! `man`: the whole manual on one page: each command with its options and examples, and the exit statuses.

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::{Cli, output};
use crate::error::{Code, Error};

/// Variables that stand for no flag: a key never stands on a command line.
const SECRETS: [(&str, &str); 3] = [
    ("HARNESS_API_KEY", "the API key"),
    ("HARNESS_API_KEY_FILE", "a file that holds the API key"),
    ("HARNESS_LAKE_PII_KEY", "the key of --pii hash"),
];

/// Prints the manual page.
pub(super) fn run() -> Result<(), Error> {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    let failed = |source| Error::Output {
        path: "the manual page".to_owned(),
        source,
    };
    render(&command, &mut page).map_err(failed)?;
    output::print(&String::from_utf8_lossy(&page))
}

fn render(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let man = Man::new(command.clone());
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    examples(command, ".SH", page)?;
    for one in command.get_subcommands() {
        of_command(one, page)?;
    }
    environment(command, page)?;
    writeln!(page, ".SH EXIT STATUS\n.TP\n0\nAll done.")?;
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

/// What a command does, or those below it: a section of its own for each.
fn of_command(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let below: Vec<_> = command
        .get_subcommands()
        .filter(|below| below.get_name() != "help")
        .collect();
    if command.get_name() == "help" {
        return Ok(());
    }
    if below.is_empty() {
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
    for one in &below {
        of_command(one, page)?;
    }
    examples(command, ".SS", page)
}

/// The variables that stand for flags, and those of secrets, which have none.
fn environment(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let mut variables = BTreeMap::new();
    for (variable, what) in SECRETS {
        variables.insert(variable.to_owned(), what.to_owned());
    }
    let mut commands = vec![command];
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands());
        for flag in command.get_arguments() {
            if let (Some(variable), Some(long)) = (flag.get_env(), flag.get_long()) {
                let variable = variable.to_string_lossy().into_owned();
                variables.insert(
                    variable,
                    format!("stands for --{long}, which goes before it"),
                );
            }
        }
    }
    writeln!(page, ".SH ENVIRONMENT")?;
    for (variable, what) in variables {
        writeln!(page, ".TP\n{variable}\n{}", escaped(&what))?;
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

/// Text as troff takes it.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('-', "\\-");
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}
