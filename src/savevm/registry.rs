// SPDX-License-Identifier: LGPL-2.1-or-later
//! Who takes part: entries in order of priority and registration, with an index for every way they are looked for.
//!
//! Nothing here gets slower with the number of devices. No lock is held while a callback runs: a walk remembers the key
//! of the entry that it stands on, and entries may come and go meanwhile.

use super::handler::Handler;
use super::index::{Index, Key};
use crate::error::{Error, Result, Section};
use crate::wire::limits::IDSTR_MAX;
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Highest priority of a description (QEMU 7.2's `MIG_PRI_MAX`).
pub const PRIORITY_MAX: i32 = 5;
/// "Choose an instance id for me": -1.
pub const INSTANCE_ID_ANY: u32 = u32::MAX;

/// An older name by which streams may know a device.
#[derive(Clone, Debug)]
pub struct Compat {
    /// The name without the path.
    pub idstr: Arc<[u8]>,
    /// Its own count of instances.
    pub instance_id: i32,
}

/// One registered device.
pub struct Entry {
    /// Name with the path, at most 255 bytes.
    pub idstr: Arc<[u8]>,
    /// Instance id.
    pub instance_id: u32,
    /// A second instance id that streams may use.
    pub alias_id: i32,
    /// Version of this program's state.
    pub version_id: i32,
    /// Id of its sections in a stream that is written here.
    pub section_id: u32,
    /// Older name.
    pub compat: Option<Compat>,
    /// Live: has a `save_setup` (QEMU's `is_ram`).
    pub is_live: bool,
    /// The callbacks.
    pub handler: Box<dyn Handler>,
    pub(super) owner: Owner,
    pub(super) key: Key,
    removed: AtomicBool,
    calls: AtomicUsize,
}

/// Addresses by which a device is unregistered: its table or description, and its opaque pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Description, or 0.
    pub description: usize,
    /// The device's own pointer.
    pub opaque: usize,
}

/// What a registration says.
pub struct Registration {
    /// Path of the object, without the slash.
    pub path: Option<Vec<u8>>,
    /// Name without the path.
    pub name: Vec<u8>,
    /// Instance id, or `INSTANCE_ID_ANY`.
    pub instance_id: u32,
    /// Alias id; -1 for none.
    pub alias_id: i32,
    /// Version.
    pub version_id: i32,
    /// Live.
    pub is_live: bool,
    /// For unregistering.
    pub owner: Owner,
    /// The callbacks.
    pub handler: Box<dyn Handler>,
}

thread_local! {
    /// Addresses of the entries whose callbacks run on this thread.
    static RUNNING: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Keeps an entry's callback alive against `unregister` in another thread.
pub struct Call {
    entry: Arc<Entry>,
    gone: Arc<Condvar>,
    idle: Arc<Mutex<()>>,
}

impl std::ops::Deref for Call {
    type Target = Entry;
    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let id = Arc::as_ptr(&self.entry) as usize;
        RUNNING.with_borrow_mut(|running| {
            if let Some(at) = running.iter().rposition(|other| *other == id) {
                running.swap_remove(at);
            }
        });
        self.entry.calls.fetch_sub(1, SeqCst);
        if self.entry.removed.load(SeqCst) {
            let _lock = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            self.gone.notify_all();
        }
    }
}

impl Entry {
    /// The name as text.
    pub fn name(&self) -> String {
        String::from_utf8_lossy(&self.idstr).into_owned()
    }

    /// Name of the description as text, "(old)" without one: what traces say.
    pub fn description_name(&self) -> String {
        if !self.handler.is_description() {
            return "(old)".to_owned();
        }
        let name = self.compat.as_ref().map_or(&self.idstr, |compat| &compat.idstr);
        String::from_utf8_lossy(name).into_owned()
    }

    /// The section for an error's context.
    pub fn section(&self, tag: u8, id: u32, version_want: Option<i32>) -> Section {
        Section {
            tag,
            id,
            idstr: self.name(),
            instance: self.instance_id,
            version_have: Some(self.version_id),
            version_want,
        }
    }

    fn calls_here(&self) -> usize {
        let id = std::ptr::from_ref(self) as usize;
        RUNNING.with_borrow(|running| running.iter().filter(|other| **other == id).count())
    }
}

/// The devices of one context.
#[derive(Default)]
pub struct Registry {
    inner: Mutex<Index>,
    gone: Arc<Condvar>,
    idle: Arc<Mutex<()>>,
}

/// Joins parts to a name and cuts it at 255 bytes, as QEMU does.
fn join_name(parts: &[&[u8]]) -> (Vec<u8>, bool) {
    let mut name = parts.concat();
    let cut = name.len() > IDSTR_MAX;
    name.truncate(IDSTR_MAX);
    (name, cut)
}

