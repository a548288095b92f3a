// SPDX-License-Identifier: LGPL-2.1-or-later
//! The descriptor of `fd:N`. Naming it in a URI transfers its ownership.

use crate::sys::{is_open_fd, take_named_fd};
use std::fmt;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// The number of a descriptor. After `claim`, the last clone closes the descriptor, unless `take` returned it.
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
        // An error means that the descriptor does not exist or was taken.
        drop(self.take());
    }
}

impl NamedFd {
    /// Takes ownership of the descriptor. If the number is closed now, `take` fails, and a descriptor that gets the number
    /// later is not touched.
    pub fn claim(&mut self) {
        let taken = !is_open_fd(self.number);
        let claim = || Arc::new(Claim { number: self.number, taken: AtomicBool::new(taken) });
        self.claim.get_or_insert_with(claim);
    }

    /// Returns the descriptor. Only the first call succeeds.
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
    use std::os::fd::{AsRawFd, IntoRawFd};

    #[test]
    fn number_that_is_closed_at_the_claim_never_means_a_later_descriptor() {
        let (reader, _writer) = pipe().unwrap();
        let number = reader.as_raw_fd();
        drop(reader);
        let mut named = NamedFd::from(number);
        named.claim();
        // One of these gets the number, unless another thread was faster.
        let later: Vec<_> = (0..20).map(|_| pipe().unwrap()).collect();
        let is_reused = later.iter().any(|(reader, writer)| [reader.as_raw_fd(), writer.as_raw_fd()].contains(&number));
        if is_reused {
            assert_eq!(named.take().unwrap_err().raw_os_error(), Some(libc::EBADF));
        }
    }

    #[test]
    fn last_clone_closes_a_claimed_descriptor() {
        let (mut reader, writer) = pipe().unwrap();
        let mut named = NamedFd::from(writer.into_raw_fd());
        named.claim();
        let clone = named.clone();
        drop(named);
        let taken = clone.take().unwrap();
        assert_eq!(clone.take().unwrap_err().raw_os_error(), Some(libc::EBADF));
        drop(taken);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the last writer is closed");

        let (mut reader, writer) = pipe().unwrap();
        let mut named = NamedFd::from(writer.into_raw_fd());
        named.claim();
        drop(named);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "it was not taken");
    }
}
