// SPDX-License-Identifier: LGPL-2.1-or-later
//! Draws a migration: phases, rates, remaining bytes, and the time of each device during the downtime.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::chart::{Panel, Series};
use super::scale::{Scale, Unit};
use super::svg::{Anchor, Rect, Svg, colour, escape, fit, fit_name, text_width};
use super::trace::{Pending, Phase, Round, Stall, Trace};
use crate::words::size;

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 24.0;
/// Height of a panel.
const PANEL: f64 = 150.0;
/// Height above a panel for its name and legend.
const GAP: f64 = 44.0;
/// Height of the bar of a phase or a device.
const BAR: f64 = 18.0;
/// Most devices with a bar of their own.
const DEVICES: usize = 15;

/// Returns the picture as SVG.
pub fn draw(trace: &Trace) -> String {
    let mut svg = Svg::new(WIDTH, &headline(trace));
    svg.bold((24.0, 32.0), &headline(trace), 18.0, colour::INK, Anchor::Start);
    let place = [trace.side.as_str(), trace.uri.as_str()].into_iter().filter(|text| !text.is_empty());
    let place = place.collect::<Vec<_>>().join(", ");
    svg.text((24.0, 51.0), &place, 12.0, colour::GREY, Anchor::Start);
    let mut y = 64.0;
    for (_, message) in trace.errors.iter().take(3) {
        let message = fit(message, 12.0, WIDTH - 48.0).unwrap_or_default();
        svg.text((24.0, y + 4.0), &message, 12.0, colour::RED, Anchor::Start);
        y += 16.0;
    }
    for message in trace.deadline.iter().map(deadline).chain(trace.stalls.iter().take(3).map(stall)) {
        let message = fit(&message, 12.0, WIDTH - 48.0).unwrap_or_default();
        svg.text((24.0, y + 4.0), &message, 12.0, colour::ORANGE, Anchor::Start);
        y += 16.0;
    }
    let mut picture = Picture { svg, trace, time: trace.end.max(1) as f64, y };
    picture.phases();
    picture.rates();
    picture.left();
    picture.throttle();
    picture.percent();
    picture.devices();
    picture.svg.finish(picture.y + 20.0)
}

/// Returns the picture as an HTML page, with the numbers in a table.
pub fn page(trace: &Trace) -> String {
    let title = escape(&headline(trace));
    let mut devices: Vec<_> = trace.devices.iter().collect();
    devices.sort_by_key(|device| std::cmp::Reverse(device.duration));
    let rows: String = devices
        .iter()
        .map(|device| {
            let duration = Unit::Nanoseconds.text(device.duration as f64);
            let at = Unit::Nanoseconds.text(device.at as f64);
            let name = escape(&device.name);
            format!("<tr><td>{name}</td><td>{duration}</td><td>{}</td><td>{at}</td></tr>\n", size(device.bytes))
        })
        .collect();
    let table = format!(
        "<h2>Devices</h2>\n<table>\n<tr><th>device</th><th>time</th><th>bytes</th><th>done at</th></tr>\n{rows}</table>\n"
    );
    let table = if devices.is_empty() { String::new() } else { table };
    let style = "body{font-family:'Liberation Sans',Arial,sans-serif;margin:2em auto;max-width:1040px;color:#222}\
                 svg{max-width:100%;height:auto}table{border-collapse:collapse}\
                 td,th{padding:.2em 1em .2em 0;text-align:right;border-bottom:1px solid #ddd}\
                 td:first-child,th:first-child{text-align:left}";
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <style>{style}</style>\n</head>\n<body>\n{}{table}</body>\n</html>\n",
        draw(trace)
    )
}

fn deadline((at, action): &(u64, String)) -> String {
    format!("deadline after {}: {action}", Unit::Nanoseconds.text(*at as f64))
}

fn stall(stall: &Stall) -> String {
    let (begin, time) = (stall.begin as f64, (stall.end - stall.begin) as f64);
    format!("stalled from {} for {}: {}", Unit::Nanoseconds.text(begin), Unit::Nanoseconds.text(time), stall.message)
}

fn headline(trace: &Trace) -> String {
    let mut parts = vec![format!("Migration {}", trace.outcome())];
    parts.push(format!("{} in all", Unit::Nanoseconds.text(trace.end as f64)));
    if let Some((begin, end)) = trace.downtime {
        let predicted = trace.predicted.map(|time| format!(" (predicted {})", Unit::Nanoseconds.text(time as f64)));
        let downtime = Unit::Nanoseconds.text((end - begin) as f64);
        parts.push(format!("downtime {downtime}{}", predicted.unwrap_or_default()));
    }
    if let Some(bytes) = trace.rounds.iter().map(|round| round.bytes).max() {
        parts.push(format!("{} sent", size(bytes)));
    }
    parts.join(", ")
}

