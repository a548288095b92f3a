// SPDX-License-Identifier: LGPL-2.1-or-later
//! The trace of a migration: one JSON object to a line. docs/trace-format.md says what the members mean.

use crate::error::{Error, Phase, Result};
use crate::savevm::handler::Pending;
use crate::sync::{Mutex, Rank};
use crate::wire::tag_name;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// Something worth a line.
pub(super) enum Event<'a> {
    /// The first line.
    Trace {
        side: &'static str,
        uri: &'a str,
    },
    Status {
        status: &'a str,
    },
    Phase {
        phase: Phase,
        end: bool,
    },
    /// The end of a window: what was sent and how fast.
    Round {
        number: u64,
        bytes: u64,
        bandwidth: u64,
        dirty_rate: u64,
        throttle: u32,
    },
    Pending {
        left: Pending,
        threshold: u64,
    },
    Device {
        name: &'a str,
        instance: u32,
        tag: u8,
        bytes: u64,
        time: Duration,
    },
    PageRequest {
        block: &'a str,
        start: u64,
        len: u32,
    },
    /// The guest stands still from now on, or (with a time) no longer.
    Downtime {
        time: Option<Duration>,
    },
    Error {
        text: &'a str,
    },
}

/// Where the lines go; nowhere by default.
#[derive(Default)]
pub(super) struct Trace(Option<Mutex<File>>);

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn line(time: Duration, event: &Event<'_>) -> String {
    let mut out = format!("{{\"t_ns\":{},\"event\":", nanos(time));
    // Writing to a string can't fail.
    let _ = match event {
        Event::Trace { side, uri } => {
            write!(out, "\"trace\",\"version\":1,\"side\":\"{side}\",\"uri\":{}", quoted(uri))
        }
        Event::Status { status } => write!(out, "\"status\",\"status\":\"{status}\""),
        Event::Phase { phase, end } => {
            let edge = if *end { "end" } else { "begin" };
            write!(out, "\"phase\",\"phase\":\"{phase}\",\"edge\":\"{edge}\"")
        }
        Event::Round { number, bytes, bandwidth, dirty_rate, throttle } => write!(
            out,
            "\"round\",\"round\":{number},\"bytes\":{bytes},\"bandwidth\":{bandwidth},\"dirty_rate\":{dirty_rate},\
             \"throttle\":{throttle}"
        ),
        Event::Pending { left, threshold } => write!(
            out,
            "\"pending\",\"precopy\":{},\"compatible\":{},\"postcopy\":{},\"threshold\":{threshold}",
            left.precopy_only, left.compatible, left.postcopy_only
        ),
        Event::Device { name, instance, tag, bytes, time } => write!(
            out,
            "\"device\",\"type\":\"{}\",\"idstr\":{},\"instance\":{instance},\"bytes\":{bytes},\"duration_ns\":{}",
            tag_name(*tag),
            quoted(name),
            nanos(*time)
        ),
        Event::PageRequest { block, start, len } => {
            write!(out, "\"page_request\",\"block\":{},\"start\":{start},\"length\":{len}", quoted(block))
        }
        Event::Downtime { time: None } => write!(out, "\"downtime\",\"edge\":\"begin\""),
        Event::Downtime { time: Some(time) } => {
            write!(out, "\"downtime\",\"edge\":\"end\",\"duration_ns\":{}", nanos(*time))
        }
        Event::Error { text } => write!(out, "\"error\",\"message\":{}", quoted(text)),
    };
    out.push_str("}\n");
    out
}

impl Trace {
    /// A trace that goes to a new file.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|err| Error::io(format_args!("the trace {}", path.display()), &err))?;
        Ok(Self(Some(Mutex::new(Rank::MigrationTrace, file))))
    }

    /// Writes a line. A full disk costs lines, not the migration.
    pub fn write(&self, time: Duration, event: &Event<'_>) {
        if let Some(file) = &self.0 {
            let _ = file.lock().write_all(line(time, event).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_json() {
        let at = Duration::from_micros(1_500_000);
        let device = Event::Device { name: "a\"\\\n", instance: 1, tag: 4, bytes: 9, time: at };
        assert_eq!(
            line(at, &device),
            "{\"t_ns\":1500000000,\"event\":\"device\",\"type\":\"SECTION_FULL\",\"idstr\":\"a\\\"\\\\\\u000a\",\
             \"instance\":1,\"bytes\":9,\"duration_ns\":1500000000}\n"
        );
        let begin = line(Duration::ZERO, &Event::Downtime { time: None });
        assert_eq!(begin, "{\"t_ns\":0,\"event\":\"downtime\",\"edge\":\"begin\"}\n");
    }
}
