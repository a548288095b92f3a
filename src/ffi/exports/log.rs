// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm.h`: the log. The library is the `log` crate's logger from the first call on. It takes no lock to log, because the
//! library logs with locks of any rank held. A sink that was replaced is kept, because a thread may still use it. The
//! same callback gets its earlier sink again, so a program that switches between callbacks uses no more memory.

use crate::ffi::marshal::guard::guard;
use crate::ffi::marshal::strings;
use crate::ffi::marshal::strings::c_string;
use crate::ffi::marshal::structs::{c_enum, c_enums};
use log::{LevelFilter, Log, Metadata, Record};
use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};

/// Level of a message of the log.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMLogLevel {
    /// No messages.
    SAVEVM_LOG_OFF = 0,
    /// Something failed.
    SAVEVM_LOG_ERROR = 1,
    /// Something is unexpected, and the work continues.
    SAVEVM_LOG_WARN = 2,
    /// Normal operation.
    SAVEVM_LOG_INFO = 3,
    /// Details for debugging.
    SAVEVM_LOG_DEBUG = 4,
    /// Every step.
    SAVEVM_LOG_TRACE = 5,
}

c_enums! {
    SaveVMLogLevel: SAVEVM_LOG_OFF, SAVEVM_LOG_ERROR, SAVEVM_LOG_WARN, SAVEVM_LOG_INFO, SAVEVM_LOG_DEBUG, SAVEVM_LOG_TRACE;
}

/// Receives one message of the log; `text` is valid during the call.
///
/// Thread: any; several at once. Lock: either. It must not wait for another thread of the program.
pub type SaveVMLogFn = Option<unsafe extern "C" fn(opaque: *mut c_void, level: SaveVMLogLevel, text: *const c_char)>;

/// Where messages go.
enum Sink {
    /// To stderr.
    Stderr(env_logger::Logger),
    /// To the program.
    Program { callback: Callback, opaque: *mut c_void },
}

type Callback = unsafe extern "C" fn(*mut c_void, SaveVMLogLevel, *const c_char);

// SAFETY: savevm_log_set() says that the callback may be called from any thread with `opaque`.
unsafe impl Send for Sink {}
// SAFETY: as above.
unsafe impl Sync for Sink {}

/// The sink in use; NULL: none.
static SINK: AtomicPtr<Sink> = AtomicPtr::new(ptr::null_mut());

/// A sink, which is never freed, and the one that was kept before it.
struct Kept {
    sink: Sink,
    before: *mut Kept,
}

/// The sink that was kept last.
static KEPT: AtomicPtr<Kept> = AtomicPtr::new(ptr::null_mut());

impl Kept {
    fn new(sink: Sink) -> Box<Self> {
        Box::new(Self { sink, before: ptr::null_mut() })
    }

    /// Keeps the sink for the life of the process.
    fn keep(self: Box<Self>) -> *mut Sink {
        let this = Box::into_raw(self);
        let mut before = KEPT.load(Acquire);
        loop {
            // SAFETY: no other thread has the pointer yet.
            unsafe { (*this).before = before };
            match KEPT.compare_exchange(before, this, AcqRel, Acquire) {
                // SAFETY: as above; the address of a member of a live object.
                Ok(_) => return unsafe { &raw mut (*this).sink },
                Err(other) => before = other,
            }
        }
    }

    /// Finds the sink of a callback that was in use before.
    fn find(callback: Callback, opaque: *mut c_void) -> Option<*mut Sink> {
        let mut at = KEPT.load(Acquire);
        // SAFETY: the list has only sinks that were kept, and these are never freed.
        while let Some(kept) = unsafe { at.as_ref() } {
            match kept.sink {
                Sink::Program { callback: known, opaque: of } if ptr::fn_addr_eq(known, callback) && of == opaque => {
                    return Some((&raw const kept.sink).cast_mut());
                }
                _ => at = kept.before,
            }
        }
        None
    }
}

struct Logger;