struct Picture<'t> {
    svg: Svg,
    trace: &'t Trace,
    time: f64,
    /// Place of the next panel.
    y: f64,
}

impl Picture<'_> {
    /// Allocates the place of a panel of this height.
    fn area(&mut self, height: f64) -> Rect {
        let area = Rect { x: LEFT, y: self.y + GAP, w: WIDTH - LEFT - RIGHT, h: height };
        self.y = area.y + height;
        area
    }

    /// Draws a panel over time, with the downtime in the background.
    fn panel(&mut self, name: &str, max: f64, unit: Unit) -> Panel {
        let area = self.area(PANEL);
        self.standstill(area);
        let panel = Panel::new(&mut self.svg, name, area, self.time, max, unit);
        panel.time_axis(&mut self.svg);
        self.y += 20.0;
        panel
    }

    fn standstill(&mut self, area: Rect) {
        let Some((begin, end)) = self.trace.downtime else { return };
        let time = Scale::new(self.time, area.x, area.x + area.w);
        let (from, to) = (time.at(begin as f64), time.at(end as f64));
        let note = format!("the guest is stopped for {}", Unit::Nanoseconds.text((end - begin) as f64));
        self.svg.rect(Rect { x: from, y: area.y, w: (to - from).max(1.5), h: area.h }, colour::DOWNTIME, &note);
    }

    /// Draws phases as bars, with overlapping ones in rows of their own, and the statuses below.
    fn phases(&mut self) {
        let rows = rows_of(&self.trace.phases);
        let count = rows.iter().max().map_or(0, |row| row + 1);
        if count == 0 && self.trace.statuses.is_empty() {
            return;
        }
        let area = self.area((count as f64) * (BAR + 3.0) + BAR);
        self.svg.bold((area.x, area.y - 8.0), "Phases and status", 13.0, colour::INK, Anchor::Start);
        self.standstill(area);
        let time = Scale::new(self.time, area.x, area.x + area.w);
        self.statuses(area, &time);
        let kinds = kinds_of(&self.trace.phases);
        let fills: HashMap<&str, &'static str> = kinds.iter().map(|kind| (kind.name, kind.fill)).collect();
        for (phase, row) in self.trace.phases.iter().zip(rows) {
            let (from, to) = (time.at(phase.begin as f64), time.at(phase.end as f64));
            let y = area.y + row as f64 * (BAR + 3.0);
            let bar = Rect { x: from, y, w: (to - from).max(1.0), h: BAR };
            let duration = Unit::Nanoseconds.text((phase.end - phase.begin) as f64);
            let fill = fills.get(phase.name.as_str()).copied().unwrap_or(colour::GREY);
            self.svg.rect(bar, fill, &format!("{}: {duration}", phase.name));
            let labels = [format!("{} {duration}", phase.name), phase.name.clone()];
            if let Some(label) = labels.iter().find(|label| text_width(label, 11.0) <= bar.w - 6.0) {
                self.svg.text((from + 4.0, y + 13.0), label, 11.0, colour::ink_on(fill), Anchor::Start);
            }
        }
        self.phase_legend(&kinds);
    }

    /// Writes the total duration of every phase, because short bars have no space for a name.
    fn phase_legend(&mut self, kinds: &[PhaseKind<'_>]) {
        let text = |name: &str, time: u64| format!("{name} {}", Unit::Nanoseconds.text(time as f64));
        let mut entries: Vec<_> = kinds.iter().map(|kind| (text(kind.name, kind.time), kind.fill)).collect();
        if let Some((begin, end)) = self.trace.downtime {
            entries.push((text("the guest is stopped", end - begin), colour::DOWNTIME));
        }
        self.y = self.svg.legend((LEFT, WIDTH - RIGHT), self.y + 18.0, &entries, false) - 12.0;
    }

    /// Draws marks in the bars, and their names below if they do not overlap.
    fn statuses(&mut self, area: Rect, time: &Scale) {
        let y = area.y + area.h - 4.0;
        let mut free = area.x;
        for (at, status) in &self.trace.statuses {
            let x = time.at(*at as f64);
            let width = text_width(status, 10.0);
            let start = x.min(area.x + area.w - width);
            let named = start >= free;
            self.svg.line((x, area.y), (x, area.y + area.h - BAR + if named { 6.0 } else { 0.0 }), colour::GREY, "2 2");
            if named {
                self.svg.text((start, y), status, 10.0, colour::INK, Anchor::Start);
                free = start + width + 6.0;
            }
        }
    }

    fn rates(&mut self) {
        let rounds = &self.trace.rounds;
        if rounds.is_empty() {
            return;
        }
        let series = |value| steps(self.trace, value);
        let (bandwidth, dirty) = (series(|round| round.bandwidth), series(|round| round.dirty_rate));
        let max = bandwidth.iter().chain(&dirty).map(|(_, value)| *value).fold(0.0, f64::max);
        let panel = self.panel("Rates", max, Unit::BytesPerSecond);
        panel.legend(&mut self.svg, &[("bandwidth", colour::BLUE), ("dirty rate", colour::ORANGE)]);
        let floor: Series = bandwidth.iter().map(|(time, _)| (*time, 0.0)).collect();
        panel.band(&mut self.svg, &floor, &bandwidth, colour::SKY);
        panel.line(&mut self.svg, &bandwidth, colour::BLUE);
        panel.line(&mut self.svg, &dirty, colour::ORANGE);
    }

    /// Draws the remaining bytes, with their classes stacked.
    fn left(&mut self) {
        let pending = &self.trace.pending;
        if pending.is_empty() {
            return;
        }
        let sums = |of: fn(&Pending) -> u64| -> Series {
            pending.iter().map(|pending| (pending.at as f64, of(pending) as f64)).collect()
        };
        let floor = sums(|_| 0);
        let precopy = sums(|pending| pending.precopy);
        let compatible = sums(|pending| pending.precopy.saturating_add(pending.compatible));
        let all = sums(|pending| pending.precopy.saturating_add(pending.compatible).saturating_add(pending.postcopy));
        let threshold = sums(|pending| pending.threshold);
        let max = all.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        let panel = self.panel("Left to send", max, Unit::Bytes);
        let any = |of: fn(&Pending) -> u64| pending.iter().any(|pending| of(pending) > 0);
        let classes = [
            ("before the switch", colour::BLUE, any(|pending| pending.precopy)),
            ("before or after", colour::SKY, any(|pending| pending.compatible)),
            ("after it only", colour::PURPLE, any(|pending| pending.postcopy)),
            ("threshold", colour::RED, any(|pending| pending.threshold)),
        ];
        let drawn = classes.iter().filter(|(_, _, any)| *any).map(|(name, fill, _)| (*name, *fill));
        panel.legend(&mut self.svg, &drawn.collect::<Vec<_>>());
        panel.band(&mut self.svg, &floor, &precopy, colour::BLUE);
        panel.band(&mut self.svg, &precopy, &compatible, colour::SKY);
        panel.band(&mut self.svg, &compatible, &all, colour::PURPLE);
        panel.line(&mut self.svg, &all, colour::INK);
        panel.limit(&mut self.svg, &threshold, colour::RED);
    }

    fn throttle(&mut self) {
        let series = steps(self.trace, |round| round.throttle);
        if series.iter().all(|(_, value)| *value <= 0.0) {
            return;
        }
        let panel = self.panel("Throttling of the guest", 100.0, Unit::Percent);
        panel.line(&mut self.svg, &series, colour::RED);
    }

    /// Draws the percentage, with the times without progress in the background.
    fn percent(&mut self) {
        let percent = &self.trace.percent;
        if percent.is_empty() {
            return;
        }
        let area = Rect { x: LEFT, y: self.y + GAP, w: WIDTH - LEFT - RIGHT, h: PANEL };
        let time = Scale::new(self.time, area.x, area.x + area.w);
        for stall in &self.trace.stalls {
            let (from, to) = (time.at(stall.begin as f64), time.at(stall.end as f64));
            self.svg.rect(Rect { x: from, y: area.y, w: (to - from).max(1.5), h: area.h }, colour::SKY, &stall.message);
        }
        let series: Series = percent.iter().map(|(at, percent)| (*at as f64, *percent)).collect();
        let panel = self.panel("Progress", 100.0, Unit::Percent);
        panel.line(&mut self.svg, &series, colour::GREEN);
    }

    /// Draws the time of each device during the downtime, or in total if there was none.
    fn devices(&mut self) {
        let (name, costs) = device_costs(self.trace);
        if costs.is_empty() {
            return;
        }
        let area = self.area(costs.len() as f64 * (BAR + 2.0));
        self.svg.bold((24.0, area.y - 8.0), name, 13.0, colour::INK, Anchor::Start);
        let names = 230.0;
        let longest = costs.iter().map(|(_, duration, _)| *duration).max().unwrap_or(1);
        let length = Scale::new(longest as f64, 0.0, WIDTH - names - RIGHT - 150.0);
        for (at, (name, duration, bytes)) in costs.iter().enumerate() {
            let y = area.y + at as f64 * (BAR + 2.0);
            let label = fit_name(name, 11.0, names - 34.0).unwrap_or_default();
            self.svg.text((names - 6.0, y + 13.0), &label, 11.0, colour::INK, Anchor::End);
            let width = length.at(*duration as f64).max(1.0);
            let text = format!("{}, {}", Unit::Nanoseconds.text(*duration as f64), size(*bytes));
            let fill = if name.ends_with("others") { colour::GREY } else { colour::RED };
            self.svg.rect(Rect { x: names, y, w: width, h: BAR }, fill, &format!("{name}: {text}"));
            self.svg.text((names + width + 5.0, y + 13.0), &text, 11.0, colour::INK, Anchor::Start);
        }
    }
}

