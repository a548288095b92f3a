// SPDX-License-Identifier: LGPL-2.1-or-later
//! Opens an incremental snapshot and its parent, by reading them and by the list of pages, and reads them as one stream. The
//! target makes the link and the list, so that the hashes of changed files are right.
//!
//! Input: be16 end of the parent as a fraction of 65536, the parent, what is behind the link in the child.
#![no_main]

use libfuzzer_sys::fuzz_target;
use savevm_stream::chain::{Chain, Files, FlatForm, Link, link, seal, survey};
use savevm_stream::inspect::{Budget, Options, read_slice};
use savevm_stream::wire::SECTION_FULL;
use savevm_stream::wire::chain::{SECTION, SECTION_ID, VERSION};
use savevm_stream::wire::section::{DeviceHead, encode_footer, encode_tag};
use std::io::{self, Read};
use std::path::Path;

/// Memory for the places of pages, in bytes.
const MEMORY: usize = 8 << 20;
/// The header and the configuration of the machine "none".
const START: &[u8] = b"QEVM\0\0\0\x03\x07\0\0\0\x04none";

/// The files "child" and "parent".
struct Two<'a> {
    child: &'a [u8],
    parent: &'a [u8],
}

impl<'a> Files for Two<'a> {
    type File = &'a [u8];

    fn open(&mut self, path: &Path) -> io::Result<(&'a [u8], u128)> {
        match path.to_str() {
            Some("child") => Ok((self.child, 0)),
            Some("parent") => Ok((self.parent, 1)),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Returns a child of this parent.
fn child(parent: &[u8], rest: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = START.to_vec();
    encode_tag(&mut bytes, SECTION_FULL, SECTION_ID);
    DeviceHead { name: SECTION, instance: 0, version: VERSION }.encode(&mut bytes);
    let (identity, pages) = survey(&parent, None).expect("memory");
    Link { parent: identity, name: "parent" }.encode(&mut bytes);
    encode_footer(&mut bytes, SECTION_ID);
    bytes.extend_from_slice(rest);
    let (list, _) = seal(&&bytes[..], pages.as_deref(), None).ok()?;
    bytes.extend(list);
    Some(bytes)
}

fuzz_target!(|data: &[u8]| {
    let [high, low, files @ ..] = data else { return };
    let (parent, rest) = files.split_at(files.len() * usize::from(u16::from_be_bytes([*high, *low])) >> 16);
    let Some(child) = child(parent, rest) else { return };
    let _ = link(parent);
    let mut files = Two { child: &child, parent };
    for path in ["parent", "child"] {
        let Ok(chain) = Chain::open(&mut files, Path::new(path), &mut Budget::new(MEMORY)) else { continue };
        let mut flat = Vec::new();
        chain.flatten(FlatForm::Stream).read_to_end(&mut flat).expect("the files did not change");
        let read = read_slice(&flat, Options::default());
        assert!(read.damage.is_none() && read.parent.is_none(), "{:?}", read.damage);
    }
    if let Ok(chain) = Chain::open_by_lists(&mut files, Path::new("child"), &mut Budget::new(MEMORY)) {
        chain.flatten(FlatForm::WithoutPages).read_to_end(&mut Vec::new()).expect("it is in memory");
    }
});
