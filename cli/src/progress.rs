// SPDX-License-Identifier: LGPL-2.1-or-later
//! Progress bar on the terminal while a long stream is read.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::words;

/// Progress of reading a stream. Shown if reading takes longer than half a second.
pub struct Progress {
    shown: bool,
    total: Option<u64>,
    started: Instant,
    next: Instant,
}

/// Time before the bar is shown.
const PATIENCE: Duration = Duration::from_millis(500);
/// Time between two updates of the bar.
const STEP: Duration = Duration::from_millis(100);
/// Characters of the bar itself.
const WIDTH: u64 = 40;

impl Progress {
    /// For a stream of `total` bytes, if that is known. Only on a terminal.
    pub fn new(total: Option<u64>) -> Option<Self> {
        let started = Instant::now();
        io::stderr().is_terminal().then(|| Self { shown: false, total, started, next: started + PATIENCE })
    }

    /// Updates the bar: `offset` bytes are read.
    pub fn at(&mut self, offset: u64) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + STEP;
        self.shown = true;
        // An error of the terminal does not end the run.
        let _ = write!(io::stderr(), "\r\x1b[K{}", self.line(offset, now - self.started));
    }

    fn line(&self, offset: u64, elapsed: Duration) -> String {
        let rate = (offset as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
        let read = format!("{}, {}/s", words::size(offset), words::size(rate));
        match self.total.filter(|&total| total > 0) {
            Some(total) => {
                let done = offset.min(total);
                let filled = (u128::from(done) * u128::from(WIDTH) / u128::from(total)) as usize;
                let bar = format!("{:#<filled$}{:.<rest$}", "", "", rest = WIDTH as usize - filled);
                let percent = u128::from(done) * 100 / u128::from(total);
                format!("[{bar}] {percent:3}%  {read}")
            }
            None => read,
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_shows_the_read_part() {
        let now = Instant::now();
        let progress = Progress { shown: false, total: Some(200 << 20), started: now, next: now };
        let line = progress.line(50 << 20, Duration::from_secs(2));
        assert_eq!(line, format!("[{}{}]  25%  50 MiB, 25 MiB/s", "#".repeat(10), ".".repeat(30)));
        assert!(progress.line(u64::MAX, Duration::ZERO).contains("100%"));
        let endless = Progress { total: None, ..progress };
        assert_eq!(endless.line(1 << 20, Duration::from_secs(1)), "1 MiB, 1 MiB/s");
    }
}