impl Registry {
    fn inner(&self) -> MutexGuard<'_, Index> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a device. In strict mode a cut name or a second (idstr, instance) is an error; else it is told through
    /// `warn` and done as QEMU 7.2 does it.
    pub fn register(&self, new: Registration, strict: bool, warn: &mut Vec<String>) -> Result<()> {
        let priority = new.handler.priority();
        if !(0..=PRIORITY_MAX).contains(&priority) {
            return Err(Error::invalid(format!("priority {priority} is not between 0 and {PRIORITY_MAX}")));
        }
        let mut inner = self.inner();
        let section_id = inner.take_section_id();
        let any = new.instance_id == INSTANCE_ID_ANY;
        let (idstr, cut) = match &new.path {
            Some(path) if path.len() >= IDSTR_MAX => {
                let path = String::from_utf8_lossy(path);
                return Err(Error::new(libc::EPERM, format!("Path too long for VMState ({path})")));
            }
            Some(path) => join_name(&[path, b"/", &new.name]),
            None => join_name(&[&new.name]),
        };
        let shown = String::from_utf8_lossy(&idstr).into_owned();
        if cut {
            let text = format!("the name '{shown}' was cut at {IDSTR_MAX} bytes");
            if strict {
                return Err(Error::new(libc::ENAMETOOLONG, text));
            }
            warn.push(text);
        }
        let compat = new.path.as_ref().map(|_| {
            let (name, _) = join_name(&[&new.name]);
            let instance_id = if any { inner.new_compat_instance(&name) } else { new.instance_id as i32 };
            (name, instance_id)
        });
        let instance_id = if any || compat.is_some() { inner.new_instance(&idstr) } else { new.instance_id };
        if compat.is_some() && instance_id != 0 {
            return Err(Error::new(libc::EEXIST, format!("the object has registered '{shown}' before")));
        }
        if instance_id == INSTANCE_ID_ANY {
            return Err(Error::new(libc::ENOSPC, format!("no instance id is left for '{shown}'")));
        }
        if inner.has_instance(&idstr, instance_id) {
            let text = format!("'{shown}' instance {instance_id} is registered twice");
            if strict {
                return Err(Error::new(libc::EEXIST, text));
            }
            warn.push(text);
        }
        let key = (PRIORITY_MAX - priority, inner.take_sequence());
        let entry = Entry {
            idstr: inner.intern(&idstr),
            instance_id,
            alias_id: new.alias_id,
            version_id: new.version_id,
            section_id,
            compat: compat.map(|(name, instance_id)| Compat { idstr: inner.intern(&name), instance_id }),
            is_live: new.is_live,
            handler: new.handler,
            owner: new.owner,
            key,
            removed: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
        };
        inner.insert(Arc::new(entry));
        Ok(())
    }

    /// Removes all entries of that name and opaque pointer. Their callbacks may still run: see `drain`.
    pub fn unregister_name(&self, path: Option<&[u8]>, name: &[u8], opaque: usize) -> Vec<Arc<Entry>> {
        let (idstr, _) = match path {
            Some(path) => join_name(&[path, b"/", name]),
            None => join_name(&[name]),
        };
        let mut inner = self.inner();
        let keys = inner.named(&idstr, opaque);
        keys.into_iter().filter_map(|key| inner.remove(key)).collect()
    }

    /// Removes all entries of that owner. Their callbacks may still run: see `drain`.
    pub fn unregister_owner(&self, owner: Owner) -> Vec<Arc<Entry>> {
        let mut inner = self.inner();
        let keys = inner.owned(owner);
        keys.into_iter().filter_map(|key| inner.remove(key)).collect()
    }

    /// Marks removed entries so that no further callback starts; whether other threads are still in one.
    pub fn is_busy(&self, removed: &[Arc<Entry>]) -> bool {
        for entry in removed {
            entry.removed.store(true, SeqCst);
        }
        removed.iter().any(|entry| entry.calls.load(SeqCst) > entry.calls_here())
    }

    /// Waits until no other thread is in a callback of the removed entries.
    pub fn drain(&self, removed: &[Arc<Entry>]) {
        let mut lock = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while self.is_busy(removed) {
            lock = self.gone.wait(lock).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How many devices there are.
    pub fn len(&self) -> usize {
        self.inner().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn enter(&self, entry: &Arc<Entry>) -> Option<Call> {
        entry.calls.fetch_add(1, SeqCst);
        RUNNING.with_borrow_mut(|running| running.push(Arc::as_ptr(entry) as usize));
        let call = Call { entry: Arc::clone(entry), gone: Arc::clone(&self.gone), idle: Arc::clone(&self.idle) };
        (!entry.removed.load(SeqCst)).then_some(call)
    }

    /// The entry that a stream names.
    pub fn find(&self, idstr: &[u8], instance: u32) -> Option<Call> {
        let entry = self.inner().find(idstr, instance)?;
        self.enter(&entry)
    }

    /// An entry that was found before, unless it was unregistered since.
    pub fn again(&self, entry: &Arc<Entry>) -> Option<Call> {
        self.enter(entry)
    }

    /// All entries in order. Entries that come while it stands before their place are seen, those that go are not.
    pub fn walk(&self) -> Walk<'_> {
        Walk { registry: self, last: None }
    }
}

impl Call {
    /// The entry, to be entered `again` later.
    pub fn entry(&self) -> Arc<Entry> {
        Arc::clone(&self.entry)
    }
}

/// See `Registry::walk`.
pub struct Walk<'a> {
    registry: &'a Registry,
    last: Option<Key>,
}

impl Iterator for Walk<'_> {
    type Item = Call;

    fn next(&mut self) -> Option<Call> {
        loop {
            let entry = self.registry.inner().after(self.last)?;
            self.last = Some(entry.key);
            if let Some(call) = self.registry.enter(&entry) {
                return Some(call);
            }
        }
    }
}
