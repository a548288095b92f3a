// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads the trace of a migration, as the driver writes it; see `docs/trace-format.md`.
//!
//! The file may be hostile. It is read line by line, with a limit on a line and a limit on the events that are kept.

use std::collections::HashMap;
use std::io::{self, BufRead, Read};

use savevm_stream::inspect::json::Json;
use savevm_stream::inspect::{Budget, printable};

use crate::failure::Failure;
use crate::words::size;

/// Limit on a line in bytes. Longer lines are invalid.
const LINE_LIMIT: usize = 1 << 20;
/// Limit on the memory of one parsed line in bytes.
const PARSED_LIMIT: usize = 64 << 20;
/// Default limit on the memory of the kept events in bytes.
pub const KEPT_LIMIT: usize = 32 << 20;
/// Bytes that one event counts for, in addition to its text.
const EVENT_COST: usize = 128;

/// The events by kind, in order. Times are nanoseconds since the start of the trace.
#[derive(Debug, Default)]
pub struct Trace {
    /// `source` or `destination`.
    pub side: String,
    /// The target of the stream.
    pub uri: String,
    /// Time of the last event.
    pub end: u64,
    /// Begin of each status.
    pub statuses: Vec<(u64, String)>,
    /// Measurements, one per round.
    pub rounds: Vec<Round>,
    /// Remaining bytes.
    pub pending: Vec<Pending>,
    /// Begin and end of each phase.
    pub phases: Vec<Phase>,
    /// Time and bytes of each device.
    pub devices: Vec<DeviceCost>,
    /// Begin and end of the downtime.
    pub downtime: Option<(u64, u64)>,
    /// Percentage over time.
    pub percent: Vec<(u64, f64)>,
    /// Downtime that was predicted when the guest was stopped, in nanoseconds.
    pub predicted: Option<u64>,
    /// Times without progress.
    pub stalls: Vec<Stall>,
    /// When the deadline passed, and what was done.
    pub deadline: Option<(u64, String)>,
    /// The error of the migration.
    pub errors: Vec<(u64, String)>,
    /// Number of invalid lines, and the first of them with the reason.
    pub bad_lines: Option<(usize, usize, String)>,
    /// Number of the first line that was not read because the limit on kept events was reached.
    pub cut_at: Option<usize>,
}

/// Measurements of one round.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// Time of the event.
    pub at: u64,
    /// Bytes sent so far.
    pub bytes: u64,
    /// Bytes per second.
    pub bandwidth: f64,
    /// Bytes per second that the guest dirtied.
    pub dirty_rate: f64,
    /// Throttling of the guest in percent.
    pub throttle: f64,
}

/// Remaining bytes, by when they may be sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pending {
    /// Time of the event.
    pub at: u64,
    /// Must be sent before the switchover.
    pub precopy: u64,
    /// May be sent before or after the switchover.
    pub compatible: u64,
    /// Is sent after the switchover.
    pub postcopy: u64,
    /// The guest is stopped below this.
    pub threshold: u64,
}

/// A named interval.
#[derive(Clone, Debug)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Begin.
    pub begin: u64,
    /// End; the end of the trace if the interval did not end.
    pub end: u64,
}

/// A time without progress.
#[derive(Clone, Debug)]
pub struct Stall {
    /// Begin.
    pub begin: u64,
    /// End; the end of the trace if it did not end.
    pub end: u64,
    /// The reason in words.
    pub message: String,
}

/// Cost of one section of a device.
#[derive(Clone, Debug)]
pub struct DeviceCost {
    /// Time of the event.
    pub at: u64,
    /// Name and instance.
    pub name: String,
    /// Bytes in the stream.
    pub bytes: u64,
    /// Duration in nanoseconds.
    pub duration: u64,
}

/// Begin of each open phase, by name. Phases of one name end in the reverse order.
type Open = HashMap<String, Vec<u64>>;

