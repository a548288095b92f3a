// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads many small parts of a file that lie at equal distances, such as the headers of page records, with one system call.
//!
//! `pread` needs a call for each part, or copies everything between the parts. Here the file is mapped, and the kernel copies
//! the parts from the mapping to a pipe. Only the kernel reads the mapping: if another program shortens the file, the call fails
//! with `EFAULT`, and no thread of this process gets SIGBUS.

use super::fd::check;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// Size of a part in bytes.
pub const PART: usize = 8;
/// Most parts that one call reads. A pipe has room for them: it holds at least one page.
pub const PARTS_MAX: usize = 512;
/// Size of the mapped range in bytes.
const WINDOW: u64 = 256 << 20;

/// A mapped range of a file.
#[derive(Debug)]
struct Window {
    start: *mut libc::c_void,
    offset: u64,
    len: u64,
}

// SAFETY: the mapping belongs to the value, and only system calls read it.
unsafe impl Send for Window {}

impl Window {
    fn new(fd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<Self> {
        let (at, size) = (libc::off_t::try_from(offset), usize::try_from(len));
        let (Ok(at), Ok(size)) = (at, size) else { return Err(io::ErrorKind::InvalidInput.into()) };
        // SAFETY: a new mapping; the result is checked.
        let start = unsafe { libc::mmap(ptr::null_mut(), size, libc::PROT_READ, libc::MAP_SHARED, fd.as_raw_fd(), at) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the range is the new mapping. The advice is a hint: what precedes the reads is not needed again.
        unsafe { libc::madvise(start, size, libc::MADV_SEQUENTIAL) };
        Ok(Self { start, offset, len })
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        unsafe { libc::munmap(self.start, self.len as usize) };
    }
}

/// Reads small parts of one file.
#[derive(Debug)]
pub struct Gather {
    window: Option<Window>,
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Gather {
    /// Creates the pipe.
    pub fn new() -> io::Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: the pointer is valid for two descriptors.
        check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } as isize)?;
        // SAFETY: both descriptors are new and have no other owner.
        let [reader, writer] = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(Self { window: None, reader, writer })
    }

    /// Reads up to `PARTS_MAX` parts of the file, the first at `first` and each further one `stride` bytes behind the part
    /// before, as many as `into` has room for. The file has at least `size` bytes. Returns the number of parts, which is smaller
    /// at the end of the mapped range. Fails if the parts can't be read in this way.
    pub fn read(
        &mut self,
        fd: BorrowedFd<'_>,
        size: u64,
        (first, stride): (u64, u64),
        into: &mut [u8],
    ) -> io::Result<usize> {
        let part = PART as u64;
        let covers = |window: &Window| first >= window.offset && first + part <= window.offset + window.len;
        if stride < part || first.checked_add(part).is_none_or(|end| end > size) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if !self.window.as_ref().is_some_and(covers) {
            self.window = None;
            let offset = first - first % super::system_page_size() as u64;
            self.window = Some(Window::new(fd, offset, (size - offset).min(WINDOW))?);
        }
        let Some(window) = &self.window else { return Ok(0) };
        let start = first - window.offset;
        let count = (1 + (window.len - start - part) / stride).min(PARTS_MAX as u64).min((into.len() / PART) as u64);
        let parts: Vec<libc::iovec> = (0..count)
            .map(|at| libc::iovec {
                iov_base: window.start.cast::<u8>().wrapping_add((start + at * stride) as usize).cast(),
                iov_len: PART,
            })
            .collect();
        let wanted = parts.len() * PART;
        // SAFETY: the parts lie in the mapping. If the file is shorter by now, the kernel can't read them, and the call fails.
        let put = check(unsafe { libc::writev(self.writer.as_raw_fd(), parts.as_ptr(), parts.len() as libc::c_int) })?;
        // SAFETY: the destination has room for all bytes.
        let got = check(unsafe { libc::read(self.reader.as_raw_fd(), into.as_mut_ptr().cast(), wanted) })?;
        match put == wanted && got == wanted {
            true => Ok(parts.len()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::fd::AsFd;

    #[test]
    fn parts_are_those_of_the_file_and_a_shorter_file_is_an_error() {
        let path = std::env::temp_dir().join(format!("savevm-gather-{}", std::process::id()));
        let bytes: Vec<u8> = (0..3_000_000u32).flat_map(|at| (at as u16).to_ne_bytes()).collect();
        fs::write(&path, &bytes).unwrap();
        let (file, size) = (File::options().read(true).write(true).open(&path).unwrap(), bytes.len() as u64);
        let mut gather = Gather::new().unwrap();
        let mut into = vec![0; PART * PARTS_MAX];
        for (first, stride, room) in [(0, 8, 9), (5_001, 4104, PARTS_MAX), (3, 65_537, 60), (size - 8, 4104, 5)] {
            let count = gather.read(file.as_fd(), size, (first, stride), &mut into[..room * PART]).unwrap();
            assert!(count > 0 && count <= room);
            for (at, part) in into.chunks(PART).take(count).enumerate() {
                let offset = first as usize + at * stride as usize;
                assert_eq!(part, &bytes[offset..offset + PART]);
            }
        }
        assert!(gather.read(file.as_fd(), size, (size - 7, 4104), &mut into).is_err());
        file.set_len(100_000).unwrap();
        assert!(gather.read(file.as_fd(), size, (200_000, 4104), &mut into).is_err());
        // The pipe is empty again.
        assert_eq!(gather.read(file.as_fd(), size, (8, 8), &mut into[..PART]).unwrap(), 1);
        assert_eq!(into[..PART], bytes[8..16]);
        fs::remove_file(path).unwrap();
    }
}
