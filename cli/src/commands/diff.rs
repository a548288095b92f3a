// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm diff`: shows the differences between two streams.

mod devices;
mod ram;
mod render;

use std::io::Write;

use savevm_stream::inspect::{Budget, Span, Stream, Unwatched, guest_spans, printable};
use savevm_stream::wire::mapped::CAPABILITY;

use super::inspect::report_damage;
use super::select::Selection;
use crate::args::{ColourChoice, Diff, ReportFormat};
use crate::failure::{Result, Status};
use crate::input::{Input, Settled};
use crate::memory::PageIndex;
use crate::output::Output;
use crate::report;
use crate::words::plural;

/// The differences, in the order in which they are shown.
#[derive(Debug, Default)]
pub struct Differences {
    /// Properties of the streams: name, value in A, value in B.
    pub whole: Vec<(&'static str, String, String)>,
    /// Of devices.
    pub devices: Vec<devices::DeviceDifference>,
    /// Of RAM blocks.
    pub blocks: Vec<ram::BlockDifference>,
    /// The guest-physical places of memory that is split.
    pub spans: Vec<Span>,
}

impl Differences {
    fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.devices.is_empty() && self.blocks.is_empty()
    }
}

/// Runs the command.
pub fn run(args: &Diff, colour: ColourChoice) -> Result<Status> {
    let snapshot_b = args.snapshot_b.as_deref().or(args.reading.snapshot.as_deref());
    let a = Input::open(&args.a, &args.reading)?;
    let b = Input::open_snapshot(&args.b, &args.reading, snapshot_b)?;
    let selection = Selection::all_or(&args.device);
    let (status, differences) = if args.no_ram {
        let names = (a.name.clone(), b.name.clone());
        let (a, b) = (a.read(&mut Unwatched)?, b.read(&mut Unwatched)?);
        let status = report_damage(&names.0, &a).max(report_damage(&names.1, &b));
        report_formats(&a, &b);
        (status, compare(&a, &b, &selection))
    } else {
        with_memory(&a.settle()?, &b.settle()?, args, &selection)?
    };
    let mut out = Output::stdout(colour);
    match args.format {
        ReportFormat::Text => render::text(&differences, args.ranges, &mut out)?,
        ReportFormat::Json => render::json(&differences, &mut out)?,
    }
    out.flush()?;
    Ok(if differences.is_empty() { status } else { Status::Found })
}

fn with_memory(a: &Settled, b: &Settled, args: &Diff, selection: &Selection) -> Result<(Status, Differences)> {
    let index = |settled: &Settled| -> Result<(Stream, PageIndex)> {
        let mut index = PageIndex::new(Budget::new(args.reading.max_memory));
        let stream = settled.read(&mut index)?;
        index.sort();
        Ok((stream, index))
    };
    let ((stream_a, pages_a), (stream_b, pages_b)) = (index(a)?, index(b)?);
    let status = report_damage(&a.name, &stream_a).max(report_damage(&b.name, &stream_b));
    report_formats(&stream_a, &stream_b);
    let mut differences = compare(&stream_a, &stream_b, selection);
    let side_a = ram::Side { stream: &stream_a, bytes: a.bytes(), pages: &pages_a };
    let side_b = ram::Side { stream: &stream_b, bytes: b.bytes(), pages: &pages_b };
    let (blocks, absent) = ram::compare(&side_a, &side_b)?;
    differences.blocks = blocks;
    for (block, pages) in absent {
        let (block, pages) = (printable(&block), plural(pages, "page"));
        report(&format!("RAM {block}: not compared: {pages} that neither stream has"));
    }
    let spans = [guest_spans(&stream_a), guest_spans(&stream_b)];
    differences.spans = spans.into_iter().find(|spans| spans.len() > 1).unwrap_or_default();
    Ok((status, differences))
}

/// Whether pages have fixed places in the file.
fn is_mapped(stream: &Stream) -> bool {
    stream.configuration.as_ref().is_some_and(|configuration| configuration.has(CAPABILITY))
}

/// Reports that the formats differ. That is no difference of the machines.
fn report_formats(a: &Stream, b: &Stream) {
    if is_mapped(a) != is_mapped(b) {
        let which = if is_mapped(a) { "A" } else { "B" };
        report(&format!("not compared: the formats; only {which} has fixed places of pages ({CAPABILITY})"));
    }
}

/// Compares everything but memory.
fn compare(a: &Stream, b: &Stream, selection: &Selection) -> Differences {
    let whole = |stream: &Stream| {
        let configuration = stream.configuration.clone().unwrap_or_default();
        let page_size = stream.ram.page_size.map_or("unknown".into(), |(size, _)| size.to_string());
        let uuid = configuration.uuid.map_or("none".into(), |uuid| uuid.map(|byte| format!("{byte:02x}")).concat());
        // The format of the file is no property of the machine.
        let others = configuration.capabilities.iter().map(|name| &**name).filter(|name| *name != CAPABILITY);
        let mut capabilities = others.collect::<Vec<_>>().join(", ");
        if capabilities.is_empty() {
            capabilities = "none".into();
        }
        [("machine", configuration.machine), ("page size", page_size), ("capabilities", capabilities), ("uuid", uuid)]
    };
    let whole = whole(a).into_iter().zip(whole(b));
    Differences {
        whole: whole.filter(|(a, b)| a != b).map(|((what, a), (_, b))| (what, a, b)).collect(),
        devices: devices::compare(a, b, selection),
        ..Differences::default()
    }
}
