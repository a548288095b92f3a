// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads a migration stream without loading it.
//!
//! [`read_slice`] and [`read`] parse a stream into a [`Stream`]: the items in order, the devices' states, counts of
//! guest memory, and the place of the first damage. Guest memory is passed to a [`Visitor`] and not kept, so a stream
//! of any size is read with little memory. [`decode`] decodes a device's state by its description.
//!
//! The bytes may be hostile. Reading always ends, without a panic, and within the [`Budget`].

mod address;
pub mod compat;
mod container;
mod cursor;
mod decode;
mod describe;
mod live;
mod multifd;
mod page_index;
mod parse;
mod printable;
pub mod qcow2;
mod ram;
mod report;
mod search;
mod size;
mod source;
mod stream;
#[cfg(test)]
mod tests;
mod visit;

use crate::budget;
pub use crate::budget::{Budget, OverBudget};
pub use crate::json;
pub use address::{Span, guest_spans};
pub use container::{Compression, CompressionDamage, Container, Libvirt};
pub use decode::{FieldSink, Group, Leaf, Misfit, Value, decode};
pub use describe::{Description, DeviceLayout, Field, Layout, write_description};
pub use multifd::{Multifd, MultifdDamage, MultifdPage, is_multifd, read_multifd};
pub use page_index::{FoundPages, PageIndexer};
pub use parse::{Options, read, read_slice, read_whole};
pub use printable::{io_text, is_layout, printable};
pub use report::{to_json, write_analyze, write_json};
pub use size::{exact_size, size};
pub use source::{Holes, ReadSource, SliceSource, Source};
pub use stream::{
    Block, Command, Configuration, Count, Damage, Device, Framing, Item, ItemKind, Mapped, PageSizeFrom, Ram, Section,
    SectionKind, Stream,
};
pub use visit::{Form, Page, Unwatched, Visitor};
