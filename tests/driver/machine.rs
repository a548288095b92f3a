// SPDX-License-Identifier: LGPL-2.1-or-later
//! A machine for tests: a host whose lock knows its holder, a RAM of a few pages, a device. What must never happen is
//! noted as a violation: a callback under the wrong lock, a guest or disks on two sides at once.

use savevm::error::{Error, Result};
use savevm::file::MigFile;
use savevm::migration::Info;
use savevm::savevm::Vm;
use savevm::savevm::handler::{Callback, Handler, Pending};
use savevm::savevm::host::{Flags, Host, Level};
use savevm::savevm::registry::{INSTANCE_ID_ANY, Registrant, Registration};
use savevm::savevm::slot::{MigrationEvent, StallEvent};
use savevm::vmstate::{Recorder, VmStateHost};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// What the two sides of a migration share: the side that runs, the side with the disks, and violations.
#[derive(Default)]
pub struct Stage {
    guests: AtomicI32,
    disks: AtomicI32,
    pub violations: Mutex<Vec<String>>,
}

impl Stage {
    pub fn violation(&self, text: impl Into<String>) {
        self.violations.lock().unwrap().push(text.into());
    }

    /// The side that had the guest and the disks is played by a real QEMU.
    pub fn qemu_has_the_guest(&self) {
        self.guests.store(0, SeqCst);
        self.disks.store(0, SeqCst);
    }

    /// How many sides run the guest.
    pub fn guests(&self) -> i32 {
        self.guests.load(SeqCst)
    }

    pub fn check(&self, what: &str) {
        let violations = self.violations.lock().unwrap();
        assert!(violations.is_empty(), "{what}: {violations:?}");
    }
}

/// A lock that knows its holder.
#[derive(Default)]
struct BigLock {
    holder: Mutex<Option<ThreadId>>,
    free: Condvar,
}

#[derive(Default)]
pub struct Counts {
    pub save_setup: AtomicU32,
    pub save_cleanup: AtomicU32,
    pub load_setup: AtomicU32,
    pub load_cleanup: AtomicU32,
    pub saved: AtomicU32,
    pub loaded: AtomicU32,
}

pub struct TestHost {
    name: &'static str,
    pub stage: Arc<Stage>,
    lock: BigLock,
    running: AtomicBool,
    has_disks: AtomicBool,
    pub events: Mutex<Vec<&'static str>>,
    /// The errors that came with events.
    pub event_errors: Mutex<Vec<(&'static str, String)>>,
    /// Stalls that were reported: number of the reason, and the text.
    pub stalls: Mutex<Vec<(i32, String)>>,
    pub throttled: AtomicU32,
    pub stops: AtomicU32,
    pub resets: AtomicU32,
    /// The time of its clock, if the clock is stopped.
    pub frozen: Mutex<Option<u64>>,
    /// Errors that were reported: expected ones are part of many tests.
    pub reports: Mutex<Vec<String>>,
    pub fail_start: AtomicBool,
    pub fail_stop: AtomicBool,
    /// How long it takes to notice a change.
    pub slow_event: AtomicU32,
    /// Name of the machine in the configuration section.
    pub machine_name: Mutex<Vec<u8>>,
    pub fail_disks: AtomicBool,
    /// `Flags` of the host.
    pub flags: AtomicU32,
    /// Called before the lock is taken and after it was released.
    pub unlocked: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
}

impl TestHost {
    fn new(name: &'static str, stage: &Arc<Stage>, running: bool) -> Self {
        let host = Self {
            name,
            stage: Arc::clone(stage),
            lock: BigLock::default(),
            running: AtomicBool::new(false),
            has_disks: AtomicBool::new(false),
            events: Mutex::default(),
            event_errors: Mutex::default(),
            stalls: Mutex::default(),
            throttled: AtomicU32::new(0),
            stops: AtomicU32::new(0),
            resets: AtomicU32::new(0),
            frozen: Mutex::default(),
            reports: Mutex::default(),
            fail_start: AtomicBool::new(false),
            fail_stop: AtomicBool::new(false),
            slow_event: AtomicU32::new(0),
            machine_name: Mutex::new(b"none".to_vec()),
            fail_disks: AtomicBool::new(false),
            flags: AtomicU32::new(0),
            unlocked: Mutex::default(),
        };
        if running {
            host.has_disks.store(true, SeqCst);
            host.running.store(true, SeqCst);
            stage.guests.fetch_add(1, SeqCst);
            stage.disks.fetch_add(1, SeqCst);
        }
        host
    }

