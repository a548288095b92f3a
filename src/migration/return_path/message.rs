// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the destination says to the source (QEMU 7.2, `migration/migration.c`, `MIG_RP_MSG_*`).
//!
//! ```text
//! message      = type(be16) len(be16) payload
//! SHUT         = value(be32)                      nothing more follows; not 0: the load failed
//! PONG         = value(be32)                      the answer to PING
//! REQ_PAGES_ID = start(be64) length(be32) len(u8) block
//! REQ_PAGES    = start(be64) length(be32)         of the block that was named last
//! RECV_BITMAP  = len(u8) block; then, beside the message: size(be64) bits end(be64)
//! RESUME_ACK   = value(be32)
//! ERROR_TEXT   = utf-8 text                       between two ends of this library only
//! ```
//! Ends of this library know each other by a PING whose answer is followed by a second PONG, which QEMU neither sends
//! nor minds. Only then anything is said that QEMU would not understand.

use crate::error::{Error, Result};
use crate::file::MigFile;

/// "Are you of this library?": sent by the source right after OPEN_RETURN_PATH.
pub const PING_HELLO: u32 = 0x5356_4d01;
/// "I am": the second answer to `PING_HELLO`.
pub const PONG_HELLO: u32 = 0x5356_4d02;
/// Follows `PING_HELLO`: what did not answer that in its own way by then, never will.
pub const PING_HELLO_END: u32 = 0x5356_4d05;
/// Asks, behind the last device and before EOF: is everything loaded?
pub const PING_LOADED: u32 = 0x5356_4d03;
/// Follows RUN, as in QEMU 7.2: a destination of this library that answers has the guest.
pub const PING_HANDED_OVER: u32 = 4;
/// Keeps the connection busy while the source waits: for its operator, the guest, or the destination's devices.
pub const PING_KEEPALIVE: u32 = 0x5356_4d04;
/// What RESUME_ACK says (QEMU 7.2's `MIGRATION_RESUME_ACK_VALUE`).
pub const RESUME_ACK_VALUE: u32 = 1;
/// Ends a received bitmap (QEMU 7.2's `RAMBLOCK_RECV_BITMAP_ENDING`).
pub const BITMAP_END: u64 = 0x0123_4567_89ab_cdef;
/// Longest payload that QEMU takes.
const PAYLOAD_MAX: usize = 512;
/// Largest received bitmap that is taken, in bytes: 8 TiB of 4 KiB pages.
const BITMAP_MAX: u64 = 256 << 20;

const SHUT: u16 = 1;
const PONG: u16 = 2;
const REQ_PAGES_ID: u16 = 3;
const REQ_PAGES: u16 = 4;
const RECV_BITMAP: u16 = 5;
const RESUME_ACK: u16 = 6;
const ERROR_TEXT: u16 = 0x5356;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Nothing more follows; not 0: the load failed.
    Shut(u32),
    /// The answer to a PING.
    Pong(u32),
    /// The guest waits for these bytes; without a block: of the one before.
    RequestPages {
        /// Name of the block.
        block: Option<Vec<u8>>,
        /// Offset in bytes.
        start: u64,
        /// Length in bytes.
        len: u32,
    },
    /// What of a block arrived; the bits follow beside the message.
    ReceivedBitmap(Vec<u8>),
    /// The destination can go on.
    ResumeAck(u32),
    /// Why the load failed, in the destination's words.
    ErrorText(String),
}

fn word(payload: &[u8], name: &str) -> Result<u32> {
    let bytes = payload.try_into().map_err(|_| wrong_len(name, payload.len(), "4"))?;
    Ok(u32::from_be_bytes(bytes))
}

fn wrong_len(name: &str, len: usize, expected: &str) -> Error {
    Error::invalid(format!("return path: {name} of {len} bytes, expected {expected}"))
}

