// SPDX-License-Identifier: LGPL-2.1-or-later
//! Who takes part: entries in order of priority and registration, with an index for every way they are looked for.
//!
//! Nothing here gets slower with the number of devices, and little memory is touched for each. No lock is held while a
//! callback runs: entries may come and go meanwhile, also the one that a walk stands on.

use super::handler::Handler;
use super::index::Index;
use super::name::Name;
use super::order::{Place, START};
use crate::error::{Error, Result, Section};
use crate::sync::{Condvar, Mutex, MutexGuard, Rank};
use crate::wire::limits::IDSTR_MAX;
use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

/// Highest priority of a description (QEMU 7.2's `MIG_PRI_MAX`).
pub const PRIORITY_MAX: i32 = 5;
/// "Choose an instance id for me": -1.
pub const INSTANCE_ID_ANY: u32 = u32::MAX;

/// An older name by which streams may know a device.
pub struct Compat {
    /// The name without the path.
    pub idstr: Name,
    /// Its own count of instances.
    pub instance_id: i32,
}

/// Where an entry stands in the order, and whether it comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Priority, inverted: higher goes first.
    pub rank: u32,
    /// Counts the registrations.
    sequence: u64,
    pub place: Place,
}

/// Finds an entry again, and never another one.
#[derive(Clone, Copy)]
pub struct Ticket(Key);

impl Ticket {
    /// Its place, which is another entry's once this one is gone. There are no more places than there were ever devices.
    pub(super) fn place(self) -> usize {
        self.0.place as usize
    }
}

/// One registered device, with its handler in one piece of memory.
pub struct Entry<H: ?Sized = dyn Handler> {
    /// Name with the path, at most 255 bytes.
    pub idstr: Name,
    /// Instance id.
    pub instance_id: u32,
    /// A second instance id that streams may use.
    pub alias_id: i32,
    /// Version of this program's state.
    pub version_id: i32,
    /// Id of its sections in a stream that is written here.
    pub section_id: u32,
    /// Older name.
    pub compat: Option<Box<Compat>>,
    /// Live: has a `save_setup` (QEMU's `is_ram`).
    pub is_live: bool,
    pub(super) owner: Owner,
    pub(super) key: Key,
    removed: AtomicBool,
    calls: AtomicUsize,
    /// The callbacks.
    pub handler: H,
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
pub struct Registration<H> {
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
    pub handler: H,
}

thread_local! {
    /// Addresses of the entries whose callbacks run on this thread.
    static RUNNING: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Keeps an entry's callback alive against `unregister` in another thread.
pub struct Call<'a> {
    entry: Arc<Entry>,
    registry: &'a Registry,
}

impl std::ops::Deref for Call<'_> {
    type Target = Entry;
    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let id = self.entry.id();
        RUNNING.with_borrow_mut(|running| {
            if let Some(at) = running.iter().rposition(|other| *other == id) {
                running.swap_remove(at);
            }
        });
        self.entry.calls.fetch_sub(1, SeqCst);
        if self.entry.removed.load(SeqCst) {
            let _lock = self.registry.idle.lock();
            self.registry.gone.notify_all();
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

    /// Its idstr (or its older name), and the instance that goes with it.
    pub(super) fn known_as(&self, is_compat: bool) -> (&[u8], u32) {
        match &self.compat {
            Some(compat) if is_compat => (&compat.idstr, compat.instance_id as u32),
            _ => (&self.idstr, self.instance_id),
        }
    }

    /// Tells it from all others, while it is there.
    fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn calls_here(&self) -> usize {
        let id = self.id();
        RUNNING.with_borrow(|running| running.iter().filter(|other| **other == id).count())
    }
}

/// The devices of one context.
pub struct Registry {
    inner: Mutex<Index>,
    gone: Condvar,
    idle: Mutex<()>,
}

/// A name behind the path of its object, cut at 255 bytes, as QEMU does.
fn full_name<'a>(path: Option<&[u8]>, name: &'a [u8]) -> (Cow<'a, [u8]>, bool) {
    let full = path.map_or(Cow::Borrowed(name), |path| Cow::Owned([path, b"/", name].concat()));
    match full {
        _ if full.len() <= IDSTR_MAX => (full, false),
        Cow::Borrowed(name) => (Cow::Borrowed(&name[..IDSTR_MAX]), true),
        Cow::Owned(mut full) => {
            full.truncate(IDSTR_MAX);
            (Cow::Owned(full), true)
        }
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Rank::Registry, Index::default()),
            gone: Condvar::new(),
            idle: Mutex::new(Rank::RegistryIdle, ()),
        }
    }
}

