// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm inspect`: shows the contents of a stream.

use std::io::Write;

use savevm_stream::inspect::{SectionKind, Stream, Unwatched, printable, write_analyze, write_description, write_json};

use super::select::Selection;
use super::{captures, fields, table};
use crate::args::{ColourChoice, Format, Inspect, InspectPlot};
use crate::failure::{Failure, Result, Status};
use crate::input::{Input, chain, check_output};
use crate::output::Output;
use crate::picture::treemap;
use crate::report;
use crate::words::shown;

/// Runs the command.
pub fn run(args: &Inspect, colour: ColourChoice) -> Result<Status> {
    if let Some(output) = &args.output {
        check_output(&args.file, output)?;
    }
    let mut out = Output::create(args.output.as_deref(), colour)?;
    if let Some(status) = captures::run(args, &mut out)? {
        out.finish()?;
        return Ok(status);
    }
    let input = Input::open(&args.file, &args.reading)?;
    let name = input.name.clone();
    let stream = input.read(&mut Unwatched)?;
    print(args, &name, &stream, &mut out)?;
    out.finish()?;
    Ok(report_damage(&name, &stream))
}

/// Reports notes on the container, and the first damage of the stream or of its compression.
pub fn report_damage(name: &str, stream: &Stream) -> Status {
    for note in stream.container.notes() {
        report(&format!("{name}: note: {note}"));
    }
    let mut status = Status::Success;
    let damage = stream.damage.as_ref().map(ToString::to_string);
    for damage in [stream.container.damage(), damage].into_iter().flatten() {
        report(&format!("{name}: {damage}"));
        status = Status::Found;
    }
    status
}

fn print(args: &Inspect, name: &str, stream: &Stream, out: &mut Output) -> Result<()> {
    if args.plot == Some(InspectPlot::Treemap) {
        return Ok(write!(out, "{}", treemap::draw(name, stream))?);
    }
    let selection = Selection::none_or(&args.device);
    match args.format {
        Format::Json => Ok(write_json(stream, |device| selection.has(device), out)?),
        Format::Analyze => Ok(write_analyze(stream, out)?),
        Format::Description => match &stream.description {
            Some(description) => Ok(write_description(description, out)?),
            None => Err(Failure::new(format!("{name} has no description"))),
        },
        Format::Table if selection.is_narrowed() || args.hex => devices(args, name, stream, out),
        Format::Table => table::write(name, &ancestors(args), stream, out),
    }
}

/// The files that are read with an incremental snapshot, for messages.
fn ancestors(args: &Inspect) -> Vec<String> {
    let all = chain::paths(&args.file).skip(1).map(|path| shown(&path));
    if args.reading.offset == 0 { all.collect() } else { Vec::new() }
}

/// Writes the selected devices with their fields.
fn devices(args: &Inspect, name: &str, stream: &Stream, out: &mut Output) -> Result<()> {
    let selection = Selection::all_or(&args.device);
    let live = table::live_sizes(stream);
    let mut found = false;
    for (item, section) in stream.sections().filter(|(_, section)| selection.has(&section.device)) {
        if section.data.is_some() {
            found = true;
            fields::write(stream, item, section, args.hex, out)?;
        } else if selection.is_narrowed() && section.kind == SectionKind::Start {
            found = true;
            table::write_live(stream, section, &live, out)?;
        }
    }
    if found {
        Ok(())
    } else {
        Err(Failure::new(format!("{name}: no device matches {}", printable(&args.device.join(", ")))))
    }
}
