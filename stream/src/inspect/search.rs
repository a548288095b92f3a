// SPDX-License-Identifier: LGPL-2.1-or-later
//! Finds the end of a section of unknown layout.
//!
//! A device's state does not contain its length. The end shows in what follows: the section's footer, and then
//! something that can follow a section. Five exact bytes and a plausible header after them are unlikely to occur by
//! chance. Machines before 2.4 write no footers; only the header is checked for them.

use super::cursor::{Cursor, Result};
use super::source::Source;
use crate::wire;
use crate::wire::section::{FOOTER_LEN, HEAD_MAX, footer};

/// What is known about the section whose end is searched.
pub(super) struct Surroundings<'a> {
    /// The section's id.
    pub id: u32,
    /// Whether sections have footers. Unknown counts as yes, which is true since QEMU 2.4.
    pub footers: Option<bool>,
    /// Whether it is a FULL section. Outside of packages, FULL sections follow the last section of live devices.
    pub full: bool,
    /// Whether it is in a package, which may end after it.
    pub packaged: bool,
    /// Returns whether a section with this id was read, and if so whether its device is live.
    pub seen: &'a dyn Fn(u32) -> Option<bool>,
}

/// The most bytes that are checked: a footer and a section's header.
pub(super) const LOOK_AHEAD: usize = FOOTER_LEN + HEAD_MAX;
/// Bytes that are searched at once.
const WINDOW: usize = 1 << 16;
/// Most bytes that are searched before the next query of holes.
const STRIDE: usize = 1 << 20;

/// Moves to the section's end, before its footer. The skipped bytes are appended to `keep`, if given.
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
            // A complete stream ends with its description, whose last byte is a brace.
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
    /// Returns whether a section can end before `ahead`. With `last`, the stream ends after `ahead`.
    pub fn ends_here(&self, ahead: &[u8], last: bool) -> bool {
        if self.footers == Some(false) {
            return self.follows_section(ahead, last, true);
        }
        ahead[0] == wire::SECTION_FOOTER
            && ahead.strip_prefix(&footer(self.id)).is_some_and(|ahead| self.follows_section(ahead, last, false))
    }

    /// Returns whether `ahead` can follow a section. With `strict` there is no footer, so more is checked.
    fn follows_section(&self, ahead: &[u8], last: bool, strict: bool) -> bool {
        let Some(&tag) = ahead.first() else { return !strict || self.packaged };
        let rest = &ahead[1..];
        // Without a footer before them, these five bytes may occur by chance.
        let short = !strict || self.packaged || !self.full;
        match tag {
            wire::SECTION_START | wire::SECTION_FULL => self.plausible_header(rest, strict),
            wire::SECTION_PART | wire::SECTION_END if short => {
                rest.first_chunk().is_some_and(|id| (self.seen)(u32::from_be_bytes(*id)) == Some(true))
            }
            wire::COMMAND if short => rest.first_chunk().is_some_and(|&[n0, n1, l0, l1]| {
                plausible_command(u16::from_be_bytes([n0, n1]), u16::from_be_bytes([l0, l1]))
            }),
            // A single zero byte is no evidence, because states contain many zeros.
            wire::EOF => match rest.split_first() {
                None => last,
                Some(_) if rest.starts_with(wire::chain::LIST_MAGIC) => true,
                Some((&next, rest)) => next == wire::VMDESCRIPTION && rest.get(4) == Some(&b'{'),
            },
            _ => false,
        }
    }

    /// Returns whether a START or FULL section can have this header after its tag.
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

/// Returns whether a command with this number and length is plausible. Numbers of future commands are accepted as well.
pub(super) fn plausible_command(number: u16, len: u16) -> bool {
    let fixed = wire::Command::from_wire(number).and_then(wire::Command::fixed_len);
    (wire::Command::from_wire(number).is_some() || (1..32).contains(&number)) && fixed.is_none_or(|fixed| fixed == len)
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
    fn footer_counts_only_before_a_plausible_header() {
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
    fn find_end_accepts_each_kind_of_successor() {
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

    /// Found in a stream of QEMU: the clock of section 0 had these bytes.
    #[test]
    fn zero_after_a_footer_is_no_end() {
        let mut bytes = vec![1, 2];
        bytes.extend(footer(5));
        bytes.extend([0; 20]);
        let end = bytes.len();
        bytes.extend(footer(5));
        bytes.extend(header(6, "slirp"));
        assert_eq!(end_of(&bytes, Some(true)), Some(end));
    }

    #[test]
    fn end_without_footers_is_found_by_the_next_header() {
        let mut bytes = vec![4; 50];
        let end = bytes.len();
        bytes.extend(header(6, "cpu_common"));
        assert_eq!(end_of(&bytes, Some(false)), Some(end));
        // The header of an earlier section, five arbitrary bytes, and the header that is searched.
        let mut bytes = header(4, "serial");
        bytes.extend([wire::SECTION_END, 0, 0, 0, 2, wire::COMMAND, 0, 5, 0, 0]);
        let end = bytes.len();
        bytes.extend(header(7, "rtc"));
        assert_eq!(end_of(&bytes, Some(false)), Some(end));
        assert_eq!(end_of(&[1, 2, 3, wire::EOF], Some(false)), Some(3));
        assert_eq!(end_of(&[1, wire::EOF, wire::VMDESCRIPTION, 0, 0, 0, 9, b'{'], Some(false)), Some(1));
    }
}
