// SPDX-License-Identifier: LGPL-2.1-or-later
//! The configuration section (QEMU 7.2, `vmstate_configuration` in `migration/savevm.c`).
//!
//! ```text
//! configuration = len(be32) machine name, subsection*
//! subsection    = 0x05 name version(be32) content
//!   configuration/target-page-bits  bits(be32)
//!   configuration/capabilities      count(be32) { name }
//!   configuration/uuid              16 bytes
//! ```

use super::io::{Input, Output};
use super::limits::CAPABILITIES_MAX;
use super::{CONFIGURATION_SUBSECTION_VERSION, SUBSECTION};

/// What the names of all subsections begin with.
pub const PREFIX: &[u8] = b"configuration";

/// The subsections of the section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subsection {
    /// The target's page size.
    PageBits,
    /// The capabilities of the migration.
    Capabilities,
    /// The machine's UUID.
    Uuid,
}

/// The content of a subsection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<N> {
    /// log2 of the target's page size.
    PageBits(u32),
    /// Names of the capabilities that are on.
    Capabilities(Vec<N>),
    /// The machine's UUID.
    Uuid([u8; 16]),
}

/// Why a content could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentError<E> {
    /// The input failed.
    Input(E),
    /// The list names this many capabilities, which is more than [`CAPABILITIES_MAX`].
    TooManyCapabilities(u32),
}

impl<E> From<E> for ContentError<E> {
    fn from(error: E) -> Self {
        Self::Input(error)
    }
}

impl Subsection {
    /// All subsections, in the order in which QEMU sends them.
    pub const ALL: [Self; 3] = [Self::PageBits, Self::Capabilities, Self::Uuid];

    /// Returns the name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::PageBits => "configuration/target-page-bits",
            Self::Capabilities => "configuration/capabilities",
            Self::Uuid => "configuration/uuid",
        }
    }

    /// Returns the subsection with this name.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|subsection| subsection.name().as_bytes() == name)
    }

    /// Reads the content, after the version.
    pub fn decode<I: Input>(self, input: &mut I) -> Result<Content<I::Name>, ContentError<I::Error>> {
        Ok(match self {
            Self::PageBits => Content::PageBits(input.get_be32("the target's page bits")?),
            Self::Uuid => Content::Uuid(input.get("the machine's UUID")?),
            Self::Capabilities => {
                let count = input.get_be32("the number of capabilities")?;
                if count > CAPABILITIES_MAX {
                    return Err(ContentError::TooManyCapabilities(count));
                }
                let names: Result<_, I::Error> = (0..count).map(|_| input.get_name("a capability")).collect();
                Content::Capabilities(names?)
            }
        })
    }
}

impl<N: AsRef<[u8]>> Content<N> {
    /// Appends the whole subsection.
    pub fn encode(&self, out: &mut impl Output) {
        let subsection = match self {
            Self::PageBits(_) => Subsection::PageBits,
            Self::Capabilities(_) => Subsection::Capabilities,
            Self::Uuid(_) => Subsection::Uuid,
        };
        out.put_u8(SUBSECTION);
        out.put_name(subsection.name().as_bytes());
        out.put_be32(CONFIGURATION_SUBSECTION_VERSION);
        match self {
            Self::PageBits(bits) => out.put_be32(*bits),
            Self::Capabilities(names) => {
                out.put_be32(names.len() as u32);
                names.iter().for_each(|name| out.put_name(name.as_ref()));
            }
            Self::Uuid(uuid) => out.put(uuid),
        }
    }
}

/// Appends the machine's name with its length, which the section begins with.
pub fn encode_machine(out: &mut impl Output, machine: &[u8]) {
    out.put_be32(machine.len() as u32);
    out.put(machine);
}

/// Reads the length of the machine's name, in bytes.
pub fn decode_machine_len<I: Input>(input: &mut I) -> Result<u32, I::Error> {
    input.get_be32("the length of the machine's name")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode<'a>(input: &mut &'a [u8]) -> Content<&'a [u8]> {
        assert_eq!(input.get_u8("the tag"), Ok(SUBSECTION));
        let subsection = Subsection::from_name(input.get_name("the name").unwrap()).unwrap();
        assert_eq!(input.get_be32("the version"), Ok(CONFIGURATION_SUBSECTION_VERSION));
        subsection.decode(input).unwrap()
    }

    proptest! {
        #[test]
        fn decoded_contents_equal_the_encoded(
            bits: u32,
            names in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..256), 0..40),
            uuid: [u8; 16],
        ) {
            let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
            for content in [Content::PageBits(bits), Content::Capabilities(names), Content::Uuid(uuid)] {
                let mut bytes = Vec::new();
                content.encode(&mut bytes);
                let mut input = &bytes[..];
                prop_assert_eq!(decode(&mut input), content);
                prop_assert!(input.is_empty());
            }
        }
    }

    #[test]
    fn too_many_capabilities_are_rejected_before_they_are_read() {
        let input = (CAPABILITIES_MAX + 1).to_be_bytes();
        let result = Subsection::Capabilities.decode(&mut &input[..]);
        assert_eq!(result, Err(ContentError::TooManyCapabilities(CAPABILITIES_MAX + 1)));
        assert_eq!(Subsection::from_name(b"configuration/other"), None);
    }
}
