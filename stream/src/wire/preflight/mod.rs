// SPDX-License-Identifier: LGPL-2.1-or-later
//! The preflight: two ends of libsavevm compare their machines before a migration.
//!
//! The source sends requests, each in a PREFLIGHT command. The destination sends one answer to each, over the return path.
//!
//! ```text
//! request   = 0x08 0x5359(be16) 4(be16) length(be32) body
//! body      = 1(u8) manifest | 2(u8) layouts | 3(u8) sections EOF      (3: a rehearsal)
//! manifest  = version(be16) purpose(u8) machine settings ram devices
//! machine   = 0(u8) | 1(u8) text page_bits(u8) uuid capabilities
//! uuid      = 0(u8) | 1(u8) 16 bytes
//! capabilities = count(be16) text*
//! settings  = count(be16) { name value(be64) }
//! ram       = 0(u8) | 1(u8) count(be32) { name length(be64) page_size(be64) address(be64) flags(u8) }
//! devices   = count(be32) { name instance(be32) version(be32) oldest(be32) alias(be32) name instance(be32) flags(u8) digest(be64) }
//! layouts   = count(be32) { length(be32) JSON }
//!
//! answer    = 1(u8) verdict | 2(u8) wanted | 3(u8) report
//! verdict   = version(be16) passes(u8) count(be32) { severity(u8) name instance(be32) text text }
//! wanted    = count(be32) index(be32)*          the layouts of these devices of the manifest
//! report    = text count(be32) { name instance(be32) microseconds(be64) }    an empty text: everything was loaded
//! text      = length(be16) bytes
//! ```
//! `name` is a counted string. Bytes after the known members of a body are ignored, so that later releases may append members.

mod answer;
mod body;
mod digest;
mod manifest;

pub use answer::{Answer, LoadTime, Problem, Severity};
pub use body::BodyError;
pub use digest::Digest;
pub use manifest::{Device, Machine, Manifest, Purpose, RamBlock, Setting};

use super::io::{Input, Output};
use body::{Result, get_device_count, get_list, take};

/// The version of manifests and verdicts.
pub const VERSION: u16 = 1;
/// Longest text in bytes. Longer ones are cut.
pub const TEXT_MAX: usize = u16::MAX as usize;

const MANIFEST: u8 = 1;
const LAYOUTS: u8 = 2;
const REHEARSAL: u8 = 3;

/// A request of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Its machine.
    Manifest(Manifest),
    /// The layouts that the destination wanted, as JSON, in the order in which it wanted them. Empty: unknown.
    Layouts(Vec<Vec<u8>>),
    /// Sections of devices up to EOF.
    Rehearsal(Vec<u8>),
}

impl Request {
    /// Returns the body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Manifest(manifest) => {
                out.put_u8(MANIFEST);
                manifest.encode(&mut out);
            }
            Self::Layouts(layouts) => {
                out.put_u8(LAYOUTS);
                out.put_be32(layouts.len() as u32);
                for layout in layouts {
                    out.put_be32(layout.len() as u32);
                    out.put(layout);
                }
            }
            Self::Rehearsal(sections) => {
                out.reserve(sections.len() + 1);
                out.put_u8(REHEARSAL);
                out.put(sections);
            }
        }
        out
    }

    /// Decodes a body.
    pub fn decode(mut body: &[u8]) -> Result<Self> {
        let input = &mut body;
        match input.get_u8("the kind of the request")? {
            MANIFEST => Manifest::decode(input).map(Self::Manifest),
            LAYOUTS => {
                let count = get_device_count(input, "the number of layouts")?;
                let layouts = get_list(input, count, 4, "the number of layouts", |input| {
                    let len = input.get_be32("the length of a layout")?;
                    take(input, len as usize, "the end of a layout").map(<[u8]>::to_vec)
                })?;
                Ok(Self::Layouts(layouts))
            }
            REHEARSAL => Ok(Self::Rehearsal(input.to_vec())),
            value => Err(BodyError::Invalid { what: "the kind of the request", value: value.into() }),
        }
    }
}

#[cfg(test)]
mod tests;