/// Returns the values of each round as steps: a value is valid from the previous round to its own.
fn steps(trace: &Trace, value: fn(&Round) -> f64) -> Series {
    let first = trace.phases.iter().find(|phase| phase.name == "iterate").map_or(0, |phase| phase.begin);
    let begins = std::iter::once(first).chain(trace.rounds.iter().map(|round| round.at));
    let rounds = begins.zip(&trace.rounds);
    rounds.flat_map(|(begin, round)| [begin, round.at].map(|at| (at as f64, value(round)))).collect()
}

/// All phases of one name.
struct PhaseKind<'t> {
    name: &'t str,
    /// Total duration in nanoseconds.
    time: u64,
    fill: &'static str,
}

/// Returns the phases by name, in the order of their first begin.
fn kinds_of(phases: &[Phase]) -> Vec<PhaseKind<'_>> {
    const FILLS: [&str; 7] =
        [colour::BLUE, colour::GREEN, colour::ORANGE, colour::PURPLE, colour::SLATE, colour::SKY, colour::GREY];
    let mut kinds: Vec<PhaseKind<'_>> = Vec::new();
    let mut places = HashMap::new();
    for phase in phases {
        let place = *places.entry(phase.name.as_str()).or_insert(kinds.len());
        if place == kinds.len() {
            kinds.push(PhaseKind { name: &phase.name, time: 0, fill: FILLS[place % FILLS.len()] });
        }
        kinds[place].time = kinds[place].time.saturating_add(phase.end - phase.begin);
    }
    kinds
}

