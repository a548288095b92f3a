// SPDX-License-Identifier: LGPL-2.1-or-later
//! Maps numbers to places, with round numbers for axes.

use crate::words;

/// Maps `0..=max` to a range of the picture.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    max: f64,
    from: f64,
    to: f64,
}

/// The unit of an axis, which selects its round numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, in binary units.
    Bytes,
    /// Bytes per second.
    BytesPerSecond,
    /// Nanoseconds.
    Nanoseconds,
    /// Hundredths.
    Percent,
}

impl Scale {
    /// Returns a scale with 0 at `from` and `max` at `to`.
    pub fn new(max: f64, from: f64, to: f64) -> Self {
        Self { max: if max > 0.0 { max } else { 1.0 }, from, to }
    }

    /// Returns the place of a number.
    pub fn at(&self, number: f64) -> f64 {
        self.from + (number / self.max).clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Returns about `count` round numbers, from 0 on.
    pub fn ticks(&self, unit: Unit, count: usize) -> Vec<f64> {
        let step = unit.round_up(self.max / count.max(1) as f64);
        (0..).map(|at| f64::from(at) * step).take_while(|number| *number <= self.max * 1.0001).collect()
    }
}

impl Unit {
    /// Returns the next round number that is not less.
    pub fn round_up(self, number: f64) -> f64 {
        let number = number.max(f64::MIN_POSITIVE);
        if matches!(self, Self::Bytes | Self::BytesPerSecond) {
            return 2f64.powf((number * 0.9999).log2().ceil());
        }
        let magnitude = 10f64.powf(number.log10().floor());
        let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * magnitude);
        steps.into_iter().find(|step| *step >= number * 0.9999).unwrap_or(10.0 * magnitude)
    }

    /// Formats a number.
    pub fn text(self, number: f64) -> String {
        match self {
            Self::Bytes => words::size(number.round() as u64).replace(" bytes", " B"),
            Self::BytesPerSecond => format!("{}/s", Self::Bytes.text(number)),
            Self::Nanoseconds => duration(number),
            Self::Percent => format!("{number:.0} %"),
        }
    }
}

/// Formats a duration with three significant digits.
fn duration(nanoseconds: f64) -> String {
    let (number, unit) = match nanoseconds {
        n if n >= 1e9 => (n / 1e9, "s"),
        n if n >= 1e6 => (n / 1e6, "ms"),
        n if n >= 1e3 => (n / 1e3, "µs"),
        n if n > 0.0 => (n, "ns"),
        _ => return "0".into(),
    };
    let decimals = if number >= 100.0 {
        0
    } else if number >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{number:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(Scale::new(100.0, 0.0, 1.0).ticks(Unit::Percent, 4), [0.0, 25.0, 50.0, 75.0, 100.0]);
        assert_eq!(Scale::new(950.0, 0.0, 1.0).ticks(Unit::Nanoseconds, 5), [0.0, 200.0, 400.0, 600.0, 800.0]);
        let mib = 1048576.0;
        assert_eq!(Scale::new(10.0 * mib, 0.0, 1.0).ticks(Unit::Bytes, 3), [0.0, 4.0 * mib, 8.0 * mib]);
        assert_eq!(Scale::new(0.0, 5.0, 9.0).at(0.0), 5.0);
    }

    #[test]
    fn numbers_have_units() {
        assert_eq!(Unit::Nanoseconds.text(1_234_000_000.0), "1.23 s");
        assert_eq!(Unit::Nanoseconds.text(20_000_000.0), "20 ms");
        assert_eq!(Unit::Nanoseconds.text(500.0), "500 ns");
        assert_eq!(Unit::BytesPerSecond.text(1048576.0), "1 MiB/s");
        assert_eq!(Unit::Bytes.text(12.0), "12 B");
        assert_eq!(Unit::Nanoseconds.text(0.0), "0");
    }
}
