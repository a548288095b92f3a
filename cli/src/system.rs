// SPDX-License-Identifier: LGPL-2.1-or-later
//! The few system calls of the command: mapping a file, prefetching a byte, the size of a pipe.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

/// The system's page size in bytes.
fn page_size() -> usize {
    // SAFETY: no pointers.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// A whole file that is mapped to be read. If another program cuts the file short meanwhile, reading what is gone ends this
/// one with SIGBUS.
#[derive(Debug)]
pub struct MappedFile {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: nobody writes to the mapping.
unsafe impl Send for MappedFile {}
// SAFETY: as above.
unsafe impl Sync for MappedFile {}

impl MappedFile {
    /// Maps a file as long as it is now.
    pub fn new(file: &File) -> io::Result<Self> {
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        if len == 0 {
            // The kernel maps no empty ranges.
            return Ok(Self { start: NonNull::dangling(), len });
        }
        // SAFETY: a new mapping; the result is checked.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        match NonNull::new(start.cast::<u8>()) {
            Some(first) if start != libc::MAP_FAILED => {
                let map = Self { start: first, len };
                // To read ahead from a slow disk.
                map.advise(0..len, libc::MADV_SEQUENTIAL);
                Ok(map)
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The bytes of the file.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: the mapping lives as long as this value. If another program changes the file the bytes change, which to
        // memory safety have no meaning, and which whoever reads bytes of a stranger must bear.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// Says that nobody is likely to read the range again: its pages leave this program's memory, but the last one if only
    /// a part of it is meant. They come back if somebody does read them.
    pub fn release(&self, range: Range<usize>) {
        self.advise(range, libc::MADV_DONTNEED);
    }

    /// Gives the kernel a hint about a range, from the page on in which it starts.
    fn advise(&self, range: Range<usize>, advice: libc::c_int) {
        let whole_pages = |at: usize| at / page_size() * page_size();
        let end = if range.end < self.len { whole_pages(range.end) } else { self.len };
        let start = whole_pages(range.start);
        if start < end {
            // SAFETY: the range is the mapping's. A file's pages have the same bytes when they come back.
            unsafe { libc::madvise(self.start.as_ptr().add(start).cast(), end - start, advice) };
        }
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: the mapping is this value's own.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
        }
    }
}

/// Where a file has data, rather than a hole, from a place on; `to` if it has none before. Where the system cannot tell,
/// there is data.
pub fn next_data(file: &File, from: u64, to: u64) -> u64 {
    let Ok(offset) = libc::off_t::try_from(from) else { return from };
    // SAFETY: no pointers. It moves the file's own offset, which the caller puts back.
    let data = unsafe { libc::lseek(file.as_raw_fd(), offset, libc::SEEK_DATA) };
    match u64::try_from(data) {
        Ok(data) => data.min(to),
        Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO) => to,
        Err(_) => from,
    }
}

/// Has the processor bring a byte into its cache, and does not wait for it.
#[inline]
pub fn prefetch(byte: &u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: only a hint, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ptr::from_ref(byte).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::hint::black_box(*byte);
}

/// Lets a pipe hold more, so that its ends wake each other less often. Of no effect on anything else, or where the system
/// allows no more.
pub fn widen_pipe(fd: BorrowedFd<'_>) {
    /// What a user may ask for unless the system says otherwise (`fs.pipe-max-size`), in bytes.
    const MOST: libc::c_int = 1 << 20;
    // SAFETY: no pointers.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETPIPE_SZ, MOST) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn mapped(bytes: &[u8]) -> MappedFile {
        let path = std::env::temp_dir().join(format!("savevm-map-{}-{}", std::process::id(), bytes.len()));
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file.write_all(bytes).unwrap();
        MappedFile::new(&file).unwrap()
    }

    #[test]
    fn what_is_released_can_be_read_again() {
        let bytes: Vec<u8> = (0..100_000).map(|at| (at / 7) as u8).collect();
        let map = mapped(&bytes);
        assert!(map.as_bytes() == bytes);
        map.release(1..50_000);
        map.release(50_000..usize::MAX);
        map.release(100_001..100_002);
        assert!(map.as_bytes() == bytes);
    }

    #[test]
    fn a_file_may_be_empty() {
        assert!(mapped(&[]).as_bytes().is_empty());
    }

    #[test]
    fn what_is_no_file_is_an_error() {
        assert!(MappedFile::new(&File::open("/").unwrap()).is_err());
    }
}
