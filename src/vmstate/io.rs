// SPDX-License-Identifier: LGPL-2.1-or-later
//! The context of the interpreter, and the path of errors.
//!
//! Code in C may run between two levels of the interpreter, and there an error is only an `int`. So the file keeps the
//! error while its code is returned. Each level that sees the code adds its element to the path, and the outermost
//! level adds the description's name. The codes are QEMU's.

use super::host::VmStateHost;
use super::model::{Description, State};
use crate::error::Error;
use crate::file::MigFile;
use crate::wire::limits::Limits;
use std::fmt;

/// A file, with the limits and the host for its contents.
#[derive(Clone, Copy)]
pub struct Io<'a> {
    /// The file to read or write.
    pub file: &'a MigFile,
    /// Limits on what the stream may request.
    pub limits: &'a Limits,
    /// Timers, trees and traces.
    pub host: &'a dyn VmStateHost,
    traces: bool,
}

impl<'a> Io<'a> {
    /// Returns the context of one call of the program. Whether traces are wanted is read once here, not for each field.
    pub fn new(file: &'a MigFile, limits: &'a Limits, host: &'a dyn VmStateHost) -> Self {
        Self { file, limits, host, traces: host.traces() }
    }
}

impl Io<'_> {
    /// Returns whether traces are wanted.
    #[inline(always)]
    pub(super) fn traces(&self) -> bool {
        self.traces
    }

    /// Sends a trace event to the host.
    #[cold]
    pub(super) fn trace(&self, event: &'static str, arguments: fmt::Arguments<'_>) {
        self.host.trace(event, arguments);
    }

    /// Stores an error in the file and returns its code.
    #[cold]
    pub(super) fn fail(&self, errno: i32, message: impl Into<String>) -> i32 {
        let error = Error::new(errno, message).at_offset(self.file.position());
        let code = error.code();
        self.file.pending_error().set(error);
        code
    }

    /// Handles the result `ret` of a callback: stores an error for it, unless a deeper level did.
    #[cold]
    pub(super) fn fail_callback(&self, name: &str, ret: i32) -> i32 {
        let pending = self.file.pending_error();
        let error = pending.take_matching(ret).unwrap_or_else(|| Error::from_callback(name, ret));
        pending.set(error.at_offset(self.file.position()));
        ret
    }

    /// Stores the file's own error as the pending error.
    #[cold]
    pub(super) fn fail_file(&self, code: i32) -> i32 {
        let error = self.file.status().first_error().unwrap_or_else(|| Error::from_code("the file failed", code));
        self.file.pending_error().set(error.at_offset(self.file.position()));
        code
    }

    /// Adds an element to the path of the error behind `ret`, and returns `ret`.
    #[cold]
    pub(super) fn in_path(&self, ret: i32, element: impl Into<String>) -> i32 {
        let pending = self.file.pending_error();
        let error = pending.take(ret).in_path(element);
        pending.set(error);
        ret
    }

    /// Ends the outermost level: prefixes the path with the description's name. If the file's error is the same one, it
    /// gets the path too.
    #[cold]
    fn finish<S: State>(&self, ret: i32, state: &S) {
        let pending = self.file.pending_error();
        let error = pending.take(ret).in_path(text(state.description().name()));
        if self.file.error() == ret {
            self.file.set_error_detail(error.clone());
        }
        pending.set(error);
    }
}

/// Returns a C name as text.
pub(super) fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Returns a field's name, with the index if it has several elements.
pub(super) fn element_text(name: &[u8], index: usize, count: usize) -> String {
    if count == 1 { text(name) } else { format!("{}[{index}]", String::from_utf8_lossy(name)) }
}

/// Returns a subsection's name without its parent's name, which precedes it in the path.
pub(super) fn subsection_text(parent: &[u8], name: &[u8]) -> String {
    let own = name.strip_prefix(parent).and_then(|rest| rest.strip_prefix(b"/")).unwrap_or(name);
    text(own)
}

/// One level of nesting. Dropping it leaves the level.
struct Level<'a>(&'a MigFile);

impl Drop for Level<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.pending_error().leave();
    }
}

/// Runs `body` one level deeper.
#[inline(always)]
pub(super) fn nested<S: State>(io: &Io<'_>, state: &S, body: impl FnOnce() -> i32) -> i32 {
    let pending = io.file.pending_error();
    if !pending.enter(io.limits.nesting) {
        return io.fail(libc::ELOOP, format!("nested more than {} deep", io.limits.nesting));
    }
    let level = Level(io.file);
    let outermost = pending.depth() == 1;
    if outermost {
        pending.clear();
    }
    let ret = body();
    if ret != 0 && outermost {
        io.finish(ret, state);
    }
    drop(level);
    ret
}