/// A block name with its length before it, which must be all there is.
fn counted(payload: &[u8], name: &str) -> Result<Vec<u8>> {
    match payload.split_first() {
        Some((len, block)) if usize::from(*len) == block.len() && !block.is_empty() => Ok(block.to_vec()),
        _ => Err(wrong_len(name, payload.len(), "a block name with its length")),
    }
}

fn pages(payload: &[u8], name: &str) -> Result<(u64, u32)> {
    let start = payload.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
    let len = payload.get(8..12).and_then(|bytes| bytes.first_chunk::<4>()).map(|bytes| u32::from_be_bytes(*bytes));
    start.zip(len).ok_or_else(|| wrong_len(name, payload.len(), "at least 12"))
}

impl Message {
    /// The type and the payload on the wire.
    fn parts(&self) -> (u16, Vec<u8>) {
        let block_name = |block: &[u8]| {
            let mut payload = vec![block.len() as u8];
            payload.extend_from_slice(block);
            payload
        };
        match self {
            Self::Shut(value) => (SHUT, value.to_be_bytes().into()),
            Self::Pong(value) => (PONG, value.to_be_bytes().into()),
            Self::RequestPages { block, start, len } => {
                let mut payload = [&start.to_be_bytes()[..], &len.to_be_bytes()].concat();
                let Some(block) = block else { return (REQ_PAGES, payload) };
                payload.extend(block_name(block));
                (REQ_PAGES_ID, payload)
            }
            Self::ReceivedBitmap(block) => (RECV_BITMAP, block_name(block)),
            Self::ResumeAck(value) => (RESUME_ACK, value.to_be_bytes().into()),
            Self::ErrorText(text) => {
                let mut end = text.len().min(PAYLOAD_MAX);
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                (ERROR_TEXT, text.as_bytes()[..end].into())
            }
        }
    }

    /// Puts the message, unflushed.
    pub fn put(&self, file: &MigFile) {
        let (kind, payload) = self.parts();
        file.put_be16(kind);
        file.put_be16(payload.len() as u16);
        file.put(&payload);
    }

    /// Gets the next message; `extended` allows those that QEMU does not have.
    pub fn get(file: &MigFile, peer_is_libsavevm: bool) -> Result<Self> {
        let offset = file.position();
        let kind = file.get_be16();
        let len = usize::from(file.get_be16());
        file.check()?;
        let at = |err: Error| err.at_offset(offset);
        let known = (SHUT..=RESUME_ACK).contains(&kind) || (peer_is_libsavevm && kind == ERROR_TEXT);
        if !known {
            return Err(at(Error::invalid(format!("return path: unknown message 0x{kind:04x} of {len} bytes"))));
        }
        if len > PAYLOAD_MAX {
            return Err(at(wrong_len(&format!("message 0x{kind:04x}"), len, "at most 512")));
        }
        let mut payload = vec![0; len];
        file.get(&mut payload);
        file.check()?;
        Self::from_parts(kind, &payload).map_err(at)
    }

    fn from_parts(kind: u16, payload: &[u8]) -> Result<Self> {
        Ok(match kind {
            SHUT => Self::Shut(word(payload, "SHUT")?),
            PONG => Self::Pong(word(payload, "PONG")?),
            REQ_PAGES if payload.len() == 12 => {
                let (start, len) = pages(payload, "REQ_PAGES")?;
                Self::RequestPages { block: None, start, len }
            }
            REQ_PAGES => return Err(wrong_len("REQ_PAGES", payload.len(), "12")),
            REQ_PAGES_ID => {
                let (start, len) = pages(payload, "REQ_PAGES_ID")?;
                Self::RequestPages { block: Some(counted(&payload[12..], "REQ_PAGES_ID")?), start, len }
            }
            RECV_BITMAP => Self::ReceivedBitmap(counted(payload, "RECV_BITMAP")?),
            RESUME_ACK => Self::ResumeAck(word(payload, "RESUME_ACK")?),
            _ => Self::ErrorText(String::from_utf8_lossy(payload).into_owned()),
        })
    }
}

