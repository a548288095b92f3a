// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm schema`: writes the layout of a machine's devices, from one of its streams.

use savevm_stream::inspect::Unwatched;
use savevm_stream::inspect::compat;

use super::inspect::report_damage;
use crate::args::{ColourChoice, Schema};
use crate::failure::{Result, Status};
use crate::input::{Input, check_output};
use crate::output::Output;
use crate::report;

/// Runs the command.
pub fn run(args: &Schema) -> Result<Status> {
    if let Some(output) = &args.output {
        check_output(&args.file, output)?;
    }
    let input = Input::open(&args.file, &args.reading)?;
    let name = input.name.clone();
    let stream = input.read(&mut Unwatched)?;
    if stream.description.is_none() {
        report(&format!("{name} has no description: the schema has the devices but not their fields"));
    }
    let mut out = Output::create(args.output.as_deref(), ColourChoice::Never)?;
    compat::Schema::write(&stream, &mut out)?;
    out.finish()?;
    Ok(report_damage(&name, &stream))
}
