// SPDX-License-Identifier: LGPL-2.1-or-later
//! Positioned reads and writes of files.

use super::fd::{check, places, status_flags};
use super::{IoVec, Span};
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

fn offset_of(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
}

/// `preadv(2)`.
pub fn pread_scattered(fd: BorrowedFd<'_>, into: &[Span<'_>], offset: u64) -> io::Result<usize> {
    let places = places(&into[..into.len().min(libc::UIO_MAXIOV as usize)]);
    let offset = offset_of(offset)?;
    // SAFETY: spans are valid for writes of their lengths; the count is that of the vector.
    check(unsafe { libc::preadv(fd.as_raw_fd(), places.as_ptr(), places.len() as libc::c_int, offset) })
}

/// `pwrite(2)`.
pub fn pwrite_fd(fd: BorrowedFd<'_>, piece: IoVec, offset: u64) -> io::Result<usize> {
    let offset = offset_of(offset)?;
    // SAFETY: the piece is readable as its maker promised.
    check(unsafe { libc::pwrite(fd.as_raw_fd(), piece.address().cast(), piece.len(), offset) })
}

/// Starts to write a range of a file to its disk. It may wait while the disk's queue is full.
pub fn start_writing(fd: BorrowedFd<'_>, offset: u64, len: u64) {
    let (Ok(offset), Ok(len)) = (offset_of(offset), offset_of(len)) else { return };
    // SAFETY: no pointers. It is a hint; a failure shows at the next sync.
    unsafe { libc::sync_file_range(fd.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Whether a write into reserved space (`reserve`) is cheaper than one that allocates it. This is so on ext4: without a
/// reservation, a write into the page cache looks up and counts each block of the file.
pub fn gains_by_reserving(fd: BorrowedFd<'_>) -> bool {
    let mut data = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the pointer is valid for the whole struct.
    let result = unsafe { libc::fstatfs(fd.as_raw_fd(), data.as_mut_ptr()) };
    // SAFETY: the call has filled the struct.
    result == 0 && unsafe { data.assume_init() }.f_type == libc::EXT4_SUPER_MAGIC
}

/// Reserves disk space for a range of a file, which reads as zero until it is written. The length of the file stays.
pub fn reserve(fd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
    let (offset, len) = (offset_of(offset)?, offset_of(len)?);
    // SAFETY: no pointers.
    check(unsafe { libc::fallocate(fd.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, offset, len) } as isize).map(drop)
}

/// The offset at which the next read or write takes place.
pub fn tell(fd: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: no pointers.
    check(unsafe { libc::lseek(fd.as_raw_fd(), 0, libc::SEEK_CUR) } as isize).map(|at| at as u64)
}

/// Sets the offset at which the next read or write takes place.
pub fn seek_to(fd: BorrowedFd<'_>, offset: u64) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::lseek(fd.as_raw_fd(), offset_of(offset)?, libc::SEEK_SET) } as isize).map(drop)
}

/// Whether every write goes to the end of the file, whatever its offset is.
pub fn appends(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(status_flags(fd)? & libc::O_APPEND != 0)
}

/// Opens a file for reading. Does not wait for the writer of a named pipe.
pub fn open_at_once(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Opens the file of a descriptor again, for reading or for writing, with further flags. Also works for a file without a
/// name. Needs /proc.
pub fn open_again(fd: BorrowedFd<'_>, writable: bool, flags: libc::c_int) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let mut options = OpenOptions::new();
    let file: File = options.read(!writable).write(writable).custom_flags(flags).open(path)?;
    Ok(file.into())
}

/// The alignment in bytes that direct access to a file needs, of offsets and of memory. `None` if the kernel does not say
/// (before Linux 6.1, and some file systems).
pub fn direct_alignment(fd: BorrowedFd<'_>) -> Option<u64> {
    /// `struct statx` of Linux 6.1, as far as the members that are read.
    #[repr(C)]
    struct Statx {
        mask: u32,
        before: [u32; 37],
        memory_alignment: u32,
        offset_alignment: u32,
        after: [u64; 12],
    }
    const STATX_DIOALIGN: u32 = 0x2000;
    const _: () = assert!(size_of::<Statx>() == 256);
    let mut data = Statx { mask: 0, before: [0; 37], memory_alignment: 0, offset_alignment: 0, after: [0; 12] };
    // SAFETY: the path is a terminated string, and the kernel writes at most the 256 bytes of its struct.
    let result = unsafe {
        libc::syscall(
            libc::SYS_statx,
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            STATX_DIOALIGN,
            (&raw mut data).cast::<libc::c_void>(),
        )
    };
    let known = result == 0 && data.mask & STATX_DIOALIGN != 0 && data.offset_alignment > 0;
    known.then(|| u64::from(data.memory_alignment.max(data.offset_alignment)))
}
