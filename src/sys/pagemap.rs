// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the page tables say about this program's memory: which pages were written (PAGEMAP_SCAN, Linux 6.7,
//! `linux/fs.h`), and which pages have no content (`/proc/self/pagemap`, `Documentation/admin-guide/mm/pagemap.rst`).

use super::GuestMemory;
use super::fd::check;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

#[repr(C)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const PAGEMAP_SCAN: libc::Ioctl = libc::_IOWR::<Scan>(b'f' as u32, 16);
const PAGE_IS_WRITTEN: u64 = 1 << 1;
const WP_MATCHING: u64 = 1 << 0;
const CHECK_WPASYNC: u64 = 1 << 1;
/// Regions that one call returns at most.
const REGIONS: usize = 512;

/// The page map of this process, to find written pages.
#[derive(Debug)]
pub struct PageScan(File);

impl PageScan {
    /// Opens the page map. Fails if the kernel lacks PAGEMAP_SCAN.
    pub fn open() -> io::Result<Self> {
        let scan = Self(File::open("/proc/self/pagemap")?);
        // An empty range fails only if the kernel does not know the request.
        let mut regions = [Region::default(); 1];
        scan.scan(0, 0, 0, &mut regions)?;
        Ok(scan)
    }

    /// Returns the number of regions found and the end of the walk.
    fn scan(&self, start: u64, end: u64, flags: u64, regions: &mut [Region]) -> io::Result<(usize, u64)> {
        let mut scan = Scan {
            size: size_of::<Scan>() as u64,
            flags,
            start,
            end,
            walk_end: 0,
            vec: regions.as_mut_ptr() as u64,
            vec_len: regions.len() as u64,
            max_pages: 0,
            category_inverted: 0,
            category_mask: PAGE_IS_WRITTEN,
            category_anyof_mask: 0,
            return_mask: PAGE_IS_WRITTEN,
        };
        // SAFETY: the struct is the request's, and its vector is writable for its length.
        let found = check(unsafe { libc::ioctl(self.0.as_raw_fd(), PAGEMAP_SCAN, &raw mut scan) } as isize)?;
        Ok((found, scan.walk_end))
    }

    /// Calls `each` with offset and length of every range that was written since it was protected. The kernel protects
    /// the range again in the same step, so no write is lost.
    pub fn take_written(&self, memory: &GuestMemory, mut each: impl FnMut(usize, usize)) -> io::Result<()> {
        let first = memory.address() as u64;
        let (mut at, end) = (first, first + memory.len() as u64);
        let mut regions = vec![Region::default(); REGIONS];
        while at < end {
            let (found, walked) = match self.scan(at, end, WP_MATCHING | CHECK_WPASYNC, &mut regions) {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                done => done?,
            };
            for region in &regions[..found] {
                each((region.start - first) as usize, (region.end - region.start) as usize);
            }
            at = walked;
        }
        Ok(())
    }
}

/// Size of an entry of the page map.
const ENTRY: usize = 8;
/// Bits of an entry: the page is present, or its content is elsewhere (swapped out, or marked by the kernel).
const HAS_CONTENT: u64 = 0b11 << 62;
/// Entries that one read returns at most.
const ENTRIES: usize = 64;

/// This program's page map, to find pages without content. Such a page of private anonymous memory reads as zero, and a
/// look at the map does not make the kernel map a page, as a read of the memory does.
#[derive(Debug)]
pub struct Residency {
    map: File,
    page: usize,
}

impl Residency {
    /// Opens the page map.
    pub fn open() -> io::Result<Self> {
        Ok(Self { map: File::open("/proc/self/pagemap")?, page: super::system_page_size() })
    }

    /// Calls `each` for every page of `size` bytes of a range with whether the page has no content. If the map can't be
    /// read, pages count as having content. `size` is a multiple of the system's page size.
    pub fn absent(&self, memory: &GuestMemory, offset: usize, len: usize, size: usize, mut each: impl FnMut(bool)) {
        let mut bytes = [0; ENTRIES * ENTRY];
        let per_page = size / self.page;
        let range = memory.part(offset, len);
        let (mut at, end) = (range.address() / self.page, (range.address() + range.len()) / self.page);
        let (mut absent, mut seen) = (true, 0);
        while at < end {
            let count = (end - at).min(ENTRIES);
            let read = self.map.read_exact_at(&mut bytes[..count * ENTRY], (at * ENTRY) as u64);
            for entry in bytes[..count * ENTRY].chunks_exact(ENTRY) {
                let entry = entry.try_into().map_or(HAS_CONTENT, u64::from_ne_bytes);
                absent &= read.is_ok() && entry & HAS_CONTENT == 0;
                seen += 1;
                if seen == per_page {
                    each(absent);
                    (absent, seen) = (true, 0);
                }
            }
            at += count;
        }
    }
}

/// Whether a range is private anonymous memory, as `/proc/self/maps` lists it: no file is below it.
pub fn is_anonymous(memory: &GuestMemory) -> bool {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return false };
    let (mut at, end) = (memory.address(), memory.address() + memory.len());
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let range = words.next().and_then(|range| range.split_once('-'));
        let number = |text| usize::from_str_radix(text, 16).ok();
        let Some((Some(from), Some(to))) = range.map(|(from, to)| (number(from), number(to))) else { continue };
        if !(from..to).contains(&at) {
            continue;
        }
        let (access, inode) = (words.next().unwrap_or_default(), words.nth(2).unwrap_or_default());
        if !access.ends_with('p') || inode != "0" {
            return false;
        }
        at = to;
        if at >= end {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::OwnMemory;
    use super::*;

    const PAGE: usize = 4096;

    #[test]
    fn pages_without_content_are_found_and_stay_without() {
        let own = OwnMemory::new(200 * PAGE).unwrap();
        let memory = own.memory();
        memory.allow_huge(false);
        [0, 70, 71, 199].into_iter().for_each(|page| memory.write(page * PAGE + 9, &[1]));
        let Ok(residency) = Residency::open() else { return eprintln!("SKIPPED: no page map") };
        for _ in 0..2 {
            let mut absent = Vec::new();
            residency.absent(&memory, 0, memory.len(), PAGE, |page| absent.push(page));
            let present: Vec<_> = (0..200).filter(|page| !absent[*page]).collect();
            assert_eq!((absent.len(), present), (200, vec![0, 70, 71, 199]));
        }
        let mut absent = Vec::new();
        residency.absent(&memory, 68 * PAGE, 8 * PAGE, 2 * PAGE, |page| absent.push(page));
        assert_eq!(absent, [true, false, true, true]);
    }

    #[test]
    fn memory_of_a_file_is_not_anonymous() {
        let own = OwnMemory::new(3 * PAGE).unwrap();
        assert!(is_anonymous(&own.memory()) && is_anonymous(&own.memory().part(PAGE, PAGE)));
        own.memory().allow_access(PAGE, PAGE, false).unwrap();
        assert!(is_anonymous(&own.memory()), "of several mappings");
        let constant = "in the program's file".as_ptr().cast_mut();
        // SAFETY: the range is mapped as long as the program runs, and is neither read nor written here.
        let memory = unsafe { GuestMemory::new(constant, 1) }.unwrap();
        assert!(!is_anonymous(&memory));
    }
}
