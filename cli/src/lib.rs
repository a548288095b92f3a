// SPDX-License-Identifier: LGPL-2.1-or-later
//! The `savevm` command: inspects migration streams.
//!
//! The crate `savevm-stream` parses the streams. This crate opens files of all supported kinds, and writes tables, colours,
//! pictures and exit statuses. It is a library so that tests and fuzz targets can call it; `main.rs` only calls [`main`].

pub mod args;
mod commands;
pub mod failure;
mod input;
mod memory;
mod output;
pub mod picture;
mod progress;
mod replace;
mod system;
mod words;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use failure::{Failure, Result, Status};

/// Runs the command with the arguments of the process, and reports a failure.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let status = match run(&cli) {
        Ok(status) => status,
        Err(Failure::PipeClosed) => Status::Success,
        Err(Failure::Message(message)) => {
            report(&message);
            Status::Error
        }
    };
    ExitCode::from(status as u8)
}

/// Runs a parsed command line.
pub fn run(cli: &Cli) -> Result<Status> {
    match &cli.command {
        Command::Inspect(args) => commands::inspect::run(args, cli.colour),
        Command::Diff(args) => commands::diff::run(args, cli.colour),
        Command::Check(args) => commands::check::run(args, cli.colour),
        Command::Schema(args) => commands::schema::run(args),
        Command::Extract(args) => commands::extract::run(args),
        Command::Merge(args) => commands::merge::run(args),
        Command::Index(args) => commands::index::run(args),
        Command::Snapshots(args) => commands::snapshots::run(args, cli.colour),
        Command::Plot(args) => commands::plot::run(args),
        Command::Man { directory } => commands::pages::man(directory),
        Command::Completions { shell } => commands::pages::completions(*shell),
    }
}

/// Writes a message to standard error, beside the output. Does nothing in a fuzz target, which would drown in messages.
fn report(message: &str) {
    if cfg!(fuzzing) {
        return;
    }
    // Standard error may be closed: that is no failure.
    let _ = writeln!(std::io::stderr(), "savevm: {}", output::escape_controls(message, false));
}