    /// Stops the guest as an operator does.
    pub fn stop_guest(&self) {
        self.lock();
        self.vm_stop();
        self.unlock();
    }

    /// Starts the guest as an operator does.
    pub fn start_guest(&self) {
        self.lock();
        self.vm_start();
        self.unlock();
    }

    /// Whether a thread holds the lock.
    pub fn is_locked(&self) -> bool {
        self.lock.holder.lock().unwrap().is_some()
    }

    pub fn expect_lock(&self, held: bool, what: &str) {
        if self.locked() != held {
            let how = if held { "without" } else { "inside" };
            self.stage.violation(format!("{}: {what} {how} the lock", self.name));
        }
    }

    /// Stops the host's clock.
    pub fn freeze(&self) {
        let now = self.clock_ns();
        *self.frozen.lock().unwrap() = now;
    }

    pub fn has_disks(&self) -> bool {
        self.has_disks.load(SeqCst)
    }

    pub fn is_running(&self) -> bool {
        self.running.load(SeqCst)
    }

    fn call_unlocked(&self) {
        let unlocked = self.unlocked.lock().unwrap().clone();
        if let Some(unlocked) = unlocked {
            unlocked();
        }
    }
}

impl Host for TestHost {
    fn lock(&self) {
        self.call_unlocked();
        let me = thread::current().id();
        let mut holder = self.lock.holder.lock().unwrap();
        if *holder == Some(me) {
            self.stage.violation(format!("{}: the lock was taken twice", self.name));
            return;
        }
        while holder.is_some() {
            holder = self.lock.free.wait(holder).unwrap();
        }
        *holder = Some(me);
    }

    fn unlock(&self) {
        let mut holder = self.lock.holder.lock().unwrap();
        if *holder != Some(thread::current().id()) {
            self.stage.violation(format!("{}: the lock was given back by another thread", self.name));
        }
        *holder = None;
        self.lock.free.notify_one();
        drop(holder);
        self.call_unlocked();
    }

    fn locked(&self) -> bool {
        *self.lock.holder.lock().unwrap() == Some(thread::current().id())
    }

    fn vm_stop(&self) -> i32 {
        self.expect_lock(true, "vm_stop");
        self.stops.fetch_add(1, SeqCst);
        if self.fail_stop.load(SeqCst) {
            return -libc::EIO;
        }
        if self.running.swap(false, SeqCst) {
            self.stage.guests.fetch_sub(1, SeqCst);
        }
        0
    }

    fn vm_start(&self) -> i32 {
        self.expect_lock(true, "vm_start");
        if self.fail_start.load(SeqCst) {
            return -libc::EIO;
        }
        if !self.has_disks.load(SeqCst) {
            self.stage.violation(format!("{}: the guest was started without disks", self.name));
        }
        if !self.running.swap(true, SeqCst) && self.stage.guests.fetch_add(1, SeqCst) != 0 {
            self.stage.violation(format!("{}: the guest runs on both sides", self.name));
        }
        0
    }

    fn vm_running(&self) -> bool {
        self.running.load(SeqCst)
    }

    fn knows_run_state(&self) -> bool {
        true
    }

    fn flags(&self) -> Flags {
        Flags(self.flags.load(SeqCst))
    }

    fn reset(&self) {
        self.expect_lock(true, "reset");
        if self.is_running() {
            self.stage.violation(format!("{}: the machine was reset under its guest", self.name));
        }
        self.resets.fetch_add(1, SeqCst);
    }

    fn machine_name(&self) -> Vec<u8> {
        self.machine_name.lock().unwrap().clone()
    }

    fn knows_reset(&self) -> bool {
        true
    }

