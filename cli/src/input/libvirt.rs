// SPDX-License-Identifier: LGPL-2.1-or-later
//! The header that libvirt's `save` and `managedsave` put before a stream: a magic, numbers in the host's byte order, and
//! the domain's XML.

const MAGICS: [&[u8; 16]; 2] = [b"LibvirtQemudSave", b"LibvirtQemudPart"];
/// Bytes of the fixed part.
pub const HEADER: usize = 16 + 4 * 19;
const MAX_VERSION: u32 = 255;

/// How many bytes of `start` belong to libvirt: none, if it is not its file.
pub fn header_length(start: &[u8]) -> Result<usize, String> {
    if !MAGICS.iter().any(|magic| start.starts_with(&magic[..])) {
        return Ok(0);
    }
    let word = |at: usize| start.get(at..)?.first_chunk().copied();
    let (Some(version), Some(length)) = (word(16), word(20)) else { return Err("libvirt's header is cut off".into()) };
    // The version tells the byte order.
    let length = if u32::from_le_bytes(version) <= MAX_VERSION {
        u32::from_le_bytes(length)
    } else {
        u32::from_be_bytes(length)
    };
    Ok(HEADER + length as usize)
}

/// Where the stream starts in a whole file.
pub fn skip_header(file: &[u8]) -> Result<usize, String> {
    let length = header_length(file)?;
    if length > file.len() { Err("libvirt's header is cut off".into()) } else { Ok(length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_as_long_as_it_says_in_either_byte_order() {
        let mut file = b"LibvirtQemudSave".to_vec();
        file.extend(2u32.to_le_bytes());
        file.extend(5u32.to_le_bytes());
        file.resize(HEADER, 0);
        file.extend(b"<xml>QEVM");
        assert_eq!(&file[skip_header(&file).unwrap()..], b"QEVM");
        file[16..24].copy_from_slice(&[0, 0, 0, 2, 0, 0, 0, 5]);
        assert_eq!(&file[skip_header(&file).unwrap()..], b"QEVM");
        assert!(skip_header(&file[..HEADER]).is_err());
        assert!(skip_header(&file[..18]).is_err());
        assert_eq!(skip_header(b"QEVM"), Ok(0));
    }
}
