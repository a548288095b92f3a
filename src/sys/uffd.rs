// SPDX-License-Identifier: LGPL-2.1-or-later
//! userfaultfd: page faults of guest memory, handled by this process (Linux, `linux/userfaultfd.h`).

use super::GuestMemory;
use super::fd::{Ready, WakeFd, check, poll_fd};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Features of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Feature {
    /// Faults on write-protected pages.
    WpFault = 1 << 0,
    /// Missing pages of hugetlbfs.
    MissingHuge = 1 << 4,
    /// Missing pages of shared memory.
    MissingShmem = 1 << 5,
    /// Write protection of hugetlbfs and shared memory.
    WpHugeShmem = 1 << 12,
    /// Write protection of pages that are not present.
    WpUnpopulated = 1 << 13,
    /// Pages that can be made unreadable (Linux 6.6).
    Poison = 1 << 14,
    /// Asynchronous write protection: the kernel ends it at the first write.
    WpAsync = 1 << 15,
}

/// Mode of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Mode {
    /// Faults of missing pages.
    Missing = 1,
    /// Write faults of protected pages.
    WriteProtect = 2,
}

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    len: u64,
}

#[repr(C)]
struct Register {
    range: Range,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Copy_ {
    to: u64,
    from: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

#[repr(C)]
struct ZeroPage {
    range: Range,
    mode: u64,
    done: i64,
}

#[repr(C)]
struct Poison {
    range: Range,
    mode: u64,
    done: i64,
}

#[repr(C)]
struct WriteProtect {
    range: Range,
    mode: u64,
}

const API: u64 = 0xaa;
const NUMBER: u32 = 0xaa;
const NEW: libc::Ioctl = libc::_IO(NUMBER, 0x00);
const IOCTL_API: libc::Ioctl = libc::_IOWR::<Api>(NUMBER, 0x3f);
const REGISTER: libc::Ioctl = libc::_IOWR::<Register>(NUMBER, 0x00);
const UNREGISTER: libc::Ioctl = libc::_IOR::<Range>(NUMBER, 0x01);
const WAKE: libc::Ioctl = libc::_IOR::<Range>(NUMBER, 0x02);
const COPY: libc::Ioctl = libc::_IOWR::<Copy_>(NUMBER, 0x03);
const ZEROPAGE: libc::Ioctl = libc::_IOWR::<ZeroPage>(NUMBER, 0x04);
const POISON: libc::Ioctl = libc::_IOWR::<Poison>(NUMBER, 0x08);
const WRITEPROTECT: libc::Ioctl = libc::_IOWR::<WriteProtect>(NUMBER, 0x06);
/// Number of the ioctl for zero pages in the set that registering returns.
const ZEROPAGE_BIT: u64 = 1 << 0x04;
const MODE_WP: u64 = 1;
/// The layout of `struct uffd_msg`: event in byte 0, flags at 8, address at 16.
const MESSAGE: usize = 32;
const EVENT_PAGEFAULT: u8 = 0x12;

fn range_of(memory: &GuestMemory, offset: usize, len: usize) -> Range {
    let piece = memory.piece(offset, len);
    Range { start: piece.address() as u64, len: piece.len() as u64 }
}

/// A userfaultfd descriptor.
#[derive(Debug)]
pub struct Userfault(OwnedFd);

/// What a page that is present means for a request that changes missing pages.
#[derive(Clone, Copy)]
enum Present {
    /// The request fails with `EEXIST`.
    Fails,
    /// The page is left out. It has this size in bytes.
    Stays(usize),
}

/// Repeats a request until all `len` bytes are done. `request` gets the number of bytes that are done, and returns its
/// result and the number of bytes that the kernel has done in it.
fn in_parts(len: usize, present: Present, mut request: impl FnMut(usize) -> (io::Result<()>, i64)) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        let (result, count) = request(done);
        let Err(err) = result else { return Ok(()) };
        done += match (err.raw_os_error(), present) {
            (Some(libc::EEXIST), Present::Stays(page)) => page,
            // The address space is changing, or a part is done: the rest is retried.
            (Some(libc::EAGAIN), _) => usize::try_from(count).unwrap_or(0),
            _ => return Err(err),
        };
    }
    Ok(())
}