    fn clock_ns(&self) -> Option<u64> {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        let frozen = *self.frozen.lock().unwrap();
        frozen.or_else(|| u64::try_from(START.elapsed().as_nanos()).ok())
    }

    fn cpu_synchronize_states(&self) {
        self.expect_lock(true, "cpu_synchronize_states");
    }

    fn cpu_synchronize_pre_load(&self) {
        self.expect_lock(true, "cpu_synchronize_pre_load");
    }

    fn cpu_synchronize_post_load(&self) {
        self.expect_lock(true, "cpu_synchronize_post_load");
    }

    fn disks_inactivate(&self) -> i32 {
        self.expect_lock(true, "disks_inactivate");
        if self.has_disks.swap(false, SeqCst) {
            self.stage.disks.fetch_sub(1, SeqCst);
        }
        0
    }

    fn disks_activate(&self) -> i32 {
        self.expect_lock(true, "disks_activate");
        if self.fail_disks.load(SeqCst) {
            return -libc::EIO;
        }
        if !self.has_disks.swap(true, SeqCst) && self.stage.disks.fetch_add(1, SeqCst) != 0 {
            self.stage.violation(format!("{}: the disks are on both sides", self.name));
        }
        0
    }

    fn throttle(&self, percent: u32) -> bool {
        self.throttled.store(percent, SeqCst);
        true
    }

    fn migration_event(&self, event: &MigrationEvent) {
        thread::sleep(Duration::from_millis(self.slow_event.load(SeqCst).into()));
        self.events.lock().unwrap().push(event.status);
        if let Some(error) = &event.error {
            self.event_errors.lock().unwrap().push((event.status, error.to_string()));
        }
    }

    fn migration_stalled(&self, event: &StallEvent) {
        self.stalls.lock().unwrap().push((event.reason, event.text.clone()));
    }

    fn report(&self, _level: Level, text: &str) {
        self.reports.lock().unwrap().push(text.to_owned());
    }
}

impl VmStateHost for TestHost {}

pub const PAGES: usize = 12;
const END_OF_PAGES: u32 = u32::MAX;

/// A page is a number. The guest's work is done in `iterate`: it dirties pages for a while.
pub struct Ram {
    pub host: Arc<TestHost>,
    pub counts: Arc<Counts>,
    pub pages: [AtomicU64; PAGES],
    pub dirty: Mutex<BTreeSet<usize>>,
    /// How often the guest writes between two rounds, and is still to do so.
    pub writes: AtomicU32,
    /// Bytes that are sent with a page, to make it heavy.
    pub ballast: AtomicU32,
    pub postcopy: super::postcopy::PostcopyParts,
    /// For commands; a weak one, since the machine holds its devices.
    pub vm: std::sync::OnceLock<std::sync::Weak<Vm>>,
}

impl Ram {
    fn new(host: &Arc<TestHost>, counts: &Arc<Counts>, seed: u64) -> Self {
        Self {
            host: Arc::clone(host),
            counts: Arc::clone(counts),
            pages: std::array::from_fn(|at| AtomicU64::new(seed * (at as u64 + 1))),
            dirty: Mutex::new((0..PAGES).collect()),
            writes: AtomicU32::new(2),
            ballast: AtomicU32::new(0),
            postcopy: Default::default(),
            vm: std::sync::OnceLock::new(),
        }
    }

    pub fn postcopy_vm(&self) -> Arc<Vm> {
        self.vm.get().and_then(std::sync::Weak::upgrade).expect("the machine is there")
    }

    pub fn contents(&self) -> Vec<u64> {
        self.pages.iter().map(|page| page.load(SeqCst)).collect()
    }

    pub fn write_page(&self, page: usize) {
        self.pages[page].fetch_add(0x1_0001, SeqCst);
        self.dirty.lock().unwrap().insert(page);
    }

    pub fn put_page(&self, file: &MigFile, page: usize) {
        file.put_be32(page as u32);
        file.put_be64(self.pages[page].load(SeqCst));
        let ballast = self.ballast.load(SeqCst);
        file.put_be32(ballast);
        file.put(&vec![0; ballast as usize]);
    }

