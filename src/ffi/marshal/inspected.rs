// SPDX-License-Identifier: LGPL-2.1-or-later
//! A read stream as C sees it: the model with its strings ended by a zero.

use crate::error::{Error, Result};
use crate::ffi::marshal::castable::{self, Castable, Unique};
use crate::ffi::marshal::opaque::SaveVMInspect;
use crate::ffi::marshal::strings::c_string;
use crate::ffi::types::inspect_items::SaveVMInspectFieldKind::*;
use crate::ffi::types::inspect_items::SaveVMInspectFormat::*;
use crate::ffi::types::inspect_items::SaveVMInspectItemKind::*;
use crate::ffi::types::inspect_items::*;
use crate::file::MigFile;
use crate::inspect::{
    Block, Budget, Count, FieldSink, Group, Item, ItemKind, Leaf, Options, ReadSource, SectionKind, Stream, Unwatched,
    Value, decode, read, read_slice, write_analyze, write_json,
};
use std::ffi::{CString, c_char, c_int, c_void};
use std::io::{self, Write};
use std::ptr;

/// What a C `SaveVMInspect *` points to.
pub(in crate::ffi) struct Inspected {
    stream: Stream,
    machine: Option<CString>,
    damage: Option<CString>,
    /// Of each item.
    names: Vec<Option<CString>>,
    /// Of each block.
    blocks: Vec<CString>,
}

impl Castable for SaveVMInspect {
    type Object = Inspected;
    type Ownership = Unique;
}

/// The read stream behind a C pointer.
///
/// # Safety
/// `s` must be NULL or come from savevm_inspect_buffer() or savevm_inspect_file(), and not be freed yet.
pub(in crate::ffi) unsafe fn inspected<'a>(s: *const SaveVMInspect) -> Option<&'a Inspected> {
    // SAFETY: as the caller promised.
    unsafe { castable::object(s) }
}

/// Reads a stream in memory.
///
/// # Safety
/// `data` must be NULL or valid for `len` bytes.
pub(in crate::ffi) unsafe fn read_bytes(data: *const u8, len: usize, max_memory: usize) -> Result<Inspected> {
    if data.is_null() {
        return Err(Error::invalid("the stream is NULL"));
    }
    // SAFETY: as the caller promised.
    let bytes = unsafe { std::slice::from_raw_parts(data, len) };
    Ok(Inspected::new(read_slice(bytes, options(max_memory))))
}

/// Reads a stream from a file, to its end.
pub(in crate::ffi) fn read_file(file: Option<&MigFile>, max_memory: usize) -> Result<Inspected> {
    let file = file.ok_or_else(|| Error::invalid("the file is NULL"))?;
    let stream = read(ReadSource::new(file.remaining()?), options(max_memory), &mut Unwatched);
    stream.map(Inspected::new).map_err(|err| Error::io("reading the stream", &err))
}

fn options(max_memory: usize) -> Options {
    let budget = if max_memory == 0 { Budget::default() } else { Budget::new(max_memory) };
    Options { budget, ..Options::default() }
}

