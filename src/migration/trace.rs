// SPDX-License-Identifier: LGPL-2.1-or-later
//! The trace of a migration: one JSON object to a line. docs/trace-format.md says what the members mean.

use crate::error::{Error, Result};
use crate::savevm::handler::Pending;
use crate::wire::tag_name;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

/// Something worth a line.
pub(super) enum Event<'a> {
    Begin {
        side: &'static str,
    },
    Status {
        status: &'a str,
    },
    /// The end of a window.
    Window {
        transferred: u64,
        remaining: Pending,
        bandwidth: u64,
        threshold: u64,
        dirty_rate: u64,
        throttle: u32,
    },
    Round {
        number: u64,
    },
    Section {
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
    /// The guest stands still.
    Stopped,
    /// How long it did.
    Downtime {
        time: Duration,
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

fn line(time: Duration, event: &Event<'_>) -> String {
    let mut out = format!("{{\"t\":{:.6},\"event\":", time.as_secs_f64());
    // Writing to a string can't fail.
    let _ = match event {
        Event::Begin { side } => write!(out, "\"begin\",\"version\":1,\"side\":\"{side}\""),
        Event::Status { status } => write!(out, "\"status\",\"status\":\"{status}\""),
        Event::Window { transferred, remaining, bandwidth, threshold, dirty_rate, throttle } => write!(
            out,
            "\"window\",\"transferred\":{transferred},\"precopy_only\":{},\"compatible\":{},\"postcopy_only\":{},\
             \"bandwidth\":{bandwidth},\"threshold\":{threshold},\"dirty_rate\":{dirty_rate},\"throttle\":{throttle}",
            remaining.precopy_only, remaining.compatible, remaining.postcopy_only
        ),
        Event::Round { number } => write!(out, "\"round\",\"number\":{number}"),
        Event::Section { name, instance, tag, bytes, time } => write!(
            out,
            "\"section\",\"type\":\"{}\",\"name\":{},\"instance\":{instance},\"bytes\":{bytes},\"duration\":{:.6}",
            tag_name(*tag),
            quoted(name),
            time.as_secs_f64()
        ),
        Event::PageRequest { block, start, len } => {
            write!(out, "\"page_request\",\"block\":{},\"start\":{start},\"length\":{len}", quoted(block))
        }
        Event::Stopped => write!(out, "\"stopped\""),
        Event::Downtime { time } => write!(out, "\"downtime\",\"duration\":{:.6}", time.as_secs_f64()),
        Event::Error { text } => write!(out, "\"error\",\"text\":{}", quoted(text)),
    };
    out.push_str("}\n");
    out
}

impl Trace {
    /// A trace that goes to a new file.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|err| Error::io(format_args!("the trace {}", path.display()), &err))?;
        Ok(Self(Some(Mutex::new(file))))
    }

    /// Writes a line. A full disk costs lines, not the migration.
    pub fn write(&self, time: Duration, event: &Event<'_>) {
        if let Some(file) = &self.0 {
            let _ = super::base::lock(file).write_all(line(time, event).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_json() {
        let at = Duration::from_micros(1_500_000);
        let section = Event::Section { name: "a\"\\\n", instance: 1, tag: 4, bytes: 9, time: at };
        assert_eq!(
            line(at, &section),
            "{\"t\":1.500000,\"event\":\"section\",\"type\":\"SECTION_FULL\",\"name\":\"a\\\"\\\\\\u000a\",\
             \"instance\":1,\"bytes\":9,\"duration\":1.500000}\n"
        );
        assert_eq!(line(at, &Event::Stopped), "{\"t\":1.500000,\"event\":\"stopped\"}\n");
    }
}
