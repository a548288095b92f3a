// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm plot`: draws the trace of a migration.

use std::io::{self, BufRead, BufReader, Write};

use savevm_stream::inspect::printable;
use savevm_stream::replace::Access;

use crate::args::Plot;
use crate::failure::{Context, Failure, Result, Status};
use crate::input::check_output;
use crate::picture::timeline;
use crate::picture::trace::{KEPT_LIMIT, Trace};
use crate::replace::replace;
use crate::report;
use crate::words::{shown, size};

/// Runs the command.
pub fn run(args: &Plot) -> Result<Status> {
    let draw = match args.output.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => timeline::draw,
        Some("html" | "htm") => timeline::page,
        _ => return Err(Failure::new(format!("{}: the name must end in .svg or .html", shown(&args.output)))),
    };
    check_output(&args.trace, &args.output)?;
    let name = shown(&args.trace);
    let mut input: Box<dyn BufRead> = if args.trace.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(std::fs::File::open(&args.trace).context(|| format!("cannot open {name}"))?))
    };
    let trace = Trace::read(&mut *input, KEPT_LIMIT).context(|| name.clone())?;
    replace(&args.output, Access::Mask, |mut file| file.write_all(draw(&trace).as_bytes()))?;
    if let Some((count, line, why)) = &trace.bad_lines {
        let why = printable(why);
        report(&format!("{name}: {count} lines are not valid; the first is line {line}: {why}"));
    }
    if let Some(line) = trace.cut_at {
        let limit = size(KEPT_LIMIT as u64);
        report(&format!("{name}: the events before line {line} take {limit}, the limit; the picture ends there"));
    }
    let is_whole = trace.bad_lines.is_none() && trace.cut_at.is_none();
    Ok(if is_whole { Status::Success } else { Status::Found })
}