impl Userfault {
    fn descriptor() -> io::Result<OwnedFd> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        if let Ok(device) = File::options().read(true).write(true).open("/dev/userfaultfd") {
            // SAFETY: the request takes its argument by value.
            let fd = check(unsafe { libc::ioctl(device.as_raw_fd(), NEW, flags) } as isize)?;
            // SAFETY: the descriptor is new and has no other owner.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
        }
        // SAFETY: no pointers.
        let fd = check(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) } as isize)?;
        // SAFETY: as above.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
    }

    /// Opens a descriptor with these features. Fails with `EINVAL` if the kernel lacks one, and with `EPERM` if this
    /// process may not use userfaultfd.
    pub fn open(features: &[Feature]) -> io::Result<Self> {
        let fault = Self(Self::descriptor()?);
        let wanted = features.iter().fold(0, |all, feature| all | *feature as u64);
        let mut api = Api { api: API, features: wanted, ioctls: 0 };
        fault.ioctl(IOCTL_API, &mut api)?;
        Ok(fault)
    }

    fn ioctl<T>(&self, request: libc::Ioctl, argument: &mut T) -> io::Result<()> {
        // SAFETY: each request of this file is paired with its own struct by its constant; addresses in it are checked
        // by the kernel, and lie in memory that the host has given for this.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), request, &raw mut *argument) } as isize).map(drop)
    }

    /// Registers a range. Returns whether zero pages can be placed in it.
    pub fn register(&self, memory: &GuestMemory, mode: Mode) -> io::Result<bool> {
        let mut register = Register { range: range_of(memory, 0, memory.len()), mode: mode as u64, ioctls: 0 };
        self.ioctl(REGISTER, &mut register)?;
        Ok(register.ioctls & ZEROPAGE_BIT != 0)
    }

    /// Unregisters a range and wakes the threads that wait in it.
    pub fn unregister(&self, memory: &GuestMemory) -> io::Result<()> {
        self.ioctl(UNREGISTER, &mut range_of(memory, 0, memory.len()))
    }

    /// Wakes the threads that wait in a range; each retries its access.
    pub fn wake(&self, memory: &GuestMemory, offset: usize, len: usize) -> io::Result<()> {
        self.ioctl(WAKE, &mut range_of(memory, offset, len))
    }

    fn copy(&self, memory: &GuestMemory, offset: usize, content: &[u8], present: Present) -> io::Result<()> {
        in_parts(content.len(), present, |done| {
            let to = range_of(memory, offset + done, content.len() - done);
            let from = content[done..].as_ptr() as u64;
            let mut copy = Copy_ { to: to.start, from, len: to.len, mode: 0, copied: 0 };
            (self.ioctl(COPY, &mut copy), copy.copied)
        })
    }

    /// Places missing pages atomically and wakes the threads that wait for them. Fails with `EEXIST` if one is present.
    pub fn place(&self, memory: &GuestMemory, offset: usize, content: &[u8]) -> io::Result<()> {
        self.copy(memory, offset, content, Present::Fails)
    }

    /// As `place`, for a range in which some pages may be present: they stay as they are. `page` is the size of the
    /// memory's pages.
    pub fn place_missing(&self, memory: &GuestMemory, offset: usize, content: &[u8], page: usize) -> io::Result<()> {
        self.copy(memory, offset, content, Present::Stays(page))
    }

    /// As `place`, with zero pages. Only for ranges for which `register` returned true.
    pub fn place_zero(&self, memory: &GuestMemory, offset: usize, len: usize) -> io::Result<()> {
        in_parts(len, Present::Fails, |done| {
            let mut zero = ZeroPage { range: range_of(memory, offset + done, len - done), mode: 0, done: 0 };
            (self.ioctl(ZEROPAGE, &mut zero), zero.done)
        })
    }

    /// Makes the missing pages of a range unreadable and wakes the threads that wait for them: a thread that touches
    /// one gets SIGBUS, a system call `EFAULT`. Pages that are present stay as they are. `page` is the size of the
    /// memory's pages. Needs `Feature::Poison`; `MADV_DONTNEED` makes the pages missing again.
    pub fn poison(&self, memory: &GuestMemory, offset: usize, len: usize, page: usize) -> io::Result<()> {
        in_parts(len, Present::Stays(page), |done| {
            let mut poison = Poison { range: range_of(memory, offset + done, len - done), mode: 0, done: 0 };
            (self.ioctl(POISON, &mut poison), poison.done)
        })
    }

    /// Protects a range from writes, or ends the protection and wakes the threads that wait in it.
    pub fn protect(&self, memory: &GuestMemory, offset: usize, len: usize, on: bool) -> io::Result<()> {
        let mode = if on { MODE_WP } else { 0 };
        loop {
            let mut protect = WriteProtect { range: range_of(memory, offset, len), mode };
            match self.ioctl(WRITEPROTECT, &mut protect) {
                Err(err) if matches!(err.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {}
                done => return done,
            }
        }
    }

    /// Calls `handle` with the address of each fault, until `wake` is set or reading fails.
    pub fn serve(&self, wake: &WakeFd, mut handle: impl FnMut(usize)) -> io::Result<()> {
        while poll_fd(self.as_fd(), false, wake, None)? == Ready::Go {
            while let Some(address) = self.next_fault()? {
                handle(address);
            }
        }
        Ok(())
    }

    /// The address of the next fault, or `None` if no fault is queued.
    fn next_fault(&self) -> io::Result<Option<usize>> {
        let mut message = [0u64; MESSAGE / 8];
        loop {
            // SAFETY: the buffer is writable for its length.
            let ret = check(unsafe { libc::read(self.0.as_raw_fd(), message.as_mut_ptr().cast(), MESSAGE) });
            match ret {
                Ok(MESSAGE) if message[0].to_ne_bytes()[0] == EVENT_PAGEFAULT => {
                    return Ok(Some(message[2] as usize));
                }
                Ok(MESSAGE) => {}
                Ok(_) => return Ok(None),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
    }
}

impl AsFd for Userfault {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