impl Logger {
    fn sink() -> Option<&'static Sink> {
        // SAFETY: the pointer is NULL or that of a kept sink, which is never freed.
        unsafe { SINK.load(Acquire).as_ref() }
    }

    /// Makes this the logger of the process; false if the program has another one.
    fn install() -> bool {
        static INSTALLED: OnceLock<bool> = OnceLock::new();
        *INSTALLED.get_or_init(|| log::set_logger(&Logger).is_ok())
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        match Self::sink() {
            Some(Sink::Stderr(logger)) => logger.enabled(metadata),
            Some(Sink::Program { .. }) => true,
            None => false,
        }
    }

    fn log(&self, record: &Record<'_>) {
        match Self::sink() {
            Some(Sink::Stderr(logger)) => logger.log(record),
            Some(Sink::Program { callback, opaque }) => {
                let level = match record.level() {
                    log::Level::Error => SaveVMLogLevel::SAVEVM_LOG_ERROR,
                    log::Level::Warn => SaveVMLogLevel::SAVEVM_LOG_WARN,
                    log::Level::Info => SaveVMLogLevel::SAVEVM_LOG_INFO,
                    log::Level::Debug => SaveVMLogLevel::SAVEVM_LOG_DEBUG,
                    log::Level::Trace => SaveVMLogLevel::SAVEVM_LOG_TRACE,
                };
                let text = c_string(&record.args().to_string());
                // SAFETY: savevm_log_set() says that the callback may be called from any thread with `opaque`.
                unsafe { callback(*opaque, level, text.as_ptr()) }
            }
            None => {}
        }
    }

    fn flush(&self) {}
}

/// Sends the messages of the library's log up to `level` to a callback. Replaces an earlier callback, and the output of
/// savevm_log_init(). If `callback` is NULL, no messages are sent. An unknown level is SAVEVM_LOG_TRACE. A replaced
/// callback may still run in other threads, so its `opaque` must stay valid. Does nothing if the program has a logger
/// of Rust's `log` crate.
///
/// Thread: any. Lock: either.
#[unsafe(no_mangle)]
pub extern "C" fn savevm_log_set(callback: SaveVMLogFn, opaque: *mut c_void, level: MaybeUninit<SaveVMLogLevel>) {
    guard((), || {
        if !Logger::install() {
            return;
        }
        let level = match c_enum(level) {
            Ok(SaveVMLogLevel::SAVEVM_LOG_OFF) => LevelFilter::Off,
            Ok(SaveVMLogLevel::SAVEVM_LOG_ERROR) => LevelFilter::Error,
            Ok(SaveVMLogLevel::SAVEVM_LOG_WARN) => LevelFilter::Warn,
            Ok(SaveVMLogLevel::SAVEVM_LOG_INFO) => LevelFilter::Info,
            Ok(SaveVMLogLevel::SAVEVM_LOG_DEBUG) => LevelFilter::Debug,
            Ok(SaveVMLogLevel::SAVEVM_LOG_TRACE) | Err(_) => LevelFilter::Trace,
        };
        let sink = callback.map(|callback| {
            Kept::find(callback, opaque).unwrap_or_else(|| Kept::new(Sink::Program { callback, opaque }).keep())
        });
        log::set_max_level(if sink.is_some() { level } else { LevelFilter::Off });
        SINK.store(sink.unwrap_or(ptr::null_mut()), Release);
    });
}

/// Writes the library's log to stderr, for programs without their own log. `filter` is a filter of env_logger, such as
/// "info" or "savevm=trace"; NULL uses the environment variable RUST_LOG. Without this call or savevm_log_set(),
/// nothing is printed.
///
/// Returns:
///   0       the log is written to stderr
///   -EBUSY  the log already has a destination
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `filter` is NULL or a terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_log_init(filter: *const c_char) -> c_int {
    guard(-libc::EIO, || {
        let mut builder = env_logger::Builder::new();
        // SAFETY: the contract of the function.
        match unsafe { strings::string(filter) } {
            Some(filter) => builder.parse_filters(&String::from_utf8_lossy(&filter)),
            None => builder.parse_default_env(),
        };
        let logger = builder.build();
        let level = logger.filter();
        if !Logger::install() || !SINK.load(Acquire).is_null() {
            return -libc::EBUSY;
        }
        let sink = Kept::new(Sink::Stderr(logger)).keep();
        if SINK.compare_exchange(ptr::null_mut(), sink, AcqRel, Acquire).is_err() {
            return -libc::EBUSY;
        }
        log::set_max_level(level);
        0
    })
}
