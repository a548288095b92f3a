// SPDX-License-Identifier: LGPL-2.1-or-later
//! Messages of the return path, from the destination to the source (QEMU 7.2, `migration/migration.c`, `MIG_RP_MSG_*`).
//!
//! ```text
//! message      = type(be16) len(be16) payload
//! SHUT         = value(be32)                      the last message; the load failed unless the value is 0
//! PONG         = value(be32)                      the answer to PING
//! REQ_PAGES_ID = start(be64) length(be32) block
//! REQ_PAGES    = start(be64) length(be32)         of the block that was named last
//! RECV_BITMAP  = block                            a bitmap follows the message: size(be64) bits end(be64)
//! RESUME_ACK   = value(be32)
//! SWITCHOVER_ACK =                              from QEMU 8.1 on
//! ERROR_TEXT   = utf-8 text                       only if the peer is libsavevm
//! PREFLIGHT    = length(be32)                     only in a preflight; an answer of that length follows, see `preflight`
//! DEVICE_TIMES = (instance(be32) ns(be64) name)*  only if the peer asked for them by PING_DEVICE_TIMES
//! ```
//!
//! Two ends that both are libsavevm recognise each other: the source sends [`PING_HELLO`], and the destination answers it
//! with a second PONG, [`PONG_HELLO`], which QEMU never sends and ignores. Messages that QEMU does not have are only sent
//! after that.

pub use super::extensions::*;
use super::extensions::{
    MESSAGE_DEVICE_TIMES as DEVICE_TIMES, MESSAGE_ERROR_TEXT as ERROR_TEXT, MESSAGE_PREFLIGHT as PREFLIGHT,
};
use super::io::{Input, Output, text_start};
use super::limits::RETURN_PATH_PAYLOAD_MAX;
use std::fmt;

/// The first PING, right after OPEN_RETURN_PATH, as in QEMU 7.2.
pub const PING_OPENED: u32 = 1;
/// Follows the discards of postcopy, as in QEMU 7.2.
pub const PING_DISCARDED: u32 = 2;
/// Ends the devices in the package of postcopy, as in QEMU 7.2.
pub const PING_PACKAGE_END: u32 = 3;
/// Follows POSTCOPY_RUN, as in QEMU 7.2. A destination that is libsavevm answers it once it owns the guest.
pub const PING_HANDED_OVER: u32 = 4;
/// The value of SHUT if the destination failed.
pub const SHUT_FAILED: u32 = 1;
/// The value of RESUME_ACK (QEMU 7.2's `MIGRATION_RESUME_ACK_VALUE`).
pub const RESUME_ACK_VALUE: u32 = 1;
/// Ends a received bitmap (QEMU 7.2's `RAMBLOCK_RECV_BITMAP_ENDING`).
pub const BITMAP_END: u64 = 0x0123_4567_89ab_cdef;

const SHUT: u16 = 1;
const PONG: u16 = 2;
const REQ_PAGES_ID: u16 = 3;
const REQ_PAGES: u16 = 4;
const RECV_BITMAP: u16 = 5;
const RESUME_ACK: u16 = 6;
const SWITCHOVER_ACK: u16 = 7;

/// How long a device took to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceTime {
    /// Name, with the path, as in its section.
    pub name: Vec<u8>,
    /// Instance id.
    pub instance: u32,
    /// Time in nanoseconds.
    pub nanos: u64,
}

impl DeviceTime {
    /// Bytes of an entry in a message.
    fn encoded_len(&self) -> usize {
        4 + 8 + 1 + self.name.len()
    }
}

/// Packs load times into as few messages as possible. A time whose name has more than 255 bytes is left out.
pub fn pack_device_times(times: impl IntoIterator<Item = DeviceTime>) -> Vec<Message> {
    let mut messages = Vec::new();
    let (mut now, mut len) = (Vec::new(), 0);
    for time in times.into_iter().filter(|time| (1..=255).contains(&time.name.len())) {
        if len + time.encoded_len() > RETURN_PATH_PAYLOAD_MAX {
            messages.push(Message::DeviceTimes(std::mem::take(&mut now)));
            len = 0;
        }
        len += time.encoded_len();
        now.push(time);
    }
    if !now.is_empty() {
        messages.push(Message::DeviceTimes(now));
    }
    messages
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The last message. The load failed unless the value is 0.
    Shut(u32),
    /// The answer to a PING.
    Pong(u32),
    /// The guest waits for these pages.
    RequestPages {
        /// Name of the block; `None` for the block of the request before.
        block: Option<Vec<u8>>,
        /// Offset in bytes.
        start: u64,
        /// Length in bytes.
        len: u32,
    },
    /// The received bitmap of this block follows.
    ReceivedBitmap(Vec<u8>),
    /// The destination is ready to go on after a broken connection.
    ResumeAck(u32),
    /// All devices of the destination approve the switchover.
    SwitchoverAck,
    /// Why the load failed.
    ErrorText(String),
    /// An answer of a preflight of this length in bytes follows.
    Preflight(u32),
    /// How long devices took to load: as many as fit into a message.
    DeviceTimes(Vec<DeviceTime>),
}

