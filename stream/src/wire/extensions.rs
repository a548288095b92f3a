// SPDX-License-Identifier: LGPL-2.1-or-later
//! The numbers that libsavevm adds to QEMU's protocol. Each number has one meaning, and each meaning one number; a test checks
//! both. docs/stream-format.md says when each is sent.

use super::multifd::Method;

macro_rules! values {
    ($($(#[$doc:meta])* $name:ident = $value:literal $short:literal,)*) => {
        $($(#[$doc])* pub const $name: u32 = $value;)*
        /// The values of PING and PONG in this table, and their names for reports.
        const VALUES: &[(u32, &str)] = &[$(($value, $short),)*];
    };
}

values! {
    /// Asks whether the destination is libsavevm. Sent after [`PING_OPENED`](super::return_path::PING_OPENED).
    PING_HELLO = 0x5356_4d01 "HELLO",
    /// The second answer to [`PING_HELLO`]: the destination is libsavevm.
    PONG_HELLO = 0x5356_4d02 "IS_LIBSAVEVM",
    /// Asks, after the last device and before EOF, whether everything is loaded.
    PING_LOADED = 0x5356_4d03 "LOADED",
    /// Keeps the connection busy while the source waits for its operator, for the guest or for the destination's devices.
    PING_KEEPALIVE = 0x5356_4d04 "KEEPALIVE",
    /// Follows [`PING_HELLO`]. A destination that answers this PING without [`PONG_HELLO`] before it is not libsavevm.
    PING_HELLO_END = 0x5356_4d05 "HELLO_END",
    /// Sent before the guest stops for postcopy: the answer says that nothing is queued before what follows.
    PING_DRAINED = 0x5356_4d06 "DRAINED",
    /// Asks, after the last page of a postcopy and before EOF, whether all pages arrived.
    PING_ALL_SENT = 0x5356_4d07 "ALL_SENT",
    /// Comes before [`PING_LOADED`]: the guest was stopped at the source, so the destination does not start it.
    PING_GUEST_STOPPED = 0x5356_4d08 "GUEST_STOPPED",
    /// The migration was cancelled at the source, which closes the connection. It has no answer.
    PING_CANCELLED = 0x5356_4d09 "CANCELLED",
    /// The third answer to [`PING_HELLO`]: the destination takes part in a preflight.
    PONG_PREFLIGHT = 0x5356_4d0a "KNOWS_PREFLIGHT",
    /// Sent after [`PONG_HELLO`] arrived: the destination reports the load time of each device before SHUT 0.
    PING_DEVICE_TIMES = 0x5356_4d0b "DEVICE_TIMES",
}

/// The upper half of the PING that is sent before RAM is set up: how many connections the source uses (lowest byte), and how it
/// compresses (the byte above it). A destination with other parameters fails.
const PING_CHANNELS: u32 = 0x534d_0000;

/// Returns the PING that announces `count` connections and a method.
pub fn channels_ping(count: u8, method: Method) -> u32 {
    PING_CHANNELS | method.flags() << 8 | u32::from(count)
}

/// Returns the number of connections and the method in a PING, if it announces them.
pub fn announced_channels(value: u32) -> Option<(u8, Method)> {
    let [_, _, method, count] = value.to_be_bytes();
    (value & 0xffff_0000 == PING_CHANNELS).then_some(())?;
    Method::of_flags(u32::from(method)).map(|method| (count, method))
}

/// Returns the meaning of a PING or PONG that QEMU does not send.
pub fn ping_name(value: u32) -> Option<&'static str> {
    let channels = || announced_channels(value).map(|_| "CHANNELS");
    VALUES.iter().find(|(known, _)| *known == value).map(|(_, name)| *name).or_else(channels)
}

/// SHUT: the destination was cancelled, which is possible only before it starts the guest. To QEMU every value but 0 means a
/// failure.
pub const SHUT_CANCELLED: u32 = 2;
/// SHUT: the destination failed before it started the guest, and will not start it. Only sent to libsavevm.
pub const SHUT_NOT_STARTED: u32 = 3;

/// Message of the return path: the reason of the SHUT that follows.
pub const MESSAGE_ERROR_TEXT: u16 = 0x5356;
/// Message of the return path: an answer of a preflight.
pub const MESSAGE_PREFLIGHT: u16 = 0x5357;
/// Message of the return path: load times of devices.
pub const MESSAGE_DEVICE_TIMES: u16 = 0x5358;

/// Command: a request of a preflight.
pub const COMMAND_PREFLIGHT: u16 = 0x5359;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_number_has_one_meaning() {
        let numbers: HashSet<_> = VALUES.iter().map(|(value, _)| value).collect();
        let names: HashSet<_> = VALUES.iter().map(|(_, name)| name).collect();
        assert_eq!((numbers.len(), names.len()), (VALUES.len(), VALUES.len()));
        // QEMU's numbers are small.
        assert!(VALUES.iter().all(|(value, _)| value >> 8 == 0x0053_564d && announced_channels(*value).is_none()));
        let others = [MESSAGE_ERROR_TEXT, MESSAGE_PREFLIGHT, MESSAGE_DEVICE_TIMES, COMMAND_PREFLIGHT];
        assert_eq!(HashSet::from(others).len(), others.len());
        assert_ne!(SHUT_CANCELLED, SHUT_NOT_STARTED);
    }

    #[test]
    fn values_of_ping_have_names() {
        assert_eq!(ping_name(PING_LOADED), Some("LOADED"));
        assert_eq!(ping_name(channels_ping(4, Method::None)), Some("CHANNELS"));
        assert_eq!(ping_name(super::super::return_path::PING_HANDED_OVER), None);
    }

    #[test]
    fn channels_are_read_as_announced() {
        for method in [Method::None, Method::Zlib, Method::Zstd] {
            assert_eq!(announced_channels(channels_ping(7, method)), Some((7, method)));
        }
        assert_eq!(announced_channels(PING_HELLO), None);
    }
}
