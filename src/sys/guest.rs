// SPDX-License-Identifier: LGPL-2.1-or-later
//! Guest memory. The host maps it and CPUs write to it at any time, so only raw copies and system calls access it.

use super::{IoVec, Span};
use std::io;
use std::ptr::{self, NonNull};

/// A range of guest memory. An access outside of the range panics.
#[derive(Clone, Copy, Debug)]
pub struct GuestMemory {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: an address and a length; what is behind them is only touched by raw copies and system calls.
unsafe impl Send for GuestMemory {}
// SAFETY: as above.
unsafe impl Sync for GuestMemory {}

/// The system's page size in bytes.
pub fn system_page_size() -> usize {
    // SAFETY: no pointers.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Bytes that one step of the search for zeros reads: two cache lines.
const STEP: usize = 128;

impl GuestMemory {
    /// The range of `len` bytes at `start`. `None` if `start` is NULL or the range wraps around.
    ///
    /// # Safety
    /// The range must stay mapped, readable and writable, for as long as the value or a copy of it is used. Nothing in
    /// this program may hold a Rust reference into it.
    pub unsafe fn new(start: *mut u8, len: usize) -> Option<Self> {
        (start as usize).checked_add(len)?;
        NonNull::new(start).filter(|_| len <= isize::MAX as usize).map(|start| Self { start, len })
    }

    /// Start address.
    pub fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The part of `len` bytes at `offset`.
    pub fn part(&self, offset: usize, len: usize) -> Self {
        // SAFETY: within the range the pointer is not NULL.
        Self { start: unsafe { NonNull::new_unchecked(self.at(offset, len)) }, len }
    }

    /// The offset of an address, or `None` if the range does not contain it.
    pub fn offset_of(&self, address: usize) -> Option<usize> {
        address.checked_sub(self.address()).filter(|offset| *offset < self.len)
    }

    #[inline]
    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset <= self.len && len <= self.len - offset, "outside of the guest's memory");
        // SAFETY: the offset is within the range.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// `len` bytes at `offset`, to be sent without a copy.
    #[inline]
    pub fn piece(&self, offset: usize, len: usize) -> IoVec {
        // SAFETY: the range stays mapped, by the contract of `new`.
        unsafe { IoVec::new(self.at(offset, len), len) }
    }

    /// `len` bytes at `offset`, as the destination of a read.
    #[inline]
    pub fn span(&self, offset: usize, len: usize) -> Span<'_> {
        // SAFETY: the range stays mapped, by the contract of `new`.
        unsafe { Span::from_raw(self.at(offset, len), len) }
    }