/// Type and payload length of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageHead {
    /// The type, which may be unknown.
    pub kind: u16,
    /// Length of the payload in bytes.
    pub len: u16,
}

/// Why a message is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// Its type is unknown.
    UnknownType(MessageHead),
    /// Its payload has the wrong length.
    WrongLength {
        /// Name of the message.
        name: String,
        /// Length of the payload in bytes.
        len: usize,
        /// The length that it must have.
        expected: &'static str,
    },
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownType(MessageHead { kind, len }) => {
                write!(f, "unknown message 0x{kind:04x} of {len} bytes")
            }
            Self::WrongLength { name, len, expected } => {
                write!(f, "{name} of {len} bytes, expected {expected}")
            }
        }
    }
}

fn wrong_len(name: &str, len: usize, expected: &'static str) -> MessageError {
    MessageError::WrongLength { name: name.to_owned(), len, expected }
}

fn value(payload: &[u8], name: &str) -> Result<u32, MessageError> {
    let bytes = payload.try_into().map_err(|_| wrong_len(name, payload.len(), "4"))?;
    Ok(u32::from_be_bytes(bytes))
}

/// Reads a block name that must be the rest of the payload.
fn block_name(payload: &[u8], name: &str) -> Result<Vec<u8>, MessageError> {
    let mut input = payload;
    match input.get_name("the name of a block") {
        Ok(block) if input.is_empty() && !block.is_empty() => Ok(block.to_vec()),
        _ => Err(wrong_len(name, payload.len(), "a block name with its length")),
    }
}

/// Reads the entries of DEVICE_TIMES.
fn device_times(payload: &[u8]) -> Result<Vec<DeviceTime>, MessageError> {
    let wrong = || wrong_len("DEVICE_TIMES", payload.len(), "whole entries of instance, time and name");
    let (mut input, mut times) = (payload, Vec::new());
    while !input.is_empty() {
        let instance = input.get_be32("an instance").map_err(|_| wrong())?;
        let nanos = input.get_be64("a time").map_err(|_| wrong())?;
        let name = input.get_name("the name of a device").map_err(|_| wrong())?.to_vec();
        if name.is_empty() {
            return Err(wrong());
        }
        times.push(DeviceTime { name, instance, nanos });
    }
    if times.is_empty() { Err(wrong()) } else { Ok(times) }
}

impl MessageHead {
    /// Reads the head of a message.
    pub fn decode<I: Input>(input: &mut I) -> Result<Self, I::Error> {
        let kind = input.get_be16("the type of a message")?;
        Ok(Self { kind, len: input.get_be16("the length of a message")? })
    }

    /// Checks type and length before the payload is read. Messages that QEMU does not have are only known if
    /// `peer_is_libsavevm`.
    pub fn check(&self, peer_is_libsavevm: bool) -> Result<(), MessageError> {
        let known = (SHUT..=SWITCHOVER_ACK).contains(&self.kind)
            || (peer_is_libsavevm && matches!(self.kind, ERROR_TEXT | PREFLIGHT | DEVICE_TIMES));
        let len = usize::from(self.len);
        if !known {
            return Err(MessageError::UnknownType(*self));
        }
        if len > RETURN_PATH_PAYLOAD_MAX {
            return Err(wrong_len(&format!("message 0x{:04x}", self.kind), len, "at most 512"));
        }
        Ok(())
    }
}

