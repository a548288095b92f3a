// SPDX-License-Identifier: LGPL-2.1-or-later
//! The few system calls of the command: mapping a file, naming an open one, prefetching a byte, the size of a pipe.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};

/// The system's page size in bytes.
fn page_size() -> usize {
    // SAFETY: sysconf() takes no pointers.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// A whole file, mapped for reading. If another program truncates the file meanwhile, an access to the lost part ends
/// this program with SIGBUS.
#[derive(Debug)]
pub struct MappedFile {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is only read.
unsafe impl Send for MappedFile {}
// SAFETY: the mapping is only read.
unsafe impl Sync for MappedFile {}

impl MappedFile {
    /// Maps a file with its current length.
    pub fn new(file: &File) -> io::Result<Self> {
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        if len == 0 {
            // The kernel does not map empty ranges.
            return Ok(Self { start: NonNull::dangling(), len });
        }
        // SAFETY: a new mapping, whose result is checked.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        match NonNull::new(start.cast::<u8>()) {
            Some(first) if start != libc::MAP_FAILED => {
                let map = Self { start: first, len };
                // The kernel reads ahead more from a slow disk.
                map.advise(0..len, libc::MADV_SEQUENTIAL);
                Ok(map)
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Returns the bytes of the file.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: the mapping lives as long as this value. Another program may change the file and thereby the bytes.
        // Every byte value is valid, and readers of a stream accept any contents.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// Announces that the range is probably not read again. Its pages leave this program's memory, except the last page
    /// if the range ends within it. A later access maps them again.
    pub fn release(&self, range: Range<usize>) {
        self.advise(range, libc::MADV_DONTNEED);
    }

    /// Gives the kernel a hint about a range, which is rounded down to pages at its start.
    fn advise(&self, range: Range<usize>, advice: libc::c_int) {
        let whole_pages = |at: usize| at / page_size() * page_size();
        let end = if range.end < self.len { whole_pages(range.end) } else { self.len };
        let start = whole_pages(range.start);
        if start < end {
            // SAFETY: the range is inside the mapping. A file's pages have the same bytes when they are mapped again.
            unsafe { libc::madvise(self.start.as_ptr().add(start).cast(), end - start, advice) };
        }
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: this value owns the mapping.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
        }
    }
}

/// Returns the first offset from `from` on at which a file has data and not a hole, or `to` if there is none before it.
/// If the system does not support the query, returns `from`.
pub fn next_data(file: &File, from: u64, to: u64) -> u64 {
    let Ok(offset) = libc::off_t::try_from(from) else { return from };
    // SAFETY: lseek() takes no pointers. It moves the file's offset, which the caller restores.
    let data = unsafe { libc::lseek(file.as_raw_fd(), offset, libc::SEEK_DATA) };
    match u64::try_from(data) {
        Ok(data) => data.min(to),
        Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO) => to,
        Err(_) => from,
    }
}

/// Gives an open file that has no name a name. It must not exist.
pub fn link_open_file(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let from = CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    let to = CString::new(path.as_os_str().as_bytes())?;
    let (at, flags) = (libc::AT_FDCWD, libc::AT_SYMLINK_FOLLOW);
    // SAFETY: both paths are terminated strings that outlive the call.
    match unsafe { libc::linkat(at, from.as_ptr(), at, to.as_ptr(), flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Prefetches a byte into the processor's cache, without waiting for it.
#[inline]
pub fn prefetch(byte: &u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is only a hint and valid for every address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ptr::from_ref(byte).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::hint::black_box(*byte);
}

/// Enlarges a pipe's buffer, so that its ends wake each other less often. Has no effect on other files, or if the
/// system does not allow it.
pub fn widen_pipe(fd: BorrowedFd<'_>) {
    /// The largest size that a user may set by default (`fs.pipe-max-size`), in bytes.
    const MOST: libc::c_int = 1 << 20;
    // SAFETY: fcntl() takes no pointers for this command.
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
    fn released_range_can_be_read_again() {
        let bytes: Vec<u8> = (0..100_000).map(|at| (at / 7) as u8).collect();
        let map = mapped(&bytes);
        assert!(map.as_bytes() == bytes);
        map.release(1..50_000);
        map.release(50_000..usize::MAX);
        map.release(100_001..100_002);
        assert!(map.as_bytes() == bytes);
    }

    #[test]
    fn empty_file_is_mapped() {
        assert!(mapped(&[]).as_bytes().is_empty());
    }

    #[test]
    fn mapping_a_directory_fails() {
        assert!(MappedFile::new(&File::open("/").unwrap()).is_err());
    }
}
