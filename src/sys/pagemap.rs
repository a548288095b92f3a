// SPDX-License-Identifier: LGPL-2.1-or-later
//! Which pages were written: PAGEMAP_SCAN (Linux 6.7, `linux/fs.h`) over memory that userfaultfd protects.

use super::GuestMemory;
use super::fd::check;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

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

/// This program's page map.
#[derive(Debug)]
pub struct PageScan(File);

impl PageScan {
    /// Opens it; an error where the kernel is older.
    pub fn open() -> io::Result<Self> {
        let scan = Self(File::open("/proc/self/pagemap")?);
        // An empty range is refused only by a kernel that does not know the request.
        let mut regions = [Region::default(); 1];
        scan.scan(0, 0, 0, &mut regions)?;
        Ok(scan)
    }

    /// How many regions were found, and where the walk ended.
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

    /// Calls `each` with offset and length of every range that was written since it was protected, and protects it again
    /// in the same step: no write is lost.
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