impl Message {
    /// Returns the type and the payload.
    fn parts(&self) -> (u16, Vec<u8>) {
        let mut payload = Vec::new();
        let kind = match self {
            Self::Shut(value) => {
                payload.put_be32(*value);
                SHUT
            }
            Self::Pong(value) => {
                payload.put_be32(*value);
                PONG
            }
            Self::RequestPages { block, start, len } => {
                payload.put_be64(*start);
                payload.put_be32(*len);
                match block {
                    Some(block) => {
                        payload.put_name(block);
                        REQ_PAGES_ID
                    }
                    None => REQ_PAGES,
                }
            }
            Self::ReceivedBitmap(block) => {
                payload.put_name(block);
                RECV_BITMAP
            }
            Self::ResumeAck(value) => {
                payload.put_be32(*value);
                RESUME_ACK
            }
            Self::SwitchoverAck => SWITCHOVER_ACK,
            Self::ErrorText(text) => {
                payload.put(text_start(text, RETURN_PATH_PAYLOAD_MAX).as_bytes());
                ERROR_TEXT
            }
            Self::Preflight(len) => {
                payload.put_be32(*len);
                PREFLIGHT
            }
            Self::DeviceTimes(times) => {
                for DeviceTime { name, instance, nanos } in times {
                    payload.put_be32(*instance);
                    payload.put_be64(*nanos);
                    payload.put_name(name);
                }
                DEVICE_TIMES
            }
        };
        (kind, payload)
    }

    /// Appends the message. A text is cut at a character to fit the longest payload.
    pub fn encode(&self, out: &mut impl Output) {
        let (kind, payload) = self.parts();
        out.put_be16(kind);
        out.put_be16(payload.len() as u16);
        out.put(&payload);
    }

    /// Decodes the payload of a message whose head was checked.
    pub fn decode(head: MessageHead, payload: &[u8]) -> Result<Self, MessageError> {
        let pages = |name: &str, expected: &'static str| {
            let mut input = payload;
            let start = input.get_be64("the start of a request");
            let len = input.get_be32("the length of a request");
            match (start, len) {
                (Ok(start), Ok(len)) => Ok((start, len, input)),
                _ => Err(wrong_len(name, payload.len(), expected)),
            }
        };
        Ok(match head.kind {
            SHUT => Self::Shut(value(payload, "SHUT")?),
            PONG => Self::Pong(value(payload, "PONG")?),
            REQ_PAGES => match pages("REQ_PAGES", "12")? {
                (start, len, []) => Self::RequestPages { block: None, start, len },
                _ => return Err(wrong_len("REQ_PAGES", payload.len(), "12")),
            },
            REQ_PAGES_ID => {
                let (start, len, rest) = pages("REQ_PAGES_ID", "at least 12")?;
                Self::RequestPages { block: Some(block_name(rest, "REQ_PAGES_ID")?), start, len }
            }
            RECV_BITMAP => Self::ReceivedBitmap(block_name(payload, "RECV_BITMAP")?),
            RESUME_ACK => Self::ResumeAck(value(payload, "RESUME_ACK")?),
            SWITCHOVER_ACK if payload.is_empty() => Self::SwitchoverAck,
            SWITCHOVER_ACK => return Err(wrong_len("SWITCHOVER_ACK", payload.len(), "0")),
            DEVICE_TIMES => Self::DeviceTimes(device_times(payload)?),
            ERROR_TEXT => Self::ErrorText(String::from_utf8_lossy(payload).into_owned()),
            PREFLIGHT => Self::Preflight(value(payload, "PREFLIGHT")?),
            _ => return Err(MessageError::UnknownType(head)),
        })
    }
}

/// Appends what follows RECV_BITMAP: one bit for each page, little-endian, padded to 8 bytes.
pub fn encode_bitmap(out: &mut impl Output, bits: &[u8]) {
    let size = bits.len().next_multiple_of(8);
    out.put_be64(size as u64);
    out.put(bits);
    out.put(&[0; 8][..size - bits.len()]);
    out.put_be64(BITMAP_END);
}

/// Reads the size of the bitmap that follows RECV_BITMAP, in bytes.
pub fn decode_bitmap_size<I: Input>(input: &mut I) -> Result<u64, I::Error> {
    input.get_be64("the size of a received bitmap")
}

