// SPDX-License-Identifier: LGPL-2.1-or-later
//! The beginning of a stream, up to the machine's name. If a connection delivers it completely, the connection is taken to be the
//! source's, and the load reports errors in the stream.

use super::strangers::read_first;
use crate::channel::Channel;
use crate::file::BUFFER_SIZE;
use crate::migration::core::Core;
use crate::savevm::host::Flags;
use crate::wire;
use std::io;
use std::time::Instant;

/// Bytes that tell a stream from other connections.
pub(super) const MAGIC_LEN: usize = 4;
/// Bytes of magic number and version; with the type and the length of the configuration section.
const HEADER_LEN: usize = MAGIC_LEN + 4;
const HEAD_LEN: usize = HEADER_LEN + 5;

/// Reads bytes that must come at the beginning of a connection, or returns why they are not there.
pub(super) fn read(channel: &dyn Channel, into: &mut [u8], until: Instant) -> std::result::Result<(), String> {
    match read_first(channel, into, until) {
        Err(err) if err.kind() == io::ErrorKind::TimedOut => Err("it is silent".to_owned()),
        other => checked(other),
    }
}

fn checked(read: io::Result<bool>) -> std::result::Result<(), String> {
    match read {
        Ok(true) => Ok(()),
        Ok(false) => Err("it ends".to_owned()),
        Err(err) => Err(err.to_string()),
    }
}

/// Reads the rest of the beginning of a stream, whose magic number is `magic`. Returns all of it, or why it is not there.
/// It must arrive within `Params::handshake_timeout`, so a client that sends a byte now and then is closed.
pub(super) fn read_beginning(core: &Core, channel: &dyn Channel, magic: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let limit = core.params().handshake_timeout;
    let until = Instant::now() + limit;
    let mut all = magic.to_vec();
    let read_up_to = |all: &mut Vec<u8>, len: usize| {
        let have = all.len();
        all.resize(len, 0);
        match read_first(channel, &mut all[have..], until) {
            Err(err) if err.kind() == io::ErrorKind::TimedOut => {
                Err(format!("the header and the configuration did not arrive within {limit:?}"))
            }
            other => checked(other),
        }
    };
    let has_configuration = !core.vm.flags().has(Flags::NO_CONFIGURATION);
    read_up_to(&mut all, if has_configuration { HEAD_LEN } else { HEADER_LEN })?;
    if has_configuration && all[HEADER_LEN] == wire::CONFIGURATION {
        let name = u32::from_be_bytes([all[9], all[10], all[11], all[12]]) as usize;
        let whole = HEAD_LEN.saturating_add(name);
        if whole <= BUFFER_SIZE {
            read_up_to(&mut all, whole)?;
        }
    }
    Ok(all)
}
