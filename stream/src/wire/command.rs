// SPDX-License-Identifier: LGPL-2.1-or-later
//! The commands of a COMMAND section (QEMU 7.2, `migration/savevm.c`).

/// An order from the source to the destination. The number is what stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Command {
    /// Open the channel back to the source.
    OpenReturnPath = 1,
    /// Answer with a PONG that carries the same be32.
    Ping = 2,
    /// Postcopy may follow: nothing, or be64 page size summary and be64 target page size.
    PostcopyAdvise = 3,
    /// Device state follows while pages may be asked for.
    PostcopyListen = 4,
    /// Start the guest.
    PostcopyRun = 5,
    /// Ranges that were sent and are stale.
    PostcopyRamDiscard = 6,
    /// A be32 length, after which so many bytes of an embedded stream follow.
    Packaged = 7,
    /// Continuous replication begins.
    EnableColo = 8,
    /// The source is back after a broken connection.
    PostcopyResume = 9,
    /// Send the received bitmap of the named block.
    RecvBitmap = 10,
}

impl Command {
    /// All commands, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::OpenReturnPath,
        Self::Ping,
        Self::PostcopyAdvise,
        Self::PostcopyListen,
        Self::PostcopyRun,
        Self::PostcopyRamDiscard,
        Self::Packaged,
        Self::EnableColo,
        Self::PostcopyResume,
        Self::RecvBitmap,
    ];

    /// The command with this number on the wire.
    pub fn from_wire(number: u16) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// The length that the command must have, or `None` where it varies.
    ///
    /// ENABLE_COLO has no payload, but QEMU's table gives it no entry of its own and so a required length of zero.
    pub fn fixed_len(self) -> Option<u16> {
        match self {
            Self::OpenReturnPath
            | Self::PostcopyListen
            | Self::PostcopyRun
            | Self::EnableColo
            | Self::PostcopyResume => Some(0),
            Self::Ping | Self::Packaged => Some(4),
            Self::PostcopyAdvise | Self::PostcopyRamDiscard | Self::RecvBitmap => None,
        }
    }

    /// The name, as QEMU's traces and errors have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenReturnPath => "OPEN_RETURN_PATH",
            Self::Ping => "PING",
            Self::PostcopyAdvise => "POSTCOPY_ADVISE",
            Self::PostcopyListen => "POSTCOPY_LISTEN",
            Self::PostcopyRun => "POSTCOPY_RUN",
            Self::PostcopyRamDiscard => "POSTCOPY_RAM_DISCARD",
            Self::Packaged => "PACKAGED",
            Self::EnableColo => "ENABLE_COLO",
            Self::PostcopyResume => "POSTCOPY_RESUME",
            Self::RecvBitmap => "RECV_BITMAP",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Command;

    #[test]
    fn numbers_are_the_wire_numbers() {
        for (at, command) in Command::ALL.into_iter().enumerate() {
            assert_eq!(command as usize, at + 1);
            assert_eq!(Command::from_wire(at as u16 + 1), Some(command));
        }
        assert_eq!(Command::from_wire(0), None);
        assert_eq!(Command::from_wire(11), None);
    }
}
