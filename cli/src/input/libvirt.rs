// SPDX-License-Identifier: LGPL-2.1-or-later
//! The header of libvirt's `save` and `managedsave`, which precedes a stream: a magic, numbers in the host's byte
//! order, and the domain's XML.

use savevm_stream::inspect::Libvirt;

const FINISHED: &[u8; 16] = b"LibvirtQemudSave";
const UNFINISHED: &[u8; 16] = b"LibvirtQemudPart";
/// Length of the fixed part in bytes.
pub const HEADER: usize = 16 + 4 * 19;
const MAX_VERSION: u32 = 255;

/// Returns libvirt's header, if `start` begins with it.
pub fn header(start: &[u8]) -> Result<Option<Libvirt>, String> {
    let finished = start.starts_with(FINISHED);
    if !finished && !start.starts_with(UNFINISHED) {
        return Ok(None);
    }
    let word = |number: usize| start.get(16 + 4 * number..)?.first_chunk().copied();
    let words = (word(0), word(1), word(2), word(3));
    let (Some(version), Some(length), Some(running), Some(format)) = words else {
        return Err("libvirt's header is cut off".into());
    };
    // The version shows the byte order.
    let little = u32::from_le_bytes(version) <= MAX_VERSION;
    let number = |word| if little { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) };
    Ok(Some(Libvirt {
        finished,
        version: number(version),
        length: HEADER as u64 + u64::from(number(length)),
        was_running: number(running) != 0,
        format: number(format),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_read_in_either_byte_order() {
        let mut file = b"LibvirtQemudSave".to_vec();
        for word in [2u32, 5, 1, 6] {
            file.extend(word.to_le_bytes());
        }
        file.resize(HEADER, 0);
        let length = HEADER as u64 + 5;
        let expected = Libvirt { finished: true, version: 2, length, was_running: true, format: 6 };
        assert_eq!(header(&file), Ok(Some(expected)));
        assert_eq!(expected.format_name(), "sparse");
        for word in file[16..32].chunks_exact_mut(4) {
            word.reverse();
        }
        assert_eq!(header(&file), Ok(Some(expected)));
        file[..16].copy_from_slice(UNFINISHED);
        assert_eq!(header(&file), Ok(Some(Libvirt { finished: false, ..expected })));
        assert!(header(&file[..18]).is_err());
        assert_eq!(header(b"QEVM"), Ok(None));
    }
}