/// A file to write to, whose own error tells what went wrong.
struct Out<'a>(&'a MigFile);

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.put(bytes);
        if self.0.error() == 0 { Ok(bytes.len()) } else { Err(io::ErrorKind::Other.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pages(count: Count) -> SaveVMInspectPages {
    SaveVMInspectPages { pages: count.pages, bytes: count.bytes }
}

fn pointer(text: Option<&CString>) -> *const c_char {
    text.map_or(ptr::null(), |text| text.as_ptr())
}

impl Inspected {
    fn new(stream: Stream) -> Self {
        let name = |item: &Item| match &item.kind {
            ItemKind::Section(section) => Some(c_string(&section.device.name)),
            ItemKind::Command(command) => command.name.map(c_string),
            _ => None,
        };
        Self {
            machine: stream.machine().map(c_string),
            damage: stream.damage.as_ref().map(|damage| c_string(&damage.to_string())),
            names: stream.items.iter().map(name).collect(),
            blocks: stream.ram.blocks.iter().map(|block| c_string(&block.name)).collect(),
            stream,
        }
    }

    pub(in crate::ffi) fn summary(&self) -> SaveVMInspectSummary {
        let stream = &self.stream;
        let damage = stream.damage.as_ref();
        SaveVMInspectSummary {
            size: size_of::<SaveVMInspectSummary>(),
            version: stream.version,
            footers: stream.footers.map_or(-1, c_int::from),
            complete: stream.complete,
            described: stream.description.is_some(),
            multifd: stream.ram.multifd,
            length: stream.length,
            trailing: stream.trailing,
            page_size: stream.ram.page_size.map_or(0, |(size, _)| size),
            items: stream.items.len(),
            blocks: stream.ram.blocks.len(),
            machine: pointer(self.machine.as_ref()),
            damage: pointer(self.damage.as_ref()),
            damage_offset: damage.map_or(-1, |damage| i64::try_from(damage.offset).unwrap_or(i64::MAX)),
            cut: damage.is_some_and(|damage| damage.cut),
        }
    }

    pub(in crate::ffi) fn item(&self, index: usize) -> Option<SaveVMInspectItem> {
        let item = self.stream.items.get(index)?;
        let section = section(item);
        let state = section.and_then(|section| section.data.as_deref());
        let (kind, id) = match &item.kind {
            ItemKind::Header => (SAVEVM_INSPECT_HEADER, 0),
            ItemKind::Configuration => (SAVEVM_INSPECT_CONFIGURATION, 0),
            ItemKind::Section(section) => (part(section.kind), section.id),
            ItemKind::Command(command) => (SAVEVM_INSPECT_COMMAND, command.number.into()),
            ItemKind::Eof => (SAVEVM_INSPECT_EOF, 0),
            ItemKind::Description => (SAVEVM_INSPECT_DESCRIPTION, 0),
        };
        Some(SaveVMInspectItem {
            size: size_of::<SaveVMInspectItem>(),
            kind,
            depth: item.depth,
            offset: item.offset,
            bytes: item.size,
            name: pointer(self.names.get(index).and_then(Option::as_ref)),
            id,
            instance_id: section.map_or(0, |section| section.device.instance),
            version_id: section.map_or(0, |section| section.version),
            count: section.map_or(0, |section| section.count),
            state: state.map_or(ptr::null(), <[u8]>::as_ptr),
            state_length: state.map_or(0, <[u8]>::len),
        })
    }

    pub(in crate::ffi) fn block(&self, index: usize) -> Option<SaveVMInspectBlock> {
        let Block { length, zero, plain, xbzrle, compressed, .. } = self.stream.ram.blocks.get(index)?;
        Some(SaveVMInspectBlock {
            size: size_of::<SaveVMInspectBlock>(),
            name: pointer(self.blocks.get(index)),
            length: *length,
            zero: pages(*zero),
            plain: pages(*plain),
            xbzrle: pages(*xbzrle),
            compressed: pages(*compressed),
        })
    }

    /// # Safety
    /// `call` may be called with `opaque`.
    pub(in crate::ffi) unsafe fn fields(&self, index: usize, call: FieldFn, opaque: *mut c_void) -> c_int {
        let Some(section) = self.stream.items.get(index).and_then(section) else { return -libc::ENOENT };
        let Some(state) = &section.data else { return -libc::ENOENT };
        let Some(layout) = self.stream.layout(section) else { return -libc::ENODATA };
        let mut sink = Callback { call, opaque, ret: 0 };
        let fits = decode(layout, state, &mut sink).is_ok();
        if sink.ret == 0 && !fits { -libc::EILSEQ } else { sink.ret }
    }

    pub(in crate::ffi) fn document(&self, format: SaveVMInspectFormat, to: &MigFile) -> c_int {
        // What can fail is the file, which knows why.
        let _ = match format {
            SAVEVM_INSPECT_JSON => write_json(&self.stream, |_| false, Out(to)),
            SAVEVM_INSPECT_JSON_FIELDS => write_json(&self.stream, |_| true, Out(to)),
            SAVEVM_INSPECT_ANALYZE => write_analyze(&self.stream, Out(to)),
        };
        to.flush();
        to.error()
    }
}

fn section(item: &Item) -> Option<&crate::inspect::Section> {
    match &item.kind {
        ItemKind::Section(section) => Some(section),
        _ => None,
    }
}

fn part(kind: SectionKind) -> SaveVMInspectItemKind {
    match kind {
        SectionKind::Start => SAVEVM_INSPECT_START,
        SectionKind::Part => SAVEVM_INSPECT_PART,
        SectionKind::End => SAVEVM_INSPECT_END,
        SectionKind::Full => SAVEVM_INSPECT_FULL,
    }
}

type FieldFn = unsafe extern "C" fn(opaque: *mut c_void, field: *const SaveVMInspectField) -> c_int;

/// Hands fields on to C until it has enough.
struct Callback {
    call: FieldFn,
    opaque: *mut c_void,
    ret: c_int,
}

impl Callback {
    fn give(&mut self, field: &SaveVMInspectField) {
        if self.ret == 0 {
            // SAFETY: `fields` was promised that it may be called so.
            self.ret = unsafe { (self.call)(self.opaque, field) };
        }
    }
}

const NO_FIELD: SaveVMInspectField = SaveVMInspectField {
    kind: SAVEVM_INSPECT_LEAVE,
    name: ptr::null(),
    type_name: ptr::null(),
    value: 0,
    offset: 0,
    bytes: ptr::null(),
    length: 0,
};

impl FieldSink for Callback {
    fn enter(&mut self, name: &str, group: Group) {
        let (kind, value) = match group {
            Group::Struct => (SAVEVM_INSPECT_STRUCT, 0),
            Group::Array => (SAVEVM_INSPECT_ARRAY, 0),
            Group::List => (SAVEVM_INSPECT_LIST, 0),
            Group::Subsection { version } => (SAVEVM_INSPECT_SUBSECTION, version.into()),
        };
        let name = c_string(name);
        self.give(&SaveVMInspectField { kind, name: name.as_ptr(), value, ..NO_FIELD });
    }

    fn leave(&mut self) {
        self.give(&NO_FIELD);
    }

    fn field(&mut self, leaf: &Leaf<'_>) {
        let (kind, value) = match leaf.value {
            Value::Signed(value) => (SAVEVM_INSPECT_SIGNED, value.cast_unsigned()),
            Value::Unsigned(value) => (SAVEVM_INSPECT_UNSIGNED, value),
            Value::Bool(value) => (SAVEVM_INSPECT_BOOL, value.into()),
            Value::Null => (SAVEVM_INSPECT_NULL, 0),
            Value::Bytes => (SAVEVM_INSPECT_BYTES, 0),
        };
        let (name, type_name) = (c_string(leaf.name), c_string(leaf.type_name));
        self.give(&SaveVMInspectField {
            kind,
            name: name.as_ptr(),
            type_name: type_name.as_ptr(),
            value,
            offset: leaf.offset,
            bytes: leaf.bytes.as_ptr(),
            length: leaf.bytes.len(),
        });
    }
}