/// Returns a row for each phase, so that phases in one row do not overlap: the first free row. The phases are sorted by
/// their begin.
fn rows_of(phases: &[Phase]) -> Vec<usize> {
    let mut taken: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut free: BinaryHeap<Reverse<usize>> = BinaryHeap::new();
    let row_of = |phase: &Phase| {
        while let Some(&Reverse((_, row))) = taken.peek().filter(|Reverse((end, _))| *end <= phase.begin) {
            taken.pop();
            free.push(Reverse(row));
        }
        let row = free.pop().map_or(taken.len(), |Reverse(row)| row);
        taken.push(Reverse((phase.end, row)));
        row
    };
    phases.iter().map(row_of).collect()
}

/// Returns the slowest devices with name, nanoseconds and bytes, and the sum of the others.
fn device_costs(trace: &Trace) -> (&'static str, Vec<(String, u64, u64)>) {
    let within = |at: u64| trace.downtime.is_none_or(|(begin, end)| (begin..=end).contains(&at));
    let mut costs: Vec<(String, u64, u64)> = Vec::new();
    let mut places = HashMap::new();
    for device in trace.devices.iter().filter(|device| within(device.at)) {
        let place = *places.entry(device.name.as_str()).or_insert(costs.len());
        if place == costs.len() {
            costs.push((device.name.clone(), 0, 0));
        }
        let (_, duration, bytes) = &mut costs[place];
        (*duration, *bytes) = (duration.saturating_add(device.duration), bytes.saturating_add(device.bytes));
    }
    costs.sort_by_key(|(_, duration, _)| std::cmp::Reverse(*duration));
    let rest = costs.split_off(costs.len().min(DEVICES));
    if !rest.is_empty() {
        let (duration, bytes) = rest
            .iter()
            .fold((0u64, 0u64), |(d, b), (_, duration, bytes)| (d.saturating_add(*duration), b.saturating_add(*bytes)));
        costs.push((format!("all {} others", rest.len()), duration, bytes));
    }
    (if trace.downtime.is_some() { "Downtime by device" } else { "Time by device" }, costs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_phases_have_separate_rows() {
        let phase = |begin, end| Phase { name: "p".into(), begin, end };
        assert_eq!(rows_of(&[phase(0, 10), phase(5, 7), phase(8, 12), phase(10, 11)]), [0, 1, 1, 0]);
    }

    #[test]
    fn empty_trace_is_drawn() {
        let trace = Trace::default();
        assert!(draw(&trace).contains("unfinished"));
        assert!(page(&trace).ends_with("</html>\n"));
    }
}