    /// Copies guest memory to `into`.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let from = self.at(offset, into.len());
        // SAFETY: both are valid for that length; a slice never aliases guest memory.
        unsafe { ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) }
    }

    /// Copies `bytes` to guest memory.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.at(offset, bytes.len());
        // SAFETY: both are valid for that length; a slice never aliases guest memory.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    /// Fills a range with one byte value. Zeros are not written over zeros, so that shared zero pages stay shared.
    pub fn fill(&self, offset: usize, len: usize, value: u8) {
        if value != 0 || !self.is_zero(offset, len) {
            // SAFETY: `at` checks the range.
            unsafe { ptr::write_bytes(self.at(offset, len), value, len) }
        }
    }

    /// Whether a range reads as zero. If the guest writes meanwhile, it marks the page as dirty: either result is
    /// correct.
    #[inline]
    pub fn is_zero(&self, offset: usize, len: usize) -> bool {
        let start = self.at(offset, len);
        let words = len / 8;
        // SAFETY: all reads are inside the range that `at` checked, and unaligned reads are asked for.
        unsafe {
            // Most pages with content differ from zero at the ends or in the middle.
            if words > 0 {
                let word = |at: usize| start.cast::<u64>().add(at).read_unaligned();
                if word(0) | word(words / 2) | word(words - 1) != 0 {
                    return false;
                }
            }
            let steps = len / STEP;
            for step in 0..steps {
                let at = start.add(step * STEP).cast::<[u64; STEP / 8]>().read_unaligned();
                if at.iter().fold(0, |all, word| all | word) != 0 {
                    return false;
                }
            }
            (steps * STEP..len).all(|at| start.add(at).read() == 0)
        }
    }

    /// Discards the content of whole pages: they read as zero, or are missing if they are registered with userfaultfd.
    /// `shared`: the memory is a shared mapping.
    pub fn discard(&self, offset: usize, len: usize, shared: bool) -> io::Result<()> {
        let start = self.at(offset, len);
        if shared {
            // SAFETY: `at` checks the range; the content is given up by the caller.
            if unsafe { libc::madvise(start.cast(), len, libc::MADV_REMOVE) } != 0 {
                return Err(io::Error::last_os_error());
            }
            return Ok(());
        }
        self.advise(offset, len, libc::MADV_DONTNEED)
    }

    /// Allows or forbids transparent huge pages. Kernels without them fail, which has the same effect.
    pub fn allow_huge(&self, allow: bool) {
        let advice = if allow { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
        if let Err(err) = self.advise(0, self.len, advice) {
            log::debug!("transparent huge pages: {err}");
        }
    }

    /// Makes pages present and writable with one call instead of a fault for each page (`MADV_POPULATE_WRITE`, Linux
    /// 5.14). Returns false if the kernel can't.
    pub fn prefault(&self, offset: usize, len: usize) -> bool {
        self.advise(offset, len, libc::MADV_POPULATE_WRITE).is_ok()
    }

    /// Forbids or allows every access to whole pages. A thread that touches a forbidden page gets SIGSEGV, a system
    /// call `EFAULT`.
    pub fn allow_access(&self, offset: usize, len: usize, allow: bool) -> io::Result<()> {
        let start = self.at(offset, len);
        let access = if allow { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_NONE };
        // SAFETY: `at` checks the range; the host's memory is readable and writable by the contract of `new`, and the
        // content stays.
        match unsafe { libc::mprotect(start.cast(), len, access) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn advise(&self, offset: usize, len: usize, advice: libc::c_int) -> io::Result<()> {
        let start = self.at(offset, len);
        // SAFETY: `at` checks the range; advice that drops content is only given by `discard`.
        match unsafe { libc::madvise(start.cast(), len, advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Reads one byte of every page, so that all pages are present.
    pub fn populate(&self, page: usize) {
        for offset in (0..self.len).step_by(page) {
            // SAFETY: `at` checks the offset.
            unsafe { self.at(offset, 1).read_volatile() };
        }
    }
}

/// Memory of this process in place of a guest's: zero, page-aligned, unmapped on drop.
#[derive(Debug)]
pub struct OwnMemory(GuestMemory);

impl OwnMemory {
    /// Maps `len` bytes.
    pub fn new(len: usize) -> io::Result<Self> {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping; the result is checked.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, access, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping is new, this value's own, and lives as long as it.
        let memory = unsafe { GuestMemory::new(start.cast(), len) };
        memory.map(Self).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
    }

    /// The range. It must not be used after this value was dropped.
    pub fn memory(&self) -> GuestMemory {
        self.0
    }
}

impl Drop for OwnMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        unsafe { libc::munmap(self.0.start.as_ptr().cast(), self.0.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_found_wherever_the_one_byte_is() {
        let own = OwnMemory::new(8192).unwrap();
        let memory = own.memory();
        for len in [1, 7, 8, 127, 128, 129, 4096] {
            assert!(memory.is_zero(3, len));
            for at in (0..len).step_by(if len > 200 { 61 } else { 1 }).chain([len - 1]) {
                memory.write(3 + at, &[1]);
                assert!(!memory.is_zero(3, len), "byte {at} of {len}");
                memory.write(3 + at, &[0]);
            }
        }
        assert!(memory.is_zero(0, 0));
    }

    #[test]
    #[should_panic(expected = "outside of the guest's memory")]
    fn nothing_outside_is_touched() {
        OwnMemory::new(4096).unwrap().memory().fill(4090, 7, 0);
    }

    #[test]
    fn what_is_thrown_away_reads_as_zero() {
        let own = OwnMemory::new(8192).unwrap();
        own.memory().fill(0, 8192, 7);
        own.memory().discard(4096, 4096, false).unwrap();
        assert!(own.memory().is_zero(4096, 4096) && !own.memory().is_zero(0, 4096));
    }
}
