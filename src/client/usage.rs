//! How commands are written, in their help.

use std::io;

use super::{
    show::width,
    table::{TIE, columns, wrap},
};
use crate::config::columns_named;

/// What stands before a usage.
const TITLE: &str = "Usage: ";
/// The columns of a help that no terminal shows and whose width no `COLUMNS` names, as clap has it.
const WIDTH: usize = 100;

/// How a command is written, with what it needs and nothing else; none for one that has commands of its own.
pub fn usage(command: &clap::Command) -> Option<String> {
    if command.has_subcommands() {
        return None;
    }
    let usage = command.clone().render_usage().to_string();
    let (_, after) = usage.split_once(command.get_name())?;
    // Of each command there is a form of results, at least.
    let after = after.trim_start();
    let after = after.strip_prefix("[OPTIONS]").unwrap_or(after).trim();
    let words = ["compose-broker", command.get_name(), "[OPTIONS]", after];
    Some(words.join(" ").trim_end().to_owned())
}

/// The program, with no usage that is wider than the terminal: clap breaks lines everywhere else.
pub fn usages_in_lines(mut program: clap::Command) -> clap::Command {
    program.build();
    in_lines(program, columns_of_help())
}

fn in_lines(command: clap::Command, width: usize) -> clap::Command {
    let command = command.mut_subcommands(|of| in_lines(of, width));
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix(TITLE).unwrap_or(&usage);
    if columns(TITLE) + columns(usage) <= width || usage.contains('\n') {
        return command;
    }
    let lines = wrap(&tied(usage), width.saturating_sub(columns(TITLE)));
    let indent = " ".repeat(columns(TITLE));
    let usage = lines.join(&format!("\n{indent}")).replace(TIE, " ");
    command.override_usage(usage)
}

/// A usage in which no line ends within the name of a value.
fn tied(usage: &str) -> String {
    let mut is_within = false;
    let tie = |c| {
        is_within = match c {
            '<' => true,
            '>' => false,
            _ => is_within,
        };
        if c == ' ' && is_within { TIE } else { c }
    };
    usage.chars().map(tie).collect()
}

/// The columns of the terminal, as clap looks for them.
fn columns_of_help() -> usize {
    let terminal = width(io::stdout())
        .or_else(|| width(io::stderr()))
        .or_else(|| width(io::stdin()));
    terminal.or_else(columns_named).unwrap_or(WIDTH)
}
