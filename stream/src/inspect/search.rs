// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where a section of unknown layout ends.
//!
//! Nothing in a device's state says how long it is. What follows it does show: the section's footer, and then something
//! that can stand behind a section. Five exact bytes and a plausible header behind them are not met by chance. Machines
//! before 2.4 write no footers; there the header alone must do.

use super::cursor::{Cursor, Result};
use super::source::Source;
use crate::wire;
use crate::wire::section::{FOOTER_LEN, HEAD_MAX, footer};

/// What is known when a section's end is looked for.
pub(super) struct Surroundings<'a> {
    /// The section's number.
    pub id: u32,
    /// Sections have footers. Unknown is taken for yes: so it is since QEMU 2.4.
    pub footers: Option<bool>,
    /// It is a FULL section. They come after the last of the live devices' sections, but for packages.
    pub full: bool,
    /// It is inside of a package, which may end behind it.
    pub packaged: bool,
    /// Whether a section of this number has come, and if so whether it is of a live device.
    pub seen: &'a dyn Fn(u32) -> Option<bool>,
}

/// The longest thing to be looked at: a footer and a section's header.
pub(super) const LOOK_AHEAD: usize = FOOTER_LEN + HEAD_MAX;
/// How much is looked at in one go.
const WINDOW: usize = 1 << 16;
/// How much is searched at most before the next look for a hole.
const STRIDE: usize = 1 << 20;

/// Moves to the section's end, before its footer, and keeps what it passes if it is told where.
pub(super) fn find_end<S: Source>(
    cursor: &mut Cursor<S>,
    around: &Surroundings<'_>,
    mut keep: Option<&mut Vec<u8>>,
) -> Result<()> {
    let start = cursor.offset();
    loop {
        if keep.is_none() && around.footers != Some(false) {
            let zeroes = cursor.zeroes_ahead();
            if zeroes > WINDOW as u64 {
                // No footer begins with a zero.
                cursor.skip(zeroes, "a section")?;
                continue;
            }
        }
        let window = cursor.peek(WINDOW)?;
        let at_end = window.len() < WINDOW;
        let window = &window[..window.len().min(STRIDE)];
        let scan = if at_end { window.len() } else { window.len() - LOOK_AHEAD };
        let found = (0..scan).find(|&at| around.ends_here(&window[at..], at_end));
        if found.is_none() && at_end {
            // A whole stream ends with its description, a brace; a cut one with whatever it may be.
            let whole = window.last() == Some(&b'}');
            let expected = format!("the footer of section {} further on", around.id);
            cursor.skip(scan as u64, "a section")?;
            return cursor.fault_at_end(start, whole, expected);
        }
        let step = found.unwrap_or(scan);
        match keep.as_deref_mut() {
            Some(keep) => cursor.take_into(keep, step)?,
            None => cursor.skip(step as u64, "a section")?,
        }
        if found.is_some() {
            return Ok(());
        }
    }
}

impl Surroundings<'_> {
    /// Whether a section can end before `ahead`, behind which the stream ends if `last`.
    pub fn ends_here(&self, ahead: &[u8], last: bool) -> bool {
        if self.footers == Some(false) {
            return self.follows_section(ahead, last, true);
        }
        ahead[0] == wire::SECTION_FOOTER
            && ahead.strip_prefix(&footer(self.id)).is_some_and(|ahead| self.follows_section(ahead, last, false))
    }

    /// Whether `ahead` can stand behind a section. `strict`: there is no footer to trust in.
    fn follows_section(&self, ahead: &[u8], last: bool, strict: bool) -> bool {
        let Some(&tag) = ahead.first() else { return !strict || self.packaged };
        let rest = &ahead[1..];
        // Five bytes are met by chance, where no footer stands before them.
        let short = !strict || self.packaged || !self.full;
        match tag {
            wire::SECTION_START | wire::SECTION_FULL => self.plausible_header(rest, strict),
            wire::SECTION_PART | wire::SECTION_END if short => {
                rest.first_chunk().is_some_and(|id| (self.seen)(u32::from_be_bytes(*id)) == Some(true))
            }
            wire::COMMAND if short => rest.first_chunk().is_some_and(|&[n0, n1, l0, l1]| {
                plausible_command(u16::from_be_bytes([n0, n1]), u16::from_be_bytes([l0, l1]))
            }),
            // A zero alone shows nothing: state is full of them.
            wire::EOF => match rest.split_first() {
                None => last,
                Some((&next, rest)) => next == wire::VMDESCRIPTION && rest.get(4) == Some(&b'{'),
            },
            _ => false,
        }
    }

    /// Whether a START or FULL section's header can look like this, behind the tag.
    fn plausible_header(&self, header: &[u8], strict: bool) -> bool {
        const MAX_ID: u32 = 1 << 20;
        // Some versions are dates, such as 20061113.
        const MAX_VERSION: u32 = 1 << 25;
        let Some((id, rest)) = header.split_first_chunk() else { return !strict };
        let Some((&len, rest)) = rest.split_first() else { return !strict };
        let name = &rest[..rest.len().min(len.into())];
        let Some(behind) = rest.get(usize::from(len) + 4..) else { return !strict };
        let id = u32::from_be_bytes(*id);
        let plausible = len > 0 && id < MAX_ID && name.iter().all(|byte| (b' '..=b'~').contains(byte));
        let strictly = || {
            let version = behind.first_chunk().map(|version| u32::from_be_bytes(*version));
            len > 1
                && name[0].is_ascii_alphanumeric()
                && (self.seen)(id).is_none()
                && version.is_some_and(|version| version < MAX_VERSION)
        };
        plausible && (!strict || strictly())
    }
}