impl Registry {
    fn inner(&self) -> MutexGuard<'_, Index> {
        self.inner.lock()
    }

    /// Adds a device. In strict mode a cut name or a second (idstr, instance) is an error; else it is told through
    /// `warn` and done as QEMU 7.2 does it.
    pub fn register<H>(&self, new: Registration<H>, strict: bool, warn: &mut Vec<String>) -> Result<()>
    where
        H: Handler + 'static,
    {
        let priority = new.handler.priority();
        if !(0..=PRIORITY_MAX).contains(&priority) {
            return Err(Error::invalid(format!("priority {priority} is not between 0 and {PRIORITY_MAX}")));
        }
        let mut inner = self.inner();
        let section_id = inner.take_section_id();
        let (idstr, instance_id, compat) = identify(&inner, &new, strict, warn)?;
        let key = Key {
            rank: (PRIORITY_MAX - priority) as u32,
            sequence: inner.take_sequence(),
            place: inner.order.next_place(),
        };
        let entry = Entry {
            idstr: Name::from(&*idstr),
            instance_id,
            alias_id: new.alias_id,
            version_id: new.version_id,
            section_id,
            compat: compat.map(Box::new),
            is_live: new.is_live,
            owner: new.owner,
            key,
            removed: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            handler: new.handler,
        };
        inner.insert(Arc::new(entry));
        Ok(())
    }

    /// Removes all entries of that name and opaque pointer. Their callbacks may still run: see `drain`.
    pub fn unregister_name(&self, path: Option<&[u8]>, name: &[u8], opaque: usize) -> Vec<Arc<Entry>> {
        let (idstr, _) = full_name(path, name);
        let mut inner = self.inner();
        let places = inner.of_opaque(&idstr, opaque);
        places.into_iter().filter_map(|place| inner.remove(place)).collect()
    }

    /// Removes all entries of that owner. Their callbacks may still run: see `drain`.
    pub fn unregister_owner(&self, owner: Owner) -> Vec<Arc<Entry>> {
        let mut inner = self.inner();
        let places = inner.owned(owner);
        places.into_iter().filter_map(|place| inner.remove(place)).collect()
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
        let mut lock = self.idle.lock();
        while self.is_busy(removed) {
            lock = self.gone.wait(lock);
        }
    }

    /// How many devices there are.
    pub fn len(&self) -> usize {
        self.inner().order.len()
    }

    /// How many places there are for them, taken or free.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.inner().order.places()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn enter(&self, entry: Arc<Entry>) -> Option<Call<'_>> {
        entry.calls.fetch_add(1, SeqCst);
        RUNNING.with_borrow_mut(|running| running.push(entry.id()));
        let call = Call { entry, registry: self };
        (!call.removed.load(SeqCst)).then_some(call)
    }

    /// The entry that a stream names.
    pub fn find(&self, idstr: &[u8], instance: u32) -> Option<Call<'_>> {
        let entry = Arc::clone(self.inner().find(idstr, instance)?);
        self.enter(entry)
    }

    /// An entry that was found before, unless it was unregistered since.
    pub fn again(&self, Ticket(key): Ticket) -> Option<Call<'_>> {
        let entry = self.inner().order.get(key.place).filter(|entry| entry.key == key).cloned()?;
        self.enter(entry)
    }

    /// All entries in order. Entries that come while it stands before their place are seen, those that go are not.
    pub fn walk(&self) -> Walk<'_> {
        self.inner().order.enter(START);
        Walk { registry: self, at: START }
    }
}

/// The name of a new device, its instance and its older name.
fn identify<'a, H>(
    inner: &Index,
    new: &'a Registration<H>,
    strict: bool,
    warn: &mut Vec<String>,
) -> Result<(Cow<'a, [u8]>, u32, Option<Compat>)> {
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let mut doubtful = |errno, text: String| {
        if strict {
            Err(Error::new(errno, text))
        } else {
            warn.push(text);
            Ok(())
        }
    };
    let path = new.path.as_deref();
    if let Some(path) = path.filter(|path| path.len() >= IDSTR_MAX) {
        return Err(Error::new(libc::EPERM, format!("Path too long for VMState ({})", text(path))));
    }
    let (idstr, cut) = full_name(path, &new.name);
    if cut {
        doubtful(libc::ENAMETOOLONG, format!("the name '{}' was cut at {IDSTR_MAX} bytes", text(&idstr)))?;
    }
    let any = new.instance_id == INSTANCE_ID_ANY;
    let compat = path.map(|_| {
        let (name, _) = full_name(None, &new.name);
        let next = || inner.named(&name).map_or(0, |named| named.next_compat_instance());
        Compat { idstr: Name::from(&*name), instance_id: if any { next() } else { new.instance_id as i32 } }
    });
    let known = inner.named(&idstr);
    let instance_id = match &known {
        _ if !any && compat.is_none() => new.instance_id,
        Some(named) => named.next_instance(),
        None => 0,
    };
    if compat.is_some() && instance_id != 0 {
        return Err(Error::new(libc::EEXIST, format!("the object has registered '{}' before", text(&idstr))));
    }
    if instance_id == INSTANCE_ID_ANY {
        return Err(Error::new(libc::ENOSPC, format!("no instance id is left for '{}'", text(&idstr))));
    }
    if known.is_some_and(|named| named.has_instance(instance_id)) {
        doubtful(libc::EEXIST, format!("'{}' instance {instance_id} is registered twice", text(&idstr)))?;
    }
    Ok((idstr, instance_id, compat))
}

impl Call<'_> {
    /// For entering the entry `again` later.
    pub fn ticket(&self) -> Ticket {
        Ticket(self.entry.key)
    }
}

/// See `Registry::walk`.
pub struct Walk<'a> {
    registry: &'a Registry,
    at: Place,
}

impl<'a> Iterator for Walk<'a> {
    type Item = Call<'a>;

    fn next(&mut self) -> Option<Call<'a>> {
        loop {
            let entry = {
                let order = &mut self.registry.inner().order;
                self.at = order.step(self.at);
                Arc::clone(order.get(self.at)?)
            };
            if let Some(call) = self.registry.enter(entry) {
                return Some(call);
            }
        }
    }
}

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        self.registry.inner().order.leave(self.at);
    }
}