    /// Sends up to `most` dirty pages, those that were asked for first.
    fn put_dirty(&self, file: &MigFile, most: usize) -> bool {
        let mut sent = 0;
        while sent < most && !(file.rate_limit_reached() && sent > 0) {
            let requests_only = most != usize::MAX && self.postcopy.on_request_only.load(SeqCst);
            let next = || self.dirty.lock().unwrap().first().copied().filter(|_| !requests_only);
            let page = self.postcopy.take_request().or_else(next);
            let Some(page) = page else { break };
            if !self.dirty.lock().unwrap().remove(&page) {
                // It is on its way already.
                continue;
            }
            self.put_page(file, page);
            sent += 1;
        }
        file.put_be32(END_OF_PAGES);
        self.dirty.lock().unwrap().is_empty()
    }

    fn page_bytes(&self) -> u64 {
        16 + u64::from(self.ballast.load(SeqCst))
    }
}

impl Handler for super::Shared<Ram> {
    fn has(&self, callback: Callback) -> bool {
        !matches!(callback, Callback::SaveState | Callback::SavePostcopyPrepare)
    }
    fn has_postcopy(&self) -> bool {
        self.postcopy.enabled.load(SeqCst)
    }
    fn save_setup(&self, file: &MigFile) -> i32 {
        self.host.expect_lock(false, "save_setup");
        self.counts.save_setup.fetch_add(1, SeqCst);
        while self.postcopy.setup_waits.load(SeqCst) {
            thread::sleep(Duration::from_micros(100));
        }
        file.put_be32(PAGES as u32);
        *self.dirty.lock().unwrap() = (0..PAGES).collect();
        0
    }
    fn save_live_iterate(&self, file: &MigFile) -> i32 {
        self.host.expect_lock(false, "save_live_iterate");
        let done = self.put_dirty(file, 4);
        if self.host.is_running() && self.writes.load(SeqCst) > 0 {
            let number = self.writes.fetch_sub(1, SeqCst) as usize;
            self.write_page(number % PAGES);
        }
        i32::from(done)
    }
    fn save_live_pending(&self, _file: &MigFile, _threshold: u64, mut pending: Pending) -> Pending {
        self.host.expect_lock(false, "save_live_pending");
        let left = self.dirty.lock().unwrap().len() as u64 * self.page_bytes();
        pending.compatible += left;
        pending
    }
    fn save_live_complete_precopy(&self, file: &MigFile) -> i32 {
        self.host.expect_lock(true, "save_live_complete_precopy");
        self.put_dirty(file, usize::MAX);
        0
    }
    fn save_live_complete_postcopy(&self, file: &MigFile) -> i32 {
        self.host.expect_lock(true, "save_live_complete_postcopy");
        self.put_dirty(file, usize::MAX);
        0
    }
    fn save_cleanup(&self) {
        self.host.expect_lock(true, "save_cleanup");
        self.counts.save_cleanup.fetch_add(1, SeqCst);
    }
    fn load_setup(&self, _file: &MigFile) -> i32 {
        self.counts.load_setup.fetch_add(1, SeqCst);
        self.postcopy.started.store(false, SeqCst);
        0
    }
    fn load_cleanup(&self) -> i32 {
        self.counts.load_cleanup.fetch_add(1, SeqCst);
        0
    }
    fn save(&self, _file: &MigFile, _recorder: Option<&Recorder>) -> Result<()> {
        Err(Error::invalid("RAM is live"))
    }
    fn load(&self, file: &MigFile, _version: i32) -> Result<()> {
        let in_postcopy = self.postcopy.listening.load(SeqCst);
        self.host.expect_lock(!in_postcopy, "load of RAM");
        if file.peek_byte(3) == PAGES as u8 && file.peek_byte(0) == 0 && !self.postcopy.started.swap(true, SeqCst) {
            return if file.get_be32() == PAGES as u32 { Ok(()) } else { Err(Error::invalid("another size of RAM")) };
        }
        while file.error() == 0 {
            let page = file.get_be32();
            if page == END_OF_PAGES {
                return Ok(());
            }
            let value = file.get_be64();
            let ballast = file.get_be32() as usize;
            if page as usize >= PAGES || ballast > 1 << 20 {
                return Err(Error::invalid(format!("page {page} with {ballast} bytes of ballast")));
            }
            file.get(&mut vec![0; ballast]);
            if file.error() == 0 {
                self.pages[page as usize].store(value, SeqCst);
                self.postcopy.arrived(page as usize);
            }
        }
        file.status().first_error().map_or(Ok(()), Err)
    }
}

/// A device that is saved whole.
pub struct Device {
    pub host: Arc<TestHost>,
    pub counts: Arc<Counts>,
    pub state: AtomicU64,
    pub fail_load: AtomicBool,
    /// How many milliseconds its save takes, and its load. A test may shorten one that is in progress.
    pub slow: AtomicU32,
    /// The guest has not released it yet.
    pub plugged: AtomicBool,
    /// It reads all of this RAM while it loads.
    pub reads: Mutex<Option<Arc<Ram>>>,
}

/// A time for `Device::slow` that ends when the test sets another one.
pub const UNTIL_TOLD: u32 = u32::MAX;

impl Device {
    /// Takes as long as `slow` says.
    fn work(&self) {
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(self.slow.load(SeqCst).into()) {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Handler for super::Shared<Device> {
    fn has(&self, callback: Callback) -> bool {
        matches!(callback, Callback::SaveState | Callback::LoadState)
    }
    fn unplug_pending(&self) -> bool {
        self.plugged.load(SeqCst)
    }
    fn save(&self, file: &MigFile, recorder: Option<&Recorder>) -> Result<()> {
        self.host.expect_lock(true, "save_state");
        if self.host.is_running() {
            self.host.stage.violation("save_state with the guest running");
        }
        self.counts.saved.fetch_add(1, SeqCst);
        self.work();
        file.put_be64(self.state.load(SeqCst));
        if let Some(recorder) = recorder {
            recorder.legacy_buffer(8);
        }
        Ok(())
    }
    fn load(&self, file: &MigFile, _version: i32) -> Result<()> {
        self.host.expect_lock(true, "load_state");
        self.work();
        let state = file.get_be64();
        if self.fail_load.load(SeqCst) {
            return Err(Error::invalid("this device does not want to"));
        }
        file.status().first_error().map_or(Ok(()), Err)?;
        let ram = self.reads.lock().unwrap().take();
        if ram.is_some_and(|ram| !(0..PAGES).all(|page| ram.touch(page).is_some())) {
            return Err(Error::invalid("a page did not come"));
        }
        self.state.store(state, SeqCst);
        self.counts.loaded.fetch_add(1, SeqCst);
        Ok(())
    }
}

/// One side.
pub struct Machine {
    pub vm: Arc<Vm>,
    pub host: Arc<TestHost>,
    pub counts: Arc<Counts>,
    pub ram: Arc<Ram>,
    pub device: Arc<Device>,
}

impl Machine {
    fn new(name: &'static str, stage: &Arc<Stage>, running: bool, seed: u64) -> Self {
        let host = Arc::new(TestHost::new(name, stage, running));
        let counts = Arc::new(Counts::default());
        let vm = Arc::new(Vm::new(Arc::clone(&host) as _));
        let ram = Arc::new(Ram::new(&host, &counts, seed));
        ram.vm.set(Arc::downgrade(&vm)).unwrap();
        let device = Arc::new(Device {
            host: Arc::clone(&host),
            counts: Arc::clone(&counts),
            state: AtomicU64::new(seed),
            fail_load: AtomicBool::new(false),
            slow: AtomicU32::new(0),
            plugged: AtomicBool::new(false),
            reads: Mutex::default(),
        });
        vm.register(registration("ram", true, super::Shared(Arc::clone(&ram)))).unwrap();
        vm.register(registration("dev", false, super::Shared(Arc::clone(&device)))).unwrap();
        Self { vm, host, counts, ram, device }
    }

    /// Two sides of a migration: the first has the guest.
    pub fn two() -> (Self, Self, Arc<Stage>) {
        let stage = Arc::new(Stage::default());
        (Self::new("source", &stage, true, 1000), Self::new("destination", &stage, false, 0), stage)
    }

    /// One more side without a guest.
    pub fn third(stage: &Arc<Stage>) -> Self {
        Self::new("third", stage, false, 0)
    }

    /// Gives it one more device.
    pub fn with_early(self, left: u32) -> (Self, Arc<Early>) {
        let early = Arc::new(Early { left: AtomicU32::new(left) });
        self.vm.register(registration("early", true, super::Shared(Arc::clone(&early)))).unwrap();
        (self, early)
    }

    pub fn with_postcopy(self) -> Self {
        self.ram.postcopy.enabled.store(true, SeqCst);
        self.vm.slot.set_ram(Some(Arc::new(super::Shared(Arc::clone(&self.ram)))));
        self
    }

    /// What the guest sees.
    pub fn state(&self) -> (Vec<u64>, u64) {
        (self.ram.contents(), self.device.state.load(SeqCst))
    }

    pub fn check_balanced(&self, what: &str) {
        let count = |count: &AtomicU32| count.load(SeqCst);
        let c = &self.counts;
        // QEMU's engine calls `save_cleanup` of every handler after a setup.
        assert_eq!(count(&c.save_setup), count(&c.save_cleanup), "{what}: save_cleanup");
        // A wrong configuration section cleans up before there was a setup, as in QEMU.
        let (setup, cleanup) = (count(&c.load_setup), count(&c.load_cleanup));
        assert!(setup <= cleanup && cleanup <= setup.max(1), "{what}: load_setup {setup}, load_cleanup {cleanup}");
        assert!(!self.host.locked(), "{what}: the lock is still held");
    }
}

/// A live device that has to be through before the guest may be handed over with postcopy.
pub struct Early {
    pub left: AtomicU32,
}

impl Handler for super::Shared<Early> {
    fn has(&self, callback: Callback) -> bool {
        use Callback::{SaveLiveCompletePostcopy, SavePostcopyPrepare, SaveState};
        !matches!(callback, SaveState | SaveLiveCompletePostcopy | SavePostcopyPrepare)
    }
    fn save_setup(&self, file: &MigFile) -> i32 {
        file.put_be32(self.left.load(SeqCst));
        0
    }
    fn save_live_iterate(&self, file: &MigFile) -> i32 {
        // The test may set it meanwhile.
        let before = self.left.fetch_update(SeqCst, SeqCst, |left| Some(left.saturating_sub(1)));
        let left = before.map_or(0, |before| before.saturating_sub(1));
        file.put_be32(left);
        i32::from(left == 0)
    }
    fn save_live_pending(&self, _file: &MigFile, _threshold: u64, mut pending: Pending) -> Pending {
        pending.precopy_only += u64::from(self.left.load(SeqCst)) << 40;
        pending
    }
    fn save_live_complete_precopy(&self, file: &MigFile) -> i32 {
        file.put_be32(self.left.load(SeqCst));
        0
    }
    fn save(&self, _file: &MigFile, _recorder: Option<&Recorder>) -> Result<()> {
        Err(Error::invalid("it is live"))
    }
    fn load(&self, file: &MigFile, _version: i32) -> Result<()> {
        self.left.store(file.get_be32(), SeqCst);
        file.status().first_error().map_or(Ok(()), Err)
    }
}

/// A device of version 1 with the next free instance.
pub fn registration<H: Handler>(name: &str, is_live: bool, handler: H) -> Registration<H> {
    Registration {
        path: None,
        name: name.into(),
        instance_id: INSTANCE_ID_ANY,
        alias_id: -1,
        version_id: 1,
        is_live,
        registrant: Registrant { description: 0, opaque: 1 },
        handler,
    }
}

/// Progress must not go back.
#[derive(Default)]
pub struct Progress(Option<Info>);

impl Progress {
    pub fn look(&mut self, info: Info) {
        if let Some(before) = &self.0 {
            assert!(info.transferred >= before.transferred, "transferred went back");
            assert!(info.percent >= before.percent, "the percentage went back");
            assert!(info.rounds >= before.rounds && info.total_time >= before.total_time, "progress went back");
        }
        self.0 = Some(info);
    }
}
