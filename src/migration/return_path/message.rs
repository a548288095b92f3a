// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads and writes the messages of the return path on files. `wire::return_path` has their layout.

use crate::channel::{Role, tls_on_one_side};
use crate::error::{self, Error, Result};
use crate::file::MigFile;
use crate::wire::limits::{PREFLIGHT_ANSWER_MAX, RECEIVED_BITMAP_MAX};
pub use crate::wire::return_path::*;

/// Writes a message, without a flush.
pub fn put(mut file: &MigFile, message: &Message) {
    message.encode(&mut file);
}

/// Reads the next message. Messages that QEMU does not have are accepted if `peer_is_libsavevm`.
pub fn get(mut file: &MigFile, peer_is_libsavevm: bool) -> Result<Message> {
    let offset = file.position();
    let invalid = |error: MessageError| Error::invalid(error.to_string()).at_offset(offset);
    let head = MessageHead::decode(&mut file)?;
    file.check()?;
    head.check(peer_is_libsavevm).map_err(|error| {
        let first = head.kind.to_be_bytes();
        match tls_on_one_side(&first, Role::Destination).filter(|_| offset == 0) {
            Some(reason) => Error::invalid(format!("{error}: {reason}")).at_offset(offset),
            None => invalid(error),
        }
    })?;
    let mut payload = vec![0; head.len.into()];
    file.get(&mut payload);
    file.check()?;
    Message::decode(head, &payload).map_err(invalid)
}

/// Reads the answer of a preflight, which follows PREFLIGHT.
pub fn get_answer(file: &MigFile, len: u32) -> Result<Vec<u8>> {
    let offset = file.position();
    if len > PREFLIGHT_ANSWER_MAX {
        let text = format!(
            "an answer of {}, expected at most {}",
            error::size(len.into()),
            error::size(PREFLIGHT_ANSWER_MAX.into())
        );
        return Err(Error::invalid(text).at_offset(offset));
    }
    let no_memory = |_| Error::new(libc::ENOMEM, "no memory for the answer of a preflight").at_offset(offset);
    let answer = file.get_vec(len as usize).map_err(no_memory)?;
    file.check()?;
    Ok(answer)
}

/// Writes the bitmap that follows RECV_BITMAP.
pub fn put_bitmap(mut file: &MigFile, bits: &[u8]) {
    encode_bitmap(&mut file, bits);
}

/// Reads the bitmap that follows RECV_BITMAP.
pub fn get_bitmap(mut file: &MigFile) -> Result<Vec<u8>> {
    let offset = file.position();
    let size = decode_bitmap_size(&mut file)?;
    file.check()?;
    if size > RECEIVED_BITMAP_MAX || !size.is_multiple_of(8) {
        let text = format!("a received bitmap of {}", error::size(size));
        return Err(Error::invalid(text).at_offset(offset));
    }
    let no_memory = |_| Error::new(libc::ENOMEM, "no memory for a received bitmap").at_offset(offset);
    let bits = file.get_vec(size as usize).map_err(no_memory)?;
    file.check()?;
    let end = decode_bitmap_end(&mut file)?;
    file.check()?;
    if end != BITMAP_END {
        return Err(Error::invalid(format!("a received bitmap ends with 0x{end:x}")).at_offset(offset));
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
    fn an_error_text_is_rejected_unless_the_peer_is_libsavevm() {
        for message in [Message::Pong(1), Message::ErrorText("no".into())] {
            let bytes = bytes_of(|file| put(file, &message));
            assert_eq!(get(&reader(&bytes), true).unwrap(), message);
            assert_eq!(get(&reader(&bytes), false).is_ok(), message == Message::Pong(1));
        }
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
        fn get_survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let file = reader(&bytes);
            while get(&file, true).is_ok() {}
            prop_assert!(file.position() <= bytes.len() as u64);
        }
    }
}
