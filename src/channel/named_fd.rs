// SPDX-License-Identifier: LGPL-2.1-or-later
//! The descriptor of `fd:N`, which the user gives up by naming it.

use crate::sys::take_named_fd;
use std::fmt;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// The number of a descriptor. After `claim`, the descriptor is closed with the last clone, unless it was taken before.
#[derive(Clone)]
pub struct NamedFd {
    number: RawFd,
    claim: Option<Arc<Claim>>,
}

struct Claim {
    number: RawFd,
    taken: AtomicBool,
}

impl Claim {
    fn take(&self) -> io::Result<OwnedFd> {
        match self.taken.swap(true, SeqCst) {
            false => take_named_fd(self.number),
            true => Err(io::Error::from_raw_os_error(libc::EBADF)),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // An error means that there was no such descriptor, or that it was taken.
        drop(self.take());
    }
}

impl NamedFd {
    /// Owns the descriptor from now on.
    pub fn claim(&mut self) {
        let claim = || Arc::new(Claim { number: self.number, taken: AtomicBool::new(false) });
        self.claim.get_or_insert_with(claim);
    }

    /// Takes the descriptor. It can be taken once.
    pub(super) fn take(&self) -> io::Result<OwnedFd> {
        match &self.claim {
            Some(claim) => claim.take(),
            None => take_named_fd(self.number),
        }
    }
}

impl From<RawFd> for NamedFd {
    fn from(number: RawFd) -> Self {
        Self { number, claim: None }
    }
}

impl PartialEq for NamedFd {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for NamedFd {}

impl fmt::Display for NamedFd {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(out)
    }
}

impl fmt::Debug for NamedFd {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, pipe};
    use std::os::fd::IntoRawFd;

    #[test]
    fn a_claimed_descriptor_is_closed_with_the_last_clone() {
        let (mut reader, writer) = pipe().unwrap();
        let mut named = NamedFd::from(writer.into_raw_fd());
        named.claim();
        let clone = named.clone();
        drop(named);
        let taken = clone.take().unwrap();
        assert_eq!(clone.take().unwrap_err().raw_os_error(), Some(libc::EBADF));
        drop(taken);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the last writer is gone");

        let (mut reader, writer) = pipe().unwrap();
        let mut named = NamedFd::from(writer.into_raw_fd());
        named.claim();
        drop(named);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "nobody took it");
    }
}