/// Whether a command of this number and length can be meant: the known ones, and as many to come.
pub(super) fn plausible_command(number: u16, len: u16) -> bool {
    let fixed = wire::Command::from_wire(number).and_then(wire::Command::fixed_len);
    (1..32).contains(&number) && fixed.is_none_or(|fixed| fixed == len)
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::super::source::SliceSource;
    use super::*;

    fn header(id: u32, name: &str) -> Vec<u8> {
        let mut bytes = vec![wire::SECTION_FULL];
        bytes.extend(id.to_be_bytes());
        bytes.push(name.len() as u8);
        bytes.extend(name.as_bytes());
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 1]);
        bytes
    }

    fn end_of(bytes: &[u8], footers: Option<bool>) -> Option<usize> {
        let seen = |id| (id <= 5).then_some(id == 2);
        let around = Surroundings { id: 5, footers, full: true, packaged: false, seen: &seen };
        let mut cursor = Cursor::new(SliceSource::new(bytes), Budget::default());
        let mut kept = Vec::new();
        find_end(&mut cursor, &around, Some(&mut kept)).ok().map(|()| kept.len())
    }

    #[test]
    fn a_footer_needs_something_plausible_behind_it() {
        let mut bytes = vec![1; 100];
        bytes.extend(footer(5));
        bytes.extend([0xff; 3]);
        bytes.extend(footer(6));
        bytes.extend(header(7, "other"));
        assert_eq!(end_of(&bytes, Some(true)), None);
        let end = bytes.len();
        bytes.extend(footer(5));
        bytes.extend(header(8, "next"));
        assert_eq!(end_of(&bytes, Some(true)), Some(end));
    }

    #[test]
    fn what_may_follow() {
        for tail in [&[wire::EOF][..], &[wire::SECTION_END, 0, 0, 0, 2], &[wire::COMMAND, 0, 5, 0, 0], &[]] {
            let mut bytes = vec![9; WINDOW + 7];
            bytes.extend(footer(5));
            bytes.extend(tail);
            assert_eq!(end_of(&bytes, None), Some(WINDOW + 7), "{tail:?}");
        }
        let mut bytes = footer(5).to_vec();
        bytes.extend([wire::SECTION_END, 0, 0, 0, 3]);
        assert_eq!(end_of(&bytes, None), None, "section 3 is not live");
    }

    /// Seen in a stream of QEMU: the clock of section 0 had such bytes.
    #[test]
    fn a_zero_behind_a_footer_shows_nothing() {
        let mut bytes = vec![1, 2];
        bytes.extend(footer(5));
        bytes.extend([0; 20]);
        let end = bytes.len();
        bytes.extend(footer(5));
        bytes.extend(header(6, "slirp"));
        assert_eq!(end_of(&bytes, Some(true)), Some(end));
    }

    #[test]
    fn without_footers_the_next_header_must_do() {
        let mut bytes = vec![4; 50];
        let end = bytes.len();
        bytes.extend(header(6, "cpu_common"));
        assert_eq!(end_of(&bytes, Some(false)), Some(end));
        // Of a section that came before, five bytes that may be anything, and the one that is meant.
        let mut bytes = header(4, "serial");
        bytes.extend([wire::SECTION_END, 0, 0, 0, 2, wire::COMMAND, 0, 5, 0, 0]);
        let end = bytes.len();
        bytes.extend(header(7, "rtc"));
        assert_eq!(end_of(&bytes, Some(false)), Some(end));
        assert_eq!(end_of(&[1, 2, 3, wire::EOF], Some(false)), Some(3));
        assert_eq!(end_of(&[1, wire::EOF, wire::VMDESCRIPTION, 0, 0, 0, 9, b'{'], Some(false)), Some(1));
    }
}
