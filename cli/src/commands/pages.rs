// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a packager asks for: manual pages and completions.

use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::{Context, Result, Status};

/// Writes `savevm.1` and a page for each subcommand.
pub fn man(directory: &Path) -> Result<Status> {
    std::fs::create_dir_all(directory).context(|| format!("cannot create {}", directory.display()))?;
    clap_mangen::generate_to(Cli::command(), directory)
        .context(|| format!("cannot write to {}", directory.display()))?;
    Ok(Status::Fine)
}

/// Writes a shell's completions to standard output.
pub fn completions(shell: Shell) -> Result<Status> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "savevm", &mut text);
    io::Write::write_all(&mut io::stdout(), &text)?;
    Ok(Status::Fine)
}
