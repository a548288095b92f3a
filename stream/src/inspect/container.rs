// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a stream was found in: a file of libvirt's, compressed data.

/// What surrounds a stream. The caller fills it in; the parser sees the stream alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// The header that libvirt's `save` puts before a stream.
    pub libvirt: Option<Libvirt>,
    /// The compression of the stream.
    pub compression: Option<Compression>,
}

/// The facts of libvirt's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Libvirt {
    /// libvirt marked the file as whole. It marks a file as unfinished while it saves.
    pub finished: bool,
    /// Version of the header.
    pub version: u32,
    /// Bytes of the header and of the XML behind it: where the stream starts in the file.
    pub length: u64,
    /// The guest ran when it was saved.
    pub was_running: bool,
    /// The number of the format in which the stream is saved; [`Libvirt::format_name`] has its name.
    pub format: u32,
}

impl Libvirt {
    /// The name of the stream's format, as libvirt's `save_image_format` has it.
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
    /// Bytes behind the compressed data.
    pub trailing: u64,
    /// All of the bytes behind the compressed data are zero.
    pub padded: bool,
    /// Where the compressed data cannot be decompressed any further.
    pub damage: Option<CompressionDamage>,
}

/// Where compressed data stops making sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompressionDamage {
    /// The place in the file, in bytes; it is exact where the data is cut off.
    pub offset: u64,
    /// How many bytes came out of the data before it.
    pub produced: u64,
    /// The file ends too early.
    pub cut: bool,
    /// What the decompressor reports.
    pub message: String,
}

impl Container {
    /// What a reader of any report should know, in words. Damage is not among it.
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

    /// Where the compressed data is damaged, in words.
    pub fn damage(&self) -> Option<String> {
        let compression = self.compression.as_ref()?;
        let CompressionDamage { offset, produced, cut, message } = compression.damage.as_ref()?;
        let what = if *cut { "is cut off" } else { "is damaged" };
        let method = compression.method;
        let produced = format!("{produced} bytes of the stream come before it");
        Some(format!("the {method} data {what} at byte {offset} of the file ({message}); {produced}"))
    }
}
