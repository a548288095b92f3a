// SPDX-License-Identifier: LGPL-2.1-or-later
//! A device for tests: a script of answers, and a diary of calls.

use super::handler::{Callback, Handler, Pending, SaveThread};
use super::registry::{INSTANCE_ID_ANY, Registrant, Registration};
use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::vmstate::Recorder;
use std::sync::{Arc, Mutex};

/// Calls in their order, as "device: callback".
pub(super) type Diary = Arc<Mutex<Vec<String>>>;

pub(super) struct Device {
    pub name: &'static str,
    pub diary: Diary,
    pub callbacks: &'static [Callback],
    pub active: bool,
    pub active_iterate: bool,
    pub postcopy: bool,
    pub result: i32,
    pub priority: i32,
    pub early: bool,
    /// What `save` writes and `load` expects.
    pub state: &'static [u8],
    pub save_fails: bool,
    pub on_load_setup: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Default for Device {
    fn default() -> Self {
        Self {
            name: "device",
            diary: Diary::default(),
            callbacks: &[],
            active: true,
            active_iterate: true,
            postcopy: false,
            result: 1,
            priority: 0,
            early: false,
            state: b"",
            save_fails: false,
            on_load_setup: None,
        }
    }
}

impl Device {
    fn note(&self, callback: &str) -> i32 {
        self.diary.lock().unwrap().push(format!("{}: {callback}", self.name));
        self.result
    }

    pub fn registration(self) -> Registration<Self> {
        Registration {
            path: None,
            name: self.name.into(),
            instance_id: INSTANCE_ID_ANY,
            alias_id: -1,
            version_id: 1,
            is_live: self.callbacks.contains(&Callback::SaveSetup),
            registrant: Registrant { description: 0, opaque: 1 },
            handler: self,
        }
    }
}

impl Handler for Device {
    fn has(&self, callback: Callback) -> bool {
        self.callbacks.contains(&callback)
    }
    fn is_active(&self) -> bool {
        self.active
    }
    fn is_active_iterate(&self) -> bool {
        self.active_iterate
    }
    fn has_postcopy(&self) -> bool {
        self.postcopy
    }
    fn save_setup(&self, _file: &MigFile) -> i32 {
        self.note("setup")
    }
    fn save_live_iterate(&self, _file: &MigFile) -> i32 {
        self.note("iterate")
    }
    fn save_live_pending(&self, _file: &MigFile, threshold: u64, pending: Pending) -> Pending {
        self.note("pending");
        Pending { compatible: pending.compatible + threshold, ..pending }
    }
    fn save_live_complete_precopy(&self, _file: &MigFile) -> i32 {
        self.note("complete precopy")
    }
    fn save_live_complete_postcopy(&self, _file: &MigFile) -> i32 {
        self.note("complete postcopy")
    }
    fn save_cleanup(&self) {
        self.note("cleanup");
    }
    fn load_setup(&self, _file: &MigFile) -> i32 {
        if let Some(hook) = &self.on_load_setup {
            hook();
        }
        self.note("load setup")
    }
    fn load_cleanup(&self) -> i32 {
        self.note("load cleanup")
    }
    fn save_prepare(&self) -> Result<()> {
        match self.note("prepare") {
            0.. => Ok(()),
            code => Err(Error::from_callback("save_prepare", code)),
        }
    }
    fn switchover_ack_needed(&self) -> bool {
        self.callbacks.contains(&Callback::SwitchoverAckNeeded)
    }
    fn switchover_start(&self) -> i32 {
        self.note("switchover start")
    }
    fn save_thread(&self) -> Option<SaveThread> {
        let thread = SaveThread { function: 1, opaque: 2 };
        self.callbacks.contains(&Callback::SaveThread).then_some(thread)
    }
    fn load_state_buffer(&self, data: &mut [u8]) -> Result<()> {
        self.note(&format!("buffer of {}", data.len()));
        Ok(())
    }
    fn save_postcopy_prepare(&self, file: &MigFile) -> Result<()> {
        file.put(b"prepared");
        self.note("postcopy prepare");
        Ok(())
    }
    fn is_early(&self) -> bool {
        self.early
    }
    fn is_description(&self) -> bool {
        self.early
    }
    fn resume_prepare(&self, _migration: usize) -> i32 {
        self.note("resume")
    }
    fn save(&self, file: &MigFile, recorder: Option<&Recorder>) -> Result<()> {
        self.note("save");
        if self.save_fails {
            return Err(Error::new(libc::ENOMEM, "no memory for the state"));
        }
        file.put(self.state);
        if let Some(recorder) = recorder {
            recorder.legacy_buffer(self.state.len() as i64);
        }
        Ok(())
    }
    fn load(&self, file: &MigFile, version: i32) -> Result<()> {
        self.note(&format!("load v{version}"));
        let mut bytes = vec![0; self.state.len()];
        file.get(&mut bytes);
        if bytes == self.state { Ok(()) } else { Err(Error::invalid("other state than was saved")) }
    }
    fn priority(&self) -> i32 {
        self.priority
    }
}