impl Trace {
    /// Reads a trace. Invalid lines are counted and skipped. Reading stops at the event that would exceed `limit` bytes
    /// of kept events; see `cut_at`. A trace without a valid line is an error.
    pub fn read(input: &mut dyn BufRead, limit: usize) -> Result<Self, Failure> {
        let mut trace = Self::default();
        let mut open = Open::default();
        let (mut understood, mut kept) = (0, 0);
        let mut line = Vec::new();
        for at in 1.. {
            let read = match read_line(input, &mut line)? {
                Line::End => break,
                Line::Whole if line.trim_ascii().is_empty() => continue,
                Line::Whole => Json::parse(&line, &mut Budget::new(PARSED_LIMIT)).map_err(|error| error.to_string()),
                Line::TooLong => Err(format!("the line is longer than {}", size(LINE_LIMIT as u64))),
            };
            kept += read.as_ref().map_or(0, cost);
            if kept > limit {
                trace.cut_at = Some(at);
                break;
            }
            match read.and_then(|json| trace.event(&json, &mut open)) {
                Ok(()) => understood += 1,
                Err(why) => {
                    let (count, first, reason) = trace.bad_lines.take().unwrap_or((0, at, why));
                    trace.bad_lines = Some((count + 1, first, reason));
                }
            }
        }
        let end = trace.end;
        let open =
            open.into_iter().flat_map(|(name, begins)| begins.into_iter().map(move |begin| (name.clone(), begin)));
        trace.phases.extend(open.map(|(name, begin)| Phase { name, begin, end }));
        trace.phases.sort_by(|a, b| (a.begin, &a.name).cmp(&(b.begin, &b.name)));
        trace.end_stall(end);
        if let Some((_, downtime_end)) = trace.downtime.as_mut().filter(|(begin, end)| end < begin) {
            *downtime_end = end;
        }
        match (understood, &trace.bad_lines) {
            (0, Some((_, line, why))) => Err(Failure::new(format!("line {line}: {}", printable(why)))),
            (0, None) => Err(Failure::new("the trace is empty")),
            _ => Ok(trace),
        }
    }

    fn event(&mut self, json: &Json<'_>, open: &mut Open) -> Result<(), String> {
        let at = json.get("t_ns").and_then(Json::as_u64).ok_or("no time t_ns")?;
        let event = json.get("event").and_then(Json::as_str).ok_or("no event")?;
        let text = |name: &str| json.get(name).and_then(Json::as_str).map(str::to_string);
        let wanted = |name: &str| text(name).ok_or(format!("{event} without {name}"));
        let number = |name: &str| json.get(name).and_then(Json::as_u64).unwrap_or(0);
        let float = |name: &str| json.get(name).and_then(Json::as_f64).filter(|n| *n >= 0.0).unwrap_or(0.0);
        let is_end = text("edge").as_deref() == Some("end");
        self.end = self.end.max(at);
        match event {
            "trace" => (self.side, self.uri) = (text("side").unwrap_or_default(), text("uri").unwrap_or_default()),
            "status" => self.statuses.push((at, wanted("status")?)),
            "round" => self.rounds.push(Round {
                at,
                bytes: number("bytes"),
                bandwidth: float("bandwidth"),
                dirty_rate: float("dirty_rate"),
                throttle: float("throttle"),
            }),
            "pending" => self.pending.push(Pending {
                at,
                precopy: number("precopy"),
                compatible: number("compatible"),
                postcopy: number("postcopy"),
                threshold: number("threshold"),
            }),
            "phase" => self.phase(at, wanted("phase")?, is_end, open),
            "device" => {
                let instance = number("instance");
                let name = wanted("idstr")?;
                let name = if instance > 0 { format!("{name}#{instance}") } else { name };
                self.devices.push(DeviceCost { at, name, bytes: number("bytes"), duration: number("duration_ns") });
            }
            "downtime" if is_end => {
                let begin = self.downtime.map_or(at.saturating_sub(number("duration_ns")), |(begin, _)| begin);
                self.downtime = Some((begin, at));
            }
            // An open interval ends before its begin.
            "downtime" => self.downtime = Some((at, 0)),
            "progress" => self.percent.push((at, float("percent").min(100.0))),
            "budget" => self.predicted = Some(number("predicted_ns")),
            "stalled" => {
                self.end_stall(at);
                if wanted("reason")? != "none" {
                    self.stalls.push(Stall { begin: at, end: u64::MAX, message: wanted("message")? });
                }
            }
            "deadline" => self.deadline = Some((at, wanted("action")?)),
            "error" => self.errors.push((at, wanted("message")?)),
            // Later drivers may add events.
            _ => {}
        }
        Ok(())
    }

