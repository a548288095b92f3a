// SPDX-License-Identifier: LGPL-2.1-or-later
//! The trace of a migration: one JSON object per line. docs/trace-format.md documents the members.

use super::stats::Prediction;
use crate::error::{Error, Phase, Result};
use crate::json::Emitter;
use crate::savevm::handler::Pending;
use crate::sync::{Mutex, Rank};
use crate::wire::tag_name;
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
    /// The guest is stopped from now on, or (with a time) no longer.
    Downtime {
        time: Option<Duration>,
    },
    Error {
        text: &'a str,
    },
    /// How much is done, and when the migration will have ended.
    Progress {
        percent: u32,
        expected: Option<Duration>,
    },
    /// The guest is about to be stopped: the predicted downtime, what is left, and the limit.
    Budget {
        prediction: Prediction,
        left: u64,
        limit: Duration,
    },
    /// Why the migration makes no progress; "none": it does again.
    Stalled {
        reason: &'a str,
        excess: u64,
        text: &'a str,
    },
    /// The deadline has passed.
    Deadline {
        action: &'a str,
    },
}

/// Where the lines go; nowhere by default.
#[derive(Default)]
pub(super) struct Trace(Option<Mutex<Lines>>);

/// The file, and the time of the last line.
struct Lines {
    file: File,
    last: Duration,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the line of an event, with its line feed.
fn line(time: Duration, event: &Event<'_>) -> Vec<u8> {
    let mut json = Emitter::new(Vec::new(), None);
    json.object().name("t_ns").number(nanos(time)).name("event");
    match event {
        Event::Trace { side, uri } => {
            json.string("trace").name("version").number(1).name("side").string(side).name("uri").string(uri)
        }
        Event::Status { status } => json.string("status").name("status").string(status),
        Event::Phase { phase, end } => json
            .string("phase")
            .name("phase")
            .string(phase.name())
            .name("edge")
            .string(if *end { "end" } else { "begin" }),
        Event::Round { number, bytes, bandwidth, dirty_rate, throttle } => {
            json.string("round").name("round").number(*number).name("bytes").number(*bytes);
            json.name("bandwidth").number(*bandwidth).name("dirty_rate").number(*dirty_rate);
            json.name("throttle").number(*throttle)
        }
        Event::Pending { left, threshold } => {
            json.string("pending").name("precopy").number(left.precopy_only);
            json.name("compatible").number(left.compatible).name("postcopy").number(left.postcopy_only);
            json.name("threshold").number(*threshold)
        }
        Event::Device { name, instance, tag, bytes, time } => {
            json.string("device").name("type").string(tag_name(*tag)).name("idstr").string(name);
            json.name("instance").number(*instance).name("bytes").number(*bytes);
            json.name("duration_ns").number(nanos(*time))
        }
        Event::PageRequest { block, start, len } => {
            json.string("page_request").name("block").string(block);
            json.name("start").number(*start).name("length").number(*len)
        }
        Event::Downtime { time: None } => json.string("downtime").name("edge").string("begin"),
        Event::Downtime { time: Some(time) } => {
            json.string("downtime").name("edge").string("end").name("duration_ns").number(nanos(*time))
        }
        Event::Error { text } => json.string("error").name("message").string(text),
        Event::Progress { percent, expected } => {
            json.string("progress").name("percent").number(u64::from(*percent));
            match expected {
                Some(time) => json.name("expected_total_ns").number(nanos(*time)),
                None => &mut json,
            }
        }
        Event::Budget { prediction, left, limit } => {
            json.string("budget").name("left").number(*left).name("limit_ns").number(nanos(*limit));
            json.name("predicted_ns").number(nanos(prediction.total()));
            json.name("memory_ns").number(nanos(prediction.memory)).name("save_ns").number(nanos(prediction.save));
            json.name("load_ns").number(nanos(prediction.load));
            json.name("round_trips_ns").number(nanos(prediction.round_trips));
            json.name("rest_ns").number(nanos(prediction.rest))
        }
        Event::Stalled { reason, excess, text } => {
            json.string("stalled").name("reason").string(reason).name("excess").number(*excess);
            json.name("message").string(text)
        }
        Event::Deadline { action } => json.string("deadline").name("action").string(action),
    };
    json.end();
    // Memory takes every byte.
    json.finish().unwrap_or_default()
}

impl Trace {
    /// A trace that goes to a new file.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|err| Error::io(format_args!("the trace {}", path.display()), &err))?;
        Ok(Self(Some(Mutex::new(Rank::MigrationTrace, Lines { file, last: Duration::ZERO }))))
    }

    /// Writes a line. A full disk costs lines, not the migration. The time never goes back: of two threads, the one that read
    /// the clock first may write last.
    pub fn write(&self, time: Duration, event: &Event<'_>) {
        if let Some(lines) = &self.0 {
            let mut lines = lines.lock();
            lines.last = lines.last.max(time);
            let line = line(lines.last, event);
            let _ = lines.file.write_all(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(time: Duration, event: &Event<'_>) -> String {
        String::from_utf8(line(time, event)).unwrap()
    }

    #[test]
    fn lines_are_json() {
        let at = Duration::from_micros(1_500_000);
        let device = Event::Device { name: "a\"\\\n", instance: 1, tag: 4, bytes: 9, time: at };
        assert_eq!(
            text(at, &device),
            "{\"t_ns\":1500000000,\"event\":\"device\",\"type\":\"SECTION_FULL\",\"idstr\":\"a\\\"\\\\\\n\",\
             \"instance\":1,\"bytes\":9,\"duration_ns\":1500000000}\n"
        );
        let begin = text(Duration::ZERO, &Event::Downtime { time: None });
        assert_eq!(begin, "{\"t_ns\":0,\"event\":\"downtime\",\"edge\":\"begin\"}\n");
    }
}
