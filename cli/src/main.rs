// SPDX-License-Identifier: LGPL-2.1-or-later
//! The `savevm` command: looks into migration streams.
//!
//! The parsing is the library's (`savevm_stream::inspect`). Here is what a person needs around it: files of every sort, tables,
//! colours, pictures, exit statuses.

mod args;
mod commands;
mod failure;
mod input;
mod memory;
mod output;
mod picture;
mod progress;
mod system;
mod words;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use failure::{Failure, Result, Status};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let status = match run(&cli) {
        Ok(status) => status,
        Err(Failure::PipeClosed) => Status::Fine,
        Err(Failure::Message(message)) => {
            say(&message);
            Status::Trouble
        }
    };
    ExitCode::from(status as u8)
}

fn run(cli: &Cli) -> Result<Status> {
    match &cli.command {
        Command::Inspect(args) => commands::inspect::run(args, cli.colour),
        Command::Diff(args) => commands::diff::run(args, cli.colour),
        Command::Check(args) => commands::check::run(args, cli.colour),
        Command::Schema(args) => commands::schema::run(args),
        Command::Extract(args) => commands::extract::run(args),
        Command::Plot(args) => commands::plot::run(args),
        Command::Man { directory } => commands::pages::man(directory),
        Command::Completions { shell } => commands::pages::completions(*shell),
    }
}

/// A word to the person at the terminal, beside the output.
fn say(message: &str) {
    // Nobody may be listening.
    let _ = writeln!(std::io::stderr(), "savevm: {}", output::tame(message, false));
}