    /// Ends the last time without progress, if that has not ended.
    fn end_stall(&mut self, at: u64) {
        if let Some(stall) = self.stalls.last_mut().filter(|stall| stall.end == u64::MAX) {
            stall.end = at.max(stall.begin);
        }
    }

    fn phase(&mut self, at: u64, name: String, is_end: bool, open: &mut Open) {
        if !is_end {
            open.entry(name).or_default().push(at);
        } else if let Some(begin) = open.get_mut(&name).and_then(Vec::pop) {
            self.phases.push(Phase { name, begin, end: at.max(begin) });
        }
    }

    /// Returns the last status.
    pub fn outcome(&self) -> &str {
        self.statuses.last().map_or("unfinished", |(_, status)| status)
    }
}

/// Result of reading a line.
enum Line {
    /// The line is complete, or the last one.
    Whole,
    /// The line is longer than `LINE_LIMIT`. The rest of it was skipped.
    TooLong,
    /// There is no further line.
    End,
}

/// Reads a line into `line`, without more than `LINE_LIMIT` bytes of it.
fn read_line(mut input: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<Line> {
    line.clear();
    Read::take(&mut input, LINE_LIMIT as u64 + 1).read_until(b'\n', line)?;
    match line.last() {
        None => Ok(Line::End),
        Some(b'\n') => Ok(Line::Whole),
        Some(_) if line.len() <= LINE_LIMIT => Ok(Line::Whole),
        Some(_) => {
            skip_line(input)?;
            Ok(Line::TooLong)
        }
    }
}

/// Skips the rest of a line.
fn skip_line(input: &mut dyn BufRead) -> io::Result<()> {
    loop {
        let data = input.fill_buf()?;
        let end = data.iter().position(|byte| *byte == b'\n');
        let (len, is_end) = (end.map_or(data.len(), |at| at + 1), end.is_some() || data.is_empty());
        input.consume(len);
        if is_end {
            return Ok(());
        }
    }
}

/// Returns the bytes that an event counts for, 0 if nothing of it is kept.
fn cost(json: &Json<'_>) -> usize {
    let text = match json.get("event").and_then(Json::as_str) {
        Some("status") => "status",
        Some("phase") => "phase",
        Some("device") => "idstr",
        Some("error" | "stalled") => "message",
        Some("round" | "pending" | "progress") => return EVENT_COST,
        _ => return 0,
    };
    EVENT_COST + json.get(text).and_then(Json::as_str).map_or(0, str::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Trace, String> {
        read_within(text.as_bytes(), KEPT_LIMIT)
    }

    fn read_within(mut text: impl BufRead, limit: usize) -> Result<Trace, String> {
        Trace::read(&mut text, limit).map_err(|failure| match failure {
            Failure::Message(message) => message,
            Failure::PipeClosed => "pipe closed".into(),
        })
    }

    #[test]
    fn events_are_parsed() {
        let trace = parse(
            r#"{"t_ns":0,"event":"trace","version":1,"side":"source","uri":"unix:x"}
            {"t_ns":5,"event":"phase","phase":"setup","edge":"begin"}
            {"t_ns":9,"event":"phase","phase":"setup","edge":"end"}
            {"t_ns":9,"event":"phase","phase":"iterate","edge":"begin"}
            {"t_ns":10,"event":"round","round":1,"bytes":100,"bandwidth":1e6,"dirty_rate":5}
            {"t_ns":10,"event":"progress","percent":40,"expected_total_ns":31}
            {"t_ns":10,"event":"stalled","reason":"dirty-rate","excess":5,"message":"too fast"}
            {"t_ns":15,"event":"stalled","reason":"none","excess":0,"message":""}
            {"t_ns":16,"event":"stalled","reason":"devices","excess":0,"message":"too slow"}
            {"t_ns":17,"event":"deadline","action":"force"}
            {"t_ns":19,"event":"budget","left":1,"limit_ns":2,"predicted_ns":9}
            {"t_ns":11,"event":"pending","precopy":1,"compatible":2,"postcopy":3,"threshold":4}
            {"t_ns":20,"event":"downtime","edge":"begin"}
            {"t_ns":22,"event":"device","idstr":"cpu","instance":1,"bytes":7,"duration_ns":2}
            {"t_ns":30,"event":"downtime","edge":"end","duration_ns":10}
            {"t_ns":31,"event":"status","status":"completed"}
            {"t_ns":32,"event":"something-new"}"#,
        )
        .unwrap();
        assert_eq!((trace.end, trace.outcome()), (32, "completed"));
        assert_eq!(trace.downtime, Some((20, 30)));
        assert_eq!(trace.devices[0].name, "cpu#1");
        let phases: Vec<_> = trace.phases.iter().map(|phase| (phase.name.as_str(), phase.begin, phase.end)).collect();
        assert_eq!(phases, [("setup", 5, 9), ("iterate", 9, 32)]);
        assert_eq!(trace.rounds[0].bandwidth, 1e6);
        assert!(trace.bad_lines.is_none());
        assert_eq!((trace.percent, trace.predicted), (vec![(10, 40.0)], Some(9)));
        let stalls: Vec<_> = trace.stalls.iter().map(|stall| (stall.begin, stall.end, &*stall.message)).collect();
        assert_eq!(stalls, [(10, 15, "too fast"), (16, 32, "too slow")]);
        assert_eq!(trace.deadline, Some((17, "force".to_owned())));
    }

    #[test]
    fn cut_trace_is_read_up_to_the_cut() {
        let trace =
            parse("{\"t_ns\":1,\"event\":\"downtime\",\"edge\":\"begin\"}\n{\"t_ns\":7,\"event\":\"x\"}\n{\"t_ns\":")
                .unwrap();
        assert_eq!(trace.downtime, Some((1, 7)));
        assert_eq!(trace.bad_lines.as_ref().map(|(count, line, _)| (*count, *line)), Some((1, 3)));
        assert!(parse("").is_err());
        assert!(parse("QEVM").unwrap_err().starts_with("line 1"));
    }
    #[test]
    fn line_over_the_limit_is_invalid_and_skipped() {
        let long = format!("{{\"t_ns\":1,\"event\":\"x\",\"x\":\"{}\"}}", "y".repeat(LINE_LIMIT));
        let trace = parse(&format!("{long}\n{{\"t_ns\":7,\"event\":\"x\"}}\n{long}")).unwrap();
        assert_eq!(trace.bad_lines, Some((2, 1, "the line is longer than 1 MiB".into())));
        assert_eq!(trace.end, 7);
    }

    #[test]
    fn trace_is_cut_at_the_limit_on_kept_events() {
        let line = r#"{"t_ns":1,"event":"error","message":"abcdefgh"}"#;
        let text = format!("{line}\n{line}\n\n{line}\n{line}\n");
        let trace = read_within(text.as_bytes(), 3 * (EVENT_COST + 8) - 1).unwrap();
        assert_eq!((trace.errors.len(), trace.cut_at), (2, Some(4)));
        assert_eq!(parse(&text).unwrap().cut_at, None);
        // Unknown events are not kept.
        let unknown = "{\"t_ns\":1,\"event\":\"x\"}\n".repeat(10);
        assert_eq!(read_within(unknown.as_bytes(), 0).unwrap().cut_at, None);
    }
}
