// SPDX-License-Identifier: LGPL-2.1-or-later
//! The container of a stream: a file of libvirt's `save`, or compressed data.

/// What surrounds a stream. The caller fills it in; the parser only sees the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// The header that libvirt's `save` puts before a stream.
    pub libvirt: Option<Libvirt>,
    /// The compression of the stream.
    pub compression: Option<Compression>,
}

/// The contents of libvirt's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Libvirt {
    /// Whether libvirt marked the file as complete. It marks a file as unfinished while it saves.
    pub finished: bool,
    /// Version of the header.
    pub version: u32,
    /// Length of the header and the XML after it, in bytes: the offset of the stream in the file.
    pub length: u64,
    /// Whether the guest was running when it was saved.
    pub was_running: bool,
    /// Number of the format in which the stream is saved. [`Libvirt::format_name`] returns its name.
    pub format: u32,
}

impl Libvirt {
    /// Returns the name of the stream's format, as in libvirt's `save_image_format`.
    pub fn format_name(&self) -> &'static str {
        const NAMES: [&str; 7] = ["raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse"];
        NAMES.get(self.format as usize).copied().unwrap_or("unknown")
    }
}

/// How a stream is compressed, and how the compressed data ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compression {
    /// `gzip`, `zstd` or `xz`.
    pub method: &'static str,
    /// Bytes of compressed data that were read.
    pub length: u64,
    /// Bytes after the compressed data.
    pub trailing: u64,
    /// Whether all of the bytes after the compressed data are zero.
    pub padded: bool,
    /// The place from which the data cannot be decompressed.
    pub damage: Option<CompressionDamage>,
}

/// The place at which compressed data is damaged or cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompressionDamage {
    /// Offset in the file, in bytes. It is exact if the data is cut off.
    pub offset: u64,
    /// Bytes that were decompressed before that place.
    pub produced: u64,
    /// Whether the file ends too early.
    pub cut: bool,
    /// What the decompressor reports.
    pub message: String,
}

impl Container {
    /// Returns notes for the reader of a report. They do not include damage.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.libvirt.is_some_and(|header| !header.finished) {
            notes.push("libvirt did not finish this save, and will not restore it".into());
        }
        if let Some(compression) = self.compression.as_ref().filter(|compression| compression.trailing > 0) {
            let what = if compression.padded { "zero bytes" } else { "bytes that are not compressed data" };
            notes.push(format!("{} {what} follow the {} data", compression.trailing, compression.method));
        }
        notes
    }

    /// Returns a description of the damage of the compressed data, if there is any.
    pub fn damage(&self) -> Option<String> {
        let compression = self.compression.as_ref()?;
        let CompressionDamage { offset, produced, cut, message } = compression.damage.as_ref()?;
        let what = if *cut { "is cut off" } else { "is damaged" };
        let method = compression.method;
        let produced = format!("{produced} bytes of the stream come before it");
        Some(format!("the {method} data {what} at byte {offset} of the file ({message}); {produced}"))
    }
}
