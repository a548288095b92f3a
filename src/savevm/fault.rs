// SPDX-License-Identifier: LGPL-2.1-or-later
//! Fault points: steps of the engine and the driver at which tests provoke a panic.
//!
//! A step is marked by a statement, `vm.fault_point(FaultPoint::Section)`. It compiles to nothing outside the unit
//! tests of this crate. `src/ffi/panic_tests` provokes a panic at every passage of every point.

/// A kind of step that can fail in tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultPoint {
    /// An exported function begins.
    Call,
    /// A device is registered.
    Register,
    /// A phase of saving begins, or the load loop reads a header, a package or a command.
    Engine,
    /// A section is saved or loaded.
    Section,
    /// A device is saved whole.
    Device,
    /// The cleanup callbacks are about to be called.
    Cleanup,
    /// The migration driver does its next step.
    Driver,
    /// The source reads a message of the return path.
    ReturnPath,
    /// The destination loads a package on a thread of its own.
    Package,
    /// Either side recovers a postcopy.
    Recovery,
    /// A running snapshot handles a write of the guest.
    WriteFault,
    /// A postcopy destination handles an access of the guest.
    PageFault,
}

/// The fault that a test has armed: the point and how many passages of it stay without a panic.
#[cfg(test)]
#[derive(Default)]
pub struct Faults(std::sync::Mutex<Option<(FaultPoint, u32)>>);

#[cfg(test)]
impl Faults {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(FaultPoint, u32)>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Arms a panic at `point` after `passes` passages.
    pub fn set(&self, point: FaultPoint, passes: u32) {
        *self.lock() = Some((point, passes));
    }

    /// Disarms the fault. Returns whether it was still armed.
    pub fn clear(&self) -> bool {
        self.lock().take().is_some()
    }

    /// Panics if a fault is armed for this passage of `point`.
    pub fn pass(&self, point: FaultPoint) {
        let mut armed = self.lock();
        match &mut *armed {
            Some((at, 0)) if *at == point => *armed = None,
            Some((at, passes)) if *at == point => return *passes -= 1,
            _ => return,
        }
        drop(armed);
        panic!("provoked in {point:?}");
    }
}
