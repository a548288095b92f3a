// SPDX-License-Identifier: LGPL-2.1-or-later
//! A panel over time: axes, lines, areas, a legend.

use super::scale::{Scale, Unit};
use super::svg::{Anchor, Rect, Svg, colour};

/// One panel of a picture.
pub struct Panel {
    area: Rect,
    time: Scale,
    value: Scale,
}

/// Values over time: nanoseconds and the value.
pub type Series = Vec<(f64, f64)>;

impl Panel {
    /// Draws a panel's frame, its value axis up to `max`, and its name.
    pub fn new(svg: &mut Svg, name: &str, area: Rect, time_max: f64, max: f64, unit: Unit) -> Self {
        let step = unit.round_up(max.max(1.0) / 4.0);
        let max = step * (max / step).ceil().max(1.0);
        let value = Scale::new(max, area.y + area.h, area.y);
        let time = Scale::new(time_max, area.x, area.x + area.w);
        svg.bold((area.x, area.y - 8.0), name, 13.0, colour::INK, Anchor::Start);
        for tick in value.ticks(unit, 4) {
            let y = value.at(tick);
            svg.line((area.x, y), (area.x + area.w, y), colour::LIGHT, "");
            svg.text((area.x - 6.0, y + 3.5), &unit.text(tick), 10.0, colour::INK, Anchor::End);
        }
        Self { area, time, value }
    }

    /// Writes the times under the panel.
    pub fn time_axis(&self, svg: &mut Svg) {
        let bottom = self.area.y + self.area.h;
        svg.line((self.area.x, bottom), (self.area.x + self.area.w, bottom), colour::GREY, "");
        for tick in self.time.ticks(Unit::Nanoseconds, 8) {
            let x = self.time.at(tick);
            svg.line((x, bottom), (x, bottom + 4.0), colour::GREY, "");
            svg.text((x, bottom + 16.0), &Unit::Nanoseconds.text(tick), 10.0, colour::INK, Anchor::Middle);
        }
    }

    fn place(&self, series: &[(f64, f64)]) -> Vec<(f64, f64)> {
        series.iter().map(|(time, value)| (self.time.at(*time), self.value.at(*value))).collect()
    }

    /// Draws a line.
    pub fn line(&self, svg: &mut Svg, series: &[(f64, f64)], stroke: &str) {
        svg.path(&self.place(series), stroke, "");
    }

    /// Draws the area between two lines with the same times.
    pub fn band(&self, svg: &mut Svg, lower: &[(f64, f64)], upper: &[(f64, f64)], fill: &str) {
        let mut points = self.place(upper);
        points.extend(self.place(lower).into_iter().rev());
        svg.area(&points, fill, 0.55);
    }

    /// Draws a dashed line.
    pub fn limit(&self, svg: &mut Svg, series: &[(f64, f64)], stroke: &str) {
        svg.path(&self.place(series), stroke, "6 4");
    }

    /// Writes a legend above the panel, at its right end.
    pub fn legend(&self, svg: &mut Svg, entries: &[(&str, &str)]) {
        let entries: Vec<_> = entries.iter().map(|(name, fill)| (name.to_string(), *fill)).collect();
        let Rect { x, y, w, .. } = self.area;
        svg.legend((x, x + w), y - 8.0, &entries, true);
    }
}
