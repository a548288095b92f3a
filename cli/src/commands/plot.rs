// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm plot`: draws the trace of a migration.

use std::io::{self, Read};

use savevm_stream::inspect::{Budget, printable};

use crate::args::Plot;
use crate::failure::{Context, Failure, Result, Status};
use crate::picture::timeline;
use crate::picture::trace::Trace;
use crate::report;
use crate::words::shown;

/// Limit on the trace in bytes, which is years of migration.
const MOST: u64 = 1 << 30;

/// Runs the command.
pub fn run(args: &Plot) -> Result<Status> {
    let draw = match args.output.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => timeline::draw,
        Some("html" | "htm") => timeline::page,
        _ => return Err(Failure::new(format!("{}: the name must end in .svg or .html", shown(&args.output)))),
    };
    let name = shown(&args.trace);
    let mut text = Vec::new();
    let mut input: Box<dyn Read> = if args.trace.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(std::fs::File::open(&args.trace).context(|| format!("cannot open {name}"))?)
    };
    input.by_ref().take(MOST).read_to_end(&mut text).context(|| name.clone())?;
    let trace = Trace::parse(&text, &mut Budget::new(4 * MOST as usize))
        .map_err(|why| Failure::new(format!("{name}: {}", printable(&why))))?;
    std::fs::write(&args.output, draw(&trace)).context(|| format!("cannot write {}", shown(&args.output)))?;
    if let Some((count, line, why)) = &trace.bad_lines {
        let why = printable(why);
        report(&format!("{name}: {count} lines are not valid; the first is line {line}: {why}"));
        return Ok(Status::Found);
    }
    Ok(Status::Success)
}