/// Puts what follows RECV_BITMAP: one bit for each page, little-endian, padded to 8 bytes.
pub fn put_bitmap(file: &MigFile, bits: &[u8]) {
    let size = bits.len().next_multiple_of(8);
    file.put_be64(size as u64);
    file.put(bits);
    file.put(&[0; 8][..size - bits.len()]);
    file.put_be64(BITMAP_END);
}

/// Gets what follows RECV_BITMAP.
pub fn get_bitmap(file: &MigFile) -> Result<Vec<u8>> {
    let offset = file.position();
    let size = file.get_be64();
    file.check()?;
    if size > BITMAP_MAX || !size.is_multiple_of(8) {
        let text = format!("return path: a received bitmap of {size} bytes");
        return Err(Error::invalid(text).at_offset(offset));
    }
    let no_memory = |_| Error::new(libc::ENOMEM, "no memory for a received bitmap").at_offset(offset);
    let bits = file.get_vec(size as usize).map_err(no_memory)?;
    file.check()?;
    let end = file.get_be64();
    file.check()?;
    if end != BITMAP_END {
        return Err(Error::invalid(format!("return path: a received bitmap ends with 0x{end:x}")).at_offset(offset));
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::memory;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn bytes_of(put: impl FnOnce(&MigFile)) -> Vec<u8> {
        let writer = Arc::new(memory::Writer::new());
        let file = MigFile::new(writer.clone(), true);
        put(&file);
        file.flush();
        writer.contents()
    }

    fn reader(bytes: &[u8]) -> MigFile {
        MigFile::new(Arc::new(memory::Reader::new(bytes)), false)
    }

    #[test]
    fn messages_have_qemus_bytes() {
        let pages = |block| Message::RequestPages { block, start: 0x1000, len: 0x2000 };
        let table = [
            (Message::Shut(0), "00010004 00000000"),
            (Message::Pong(1), "00020004 00000001"),
            (pages(Some(b"pc".to_vec())), "0003000f 0000000000001000 00002000 02 7063"),
            (pages(None), "0004000c 0000000000001000 00002000"),
            (Message::ReceivedBitmap(b"pc".to_vec()), "00050003 02 7063"),
            (Message::ResumeAck(1), "00060004 00000001"),
            (Message::ErrorText("no".into()), "53560002 6e6f"),
        ];
        for (message, hex) in table {
            let bytes = bytes_of(|file| message.put(file));
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(text, hex.replace(' ', ""));
            assert_eq!(Message::get(&reader(&bytes), true).unwrap(), message);
            let plain = Message::get(&reader(&bytes), false);
            assert_eq!(plain.is_ok(), !matches!(message, Message::ErrorText(_)));
        }
    }

    #[test]
    fn a_long_error_text_is_cut_at_a_character() {
        let text = "é".repeat(PAYLOAD_MAX / 2 - 1) + "xéé";
        let bytes = bytes_of(|file| Message::ErrorText(text.clone()).put(file));
        let Message::ErrorText(short) = Message::get(&reader(&bytes), true).unwrap() else { unreachable!() };
        assert!(short.len() == PAYLOAD_MAX - 1 && text.starts_with(&short));
    }

    #[test]
    fn bitmaps_come_back_padded() {
        let bytes = bytes_of(|file| put_bitmap(file, &[1, 2, 3]));
        assert_eq!(get_bitmap(&reader(&bytes)).unwrap(), [1, 2, 3, 0, 0, 0, 0, 0]);
        for cut in 0..bytes.len() {
            assert!(get_bitmap(&reader(&bytes[..cut])).is_err(), "cut at {cut}");
        }
        let mut wrong = bytes;
        *wrong.last_mut().unwrap() ^= 1;
        assert!(get_bitmap(&reader(&wrong)).unwrap_err().message().contains("ends with"));
        assert!(get_bitmap(&reader(&[0xff; 8])).unwrap_err().message().contains("bitmap of"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let file = reader(&bytes);
            while Message::get(&file, true).is_ok() {}
            prop_assert!(file.position() <= bytes.len() as u64);
        }
    }
}