/// Reads the word after the bits, which must be [`BITMAP_END`].
pub fn decode_bitmap_end<I: Input>(input: &mut I) -> Result<u64, I::Error> {
    input.get_be64("the end of a received bitmap")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(message: &Message) -> Vec<u8> {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Message, MessageError> {
        let mut input = bytes;
        let head = MessageHead::decode(&mut input).unwrap();
        assert_eq!(usize::from(head.len), input.len());
        head.check(true)?;
        Message::decode(head, input)
    }

    #[test]
    fn encoding_matches_qemu() {
        let pages = |block| Message::RequestPages { block, start: 0x1000, len: 0x2000 };
        let table = [
            (Message::Shut(0), "00010004 00000000"),
            (Message::Pong(1), "00020004 00000001"),
            (pages(Some(b"pc".to_vec())), "0003000f 0000000000001000 00002000 02 7063"),
            (pages(None), "0004000c 0000000000001000 00002000"),
            (Message::ReceivedBitmap(b"pc".to_vec()), "00050003 02 7063"),
            (Message::ResumeAck(1), "00060004 00000001"),
            (Message::SwitchoverAck, "00070000"),
            (Message::ErrorText("no".into()), "53560002 6e6f"),
            (Message::Preflight(9), "53570004 00000009"),
            (
                Message::DeviceTimes(vec![DeviceTime { name: b"cpu".to_vec(), instance: 2, nanos: 0x1234 }]),
                "53580010 00000002 0000000000001234 03 637075",
            ),
        ];
        for (message, hex) in table {
            let text: String = encoded(&message).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(text, hex.replace(' ', ""));
        }
    }

    #[test]
    fn long_error_text_is_cut_at_a_character() {
        let text = "é".repeat(RETURN_PATH_PAYLOAD_MAX / 2 - 1) + "xéé";
        let Ok(Message::ErrorText(short)) = decode(&encoded(&Message::ErrorText(text.clone()))) else { panic!() };
        assert!(short.len() == RETURN_PATH_PAYLOAD_MAX - 1 && text.starts_with(&short));
    }

    #[test]
    fn times_are_packed_into_messages_that_fit() {
        let time = |at: u32| DeviceTime { name: format!("device/{at}").into_bytes(), instance: at, nanos: 5 };
        let times: Vec<_> = (0..1000).map(time).collect();
        let long = DeviceTime { name: vec![b'x'; 256], instance: 0, nanos: 0 };
        let messages = pack_device_times(times.iter().cloned().chain([long]));
        let mut found = Vec::new();
        for message in &messages {
            let Ok(Message::DeviceTimes(more)) = decode(&encoded(message)) else { panic!("{message:?}") };
            found.extend(more);
        }
        assert_eq!(found, times);
        assert!((40..60).contains(&messages.len()), "{}", messages.len());
        assert_eq!(pack_device_times([]), []);
    }

    #[test]
    fn damaged_times_are_rejected() {
        let whole = encoded(&Message::DeviceTimes(vec![DeviceTime { name: b"d".to_vec(), instance: 0, nanos: 1 }]));
        for cut in 4..whole.len() {
            let mut bytes = whole[..cut].to_vec();
            bytes[3] = (cut - 4) as u8;
            assert!(decode(&bytes).is_err(), "cut at {cut}");
        }
        let head = MessageHead { kind: DEVICE_TIMES, len: 14 };
        assert!(head.check(false).is_err() && head.check(true).is_ok());
    }

    fn messages() -> impl Strategy<Value = Message> {
        let block = || proptest::collection::vec(any::<u8>(), 1..256);
        prop_oneof![
            any::<u32>().prop_map(Message::Shut),
            any::<u32>().prop_map(Message::Pong),
            (proptest::option::of(block()), any::<u64>(), any::<u32>())
                .prop_map(|(block, start, len)| Message::RequestPages { block, start, len }),
            block().prop_map(Message::ReceivedBitmap),
            any::<u32>().prop_map(Message::ResumeAck),
            Just(Message::SwitchoverAck),
            "[a-z]{0,512}".prop_map(Message::ErrorText),
            any::<u32>().prop_map(Message::Preflight),
            (block(), any::<u32>(), any::<u64>())
                .prop_map(|(name, instance, nanos)| Message::DeviceTimes(vec![DeviceTime { name, instance, nanos }])),
        ]
    }

    proptest! {
        #[test]
        fn decoded_messages_equal_the_encoded(message in messages()) {
            prop_assert_eq!(decode(&encoded(&message)), Ok(message));
        }

        #[test]
        fn decode_of_random_bytes_causes_no_panic(kind: u16, payload in proptest::collection::vec(any::<u8>(), 0..600)) {
            let kind = if kind % 9 == 8 { DEVICE_TIMES } else { kind % 9 };
            let head = MessageHead { kind, len: payload.len() as u16 };
            if head.check(true).is_ok() {
                let _ = Message::decode(head, &payload);
            }
        }

        #[test]
        fn decoded_bitmaps_equal_the_encoded(bits in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut bytes = Vec::new();
            encode_bitmap(&mut bytes, &bits);
            let mut input = &bytes[..];
            let size = decode_bitmap_size(&mut input).unwrap() as usize;
            prop_assert_eq!(size, bits.len().next_multiple_of(8));
            prop_assert!(input[..size].starts_with(&bits));
            prop_assert_eq!(decode_bitmap_end(&mut &input[size..]), Ok(BITMAP_END));
        }
    }
}
