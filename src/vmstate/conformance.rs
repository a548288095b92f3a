// SPDX-License-Identifier: LGPL-2.1-or-later
//! The device check for device authors. It checks that a device loads what it saved, and that it rejects or survives
//! cut and damaged streams.
//!
//! A device is anything that saves itself to bytes and loads itself from bytes. `src/ffi/vmstate/check.rs` makes one of
//! a registered device. Crashes are not caught, so run the check under a sanitizer.

pub use super::lint::{Finding, Severity, lint};
use crate::error::Error;

/// The result of a load.
pub struct Loaded {
    /// The error of the device, or of its file.
    pub error: Option<Error>,
    /// Number of bytes that the device read.
    pub read: usize,
}

/// A device to check.
pub trait CheckedDevice {
    /// Saves the device without changing it.
    fn save(&self) -> Result<Vec<u8>, Error>;
    /// Loads the device from a section with these bytes. Bytes of a footer follow, unless the stream is cut.
    fn load(&self, bytes: &[u8], cut: bool) -> Loaded;
}

/// Makes devices.
pub trait DeviceFactory {
    /// Makes a new device of the same kind, calls `body` with it and destroys it. Returns false if there is no device.
    fn with_new(&self, body: &mut dyn FnMut(&dyn CheckedDevice)) -> bool;
}

/// Extent of a check.
#[derive(Clone, Copy, Debug)]
pub struct CheckOptions {
    /// Number of lengths to which a stream is cut: every length if the stream is not longer, else evenly spread ones.
    pub truncations: usize,
    /// Number of streams with damaged bytes that are loaded.
    pub damages: usize,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { truncations: 4096, damages: 4096 }
    }
}

/// Why a check cannot be done.
#[derive(Debug)]
pub enum CheckError {
    /// No new device could be made.
    NoDevice,
}

/// Checks a device. Each finding goes to `report` at once.
pub fn check(
    original: &dyn CheckedDevice,
    factory: &dyn DeviceFactory,
    options: CheckOptions,
    report: &mut dyn FnMut(Finding),
) -> Result<(), CheckError> {
    let stream = match original.save() {
        Ok(stream) => stream,
        Err(error) => {
            report(Finding::new(Severity::Error, format!("saving failed: {error}")));
            return Ok(());
        }
    };
    let mut check = Check { factory, stream: &stream, report };
    check.save_again(original)?;
    if check.round_trip()? {
        let cut = check.truncations(options.truncations)?;
        let damaged = check.damages(options.damages)?;
        let text = format!("{} bytes; {cut}; {damaged}", stream.len());
        (check.report)(Finding::new(Severity::Note, text));
    }
    Ok(())
}

struct Check<'a> {
    factory: &'a dyn DeviceFactory,
    stream: &'a [u8],
    report: &'a mut dyn FnMut(Finding),
}

impl Check<'_> {
    fn add(&mut self, severity: Severity, text: String) {
        (self.report)(Finding::new(severity, text));
    }

    fn with_new<T>(&self, body: impl FnOnce(&dyn CheckedDevice) -> T) -> Result<T, CheckError> {
        let (mut body, mut result) = (Some(body), None);
        self.factory.with_new(&mut |device| result = body.take().map(|body| body(device)));
        result.ok_or(CheckError::NoDevice)
    }

    /// Returns the place of a byte in the stream: the path at which a load of a stream that ends there fails.
    fn place(&self, at: usize) -> Result<String, CheckError> {
        let cut = self.with_new(|device| device.load(&self.stream[..at], true))?;
        let path = cut.error.and_then(|error| error.path());
        Ok(path.map_or_else(|| format!("byte {at}"), |path| format!("byte {at}, {path},")))
    }

    fn save_again(&mut self, original: &dyn CheckedDevice) -> Result<(), CheckError> {
        match original.save() {
            Ok(again) if again == self.stream => {}
            Ok(again) => {
                let text = self.difference(&again)?;
                self.add(Severity::Error, format!("two saves of the unchanged device differ: {text}"));
            }
            Err(error) => self.add(Severity::Error, format!("saving a second time failed: {error}")),
        }
        Ok(())
    }

    /// Describes how another stream differs.
    fn difference(&self, other: &[u8]) -> Result<String, CheckError> {
        let common = self.stream.iter().zip(other).take_while(|(one, other)| one == other).count();
        match (self.stream.get(common), other.get(common)) {
            (Some(one), Some(other)) => {
                Ok(format!("{} is {one:#04x} in the first and {other:#04x} in the second", self.place(common)?))
            }
            _ => Ok(format!("the first has {} bytes, the second {}", self.stream.len(), other.len())),
        }
    }

    /// Checks that a new device loads the stream. Returns whether further checks make sense.
    fn round_trip(&mut self) -> Result<bool, CheckError> {
        let (loaded, saved) = self.with_new(|device| (device.load(self.stream, false), device.save()))?;
        if let Some(error) = loaded.error {
            self.add(Severity::Error, format!("a new device fails to load the saved state: {error}"));
            return Ok(false);
        }
        if loaded.read != self.stream.len() {
            let text = format!("a new device reads {} of the {} bytes that were saved", loaded.read, self.stream.len());
            self.add(Severity::Error, text);
        }
        match saved {
            Ok(again) if again == self.stream => {}
            Ok(again) => {
                let text = self.difference(&again)?;
                self.add(Severity::Error, format!("the state changes when a new device loads and saves it: {text}"));
            }
            Err(error) => self.add(Severity::Error, format!("a new device fails to save the loaded state: {error}")),
        }
        Ok(true)
    }

    fn truncations(&mut self, most: usize) -> Result<String, CheckError> {
        let total = self.stream.len();
        let count = most.min(total);
        let mut taken = Vec::new();
        for at in 0..count {
            let len = at * total / count;
            if self.with_new(|device| device.load(&self.stream[..len], true).error.is_none())? {
                taken.push(len);
            }
        }
        if let Some(first) = taken.first() {
            let text = format!(
                "{} of {count} cut streams load without an error, the shortest after {first} of {total} bytes",
                taken.len()
            );
            self.add(Severity::Error, text);
        }
        Ok(format!("{} of {count} cut streams rejected", count - taken.len()))
    }

    fn damages(&mut self, most: usize) -> Result<String, CheckError> {
        let count = if self.stream.is_empty() { 0 } else { most };
        let mut rejected = 0;
        for number in 0..count {
            let stream = damaged(self.stream, number);
            if self.with_new(|device| device.load(&stream, false).error.is_some())? {
                rejected += 1;
            }
        }
        Ok(format!("{count} damaged streams loaded, {rejected} of them rejected"))
    }
}

/// Returns the stream with some bytes changed. The same number changes the same bytes.
fn damaged(stream: &[u8], number: usize) -> Vec<u8> {
    let mut state = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut damaged = stream.to_vec();
    // Usually one change, sometimes several: a damaged count may need damaged elements too.
    for _ in 0..=next(8).saturating_sub(4) {
        let at = next(damaged.len());
        damaged[at] = match next(6) {
            0 => 0,
            1 => 0xff,
            2 => 0x7f,
            3 => 0x80,
            4 => damaged[at] ^ (1 << next(8)),
            _ => next(256) as u8,
        };
    }
    damaged
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// A device with one counted string and at most one flaw.
    #[derive(Clone, Copy, PartialEq)]
    enum Flaw {
        None,
        KeepsNothing,
        Unstable,
        Short,
        AcceptsCuts,
        Refuses,
    }

    struct Device {
        flaw: Flaw,
        text: RefCell<Vec<u8>>,
        saves: RefCell<u8>,
    }

    impl CheckedDevice for Device {
        fn save(&self) -> Result<Vec<u8>, Error> {
            let mut text = self.text.borrow().clone();
            *self.saves.borrow_mut() += 1;
            if self.flaw == Flaw::Unstable {
                text[0] = *self.saves.borrow();
            }
            Ok([&[text.len() as u8][..], &text].concat())
        }

        fn load(&self, bytes: &[u8], cut: bool) -> Loaded {
            let len = bytes.first().copied().map_or(0, usize::from);
            let footer: &[u8] = if cut { &[] } else { &[0; 300] };
            let stream = [bytes, footer].concat();
            let text = stream.get(1..1 + len);
            if self.flaw == Flaw::Refuses {
                return Loaded { error: Some(Error::invalid("no").in_path("text")), read: 0 };
            }
            if self.flaw != Flaw::KeepsNothing {
                *self.text.borrow_mut() = text.unwrap_or_default().to_vec();
            }
            let failed = (bytes.is_empty() || text.is_none()) && self.flaw != Flaw::AcceptsCuts;
            let error = failed.then(|| Error::new(libc::EIO, "the stream ends").in_path("text").in_path("string"));
            Loaded { error, read: len + usize::from(self.flaw != Flaw::Short) }
        }
    }

    struct Factory(Flaw);

    fn device(flaw: Flaw, text: &[u8]) -> Device {
        Device { flaw, text: RefCell::new(text.to_vec()), saves: RefCell::new(0) }
    }

    impl DeviceFactory for Factory {
        fn with_new(&self, body: &mut dyn FnMut(&dyn CheckedDevice)) -> bool {
            body(&device(self.0, b"?"));
            true
        }
    }

    fn findings(flaw: Flaw) -> Vec<String> {
        let mut found = Vec::new();
        let options = CheckOptions { truncations: 100, damages: 50 };
        check(&device(flaw, b"hello"), &Factory(flaw), options, &mut |finding| found.push(finding.text)).unwrap();
        found
    }

    #[test]
    fn sound_device_has_only_a_note() {
        let found = findings(Flaw::None);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("6 bytes; 6 of 6 cut streams rejected; 50 damaged streams loaded, "), "{found:?}");
    }

    #[test]
    fn each_flaw_is_reported() {
        assert_eq!(
            findings(Flaw::KeepsNothing)[0],
            "the state changes when a new device loads and saves it: \
             byte 0, string/text, is 0x05 in the first and 0x01 in the second"
        );
        assert!(
            findings(Flaw::Unstable)[0]
                .starts_with("two saves of the unchanged device differ: byte 1, string/text, is 0x01 in the first")
        );
        assert_eq!(findings(Flaw::Short)[0], "a new device reads 5 of the 6 bytes that were saved");
        assert_eq!(
            findings(Flaw::AcceptsCuts)[0],
            "6 of 6 cut streams load without an error, the shortest after 0 of 6 bytes"
        );
        assert!(findings(Flaw::Refuses)[0].starts_with("a new device fails to load the saved state: text: no"));
    }

    struct Nobody;

    impl DeviceFactory for Nobody {
        fn with_new(&self, _body: &mut dyn FnMut(&dyn CheckedDevice)) -> bool {
            false
        }
    }

    #[test]
    fn check_without_a_second_device_fails() {
        let result = check(&device(Flaw::None, b"x"), &Nobody, CheckOptions::default(), &mut |_| {});
        assert!(matches!(result, Err(CheckError::NoDevice)));
    }

    #[test]
    fn damage_is_repeatable_and_keeps_the_length() {
        let stream = [0x55; 40];
        for number in 0..100 {
            let one = damaged(&stream, number);
            assert_eq!((one.len(), &one), (40, &damaged(&stream, number)));
        }
        assert!((0..100).filter(|number| damaged(&stream, *number) != stream).count() > 90);
    }
}
