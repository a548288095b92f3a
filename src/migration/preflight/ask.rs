// SPDX-License-Identifier: LGPL-2.1-or-later
//! The source's side: sends the manifest and the layouts that are wanted, and returns the verdict.

use super::manifest::{Described, End};
use super::problems::{refusal, report_warnings};
use crate::error::{self, Error, Result, Side};
use crate::file::MigFile;
use crate::migration::core::Core;
use crate::migration::return_path::reader::Reader;
use crate::savevm::command;
use crate::savevm::host::{Level, with_big_lock};
use crate::wire::limits::{PREFLIGHT_DEVICES_MAX, PREFLIGHT_REQUEST_MAX};
use crate::wire::preflight::{Answer, Purpose, Request};

/// A request that a destination accepts. An error if it is too long.
struct Fitting(Vec<u8>);

impl Fitting {
    fn new(request: &Request) -> Result<Self> {
        let (bytes, limit) = (request.encode(), PREFLIGHT_REQUEST_MAX as usize);
        let devices = match request {
            Request::Manifest(manifest) => manifest.devices.len(),
            Request::Layouts(layouts) => layouts.len(),
            // The destination has the limit.
            Request::Rehearsal(_) => return Ok(Self(bytes)),
        };
        if bytes.len() > limit || devices > PREFLIGHT_DEVICES_MAX as usize {
            let text = format!(
                "the machine is too large for a preflight: {devices} devices in {}, the limits are {PREFLIGHT_DEVICES_MAX} and {}",
                error::size(bytes.len() as u64),
                error::size(limit as u64)
            );
            return Err(Error::new(libc::E2BIG, text));
        }
        Ok(Self(bytes))
    }
}

/// Sends a request and waits for its answer.
pub(super) fn request(core: &Core, file: &MigFile, reader: &Reader, request: &Request) -> Result<Answer> {
    exchange(core, file, reader, &Fitting::new(request)?)
}

fn exchange(core: &Core, file: &MigFile, reader: &Reader, Fitting(request): &Fitting) -> Result<Answer> {
    reader.expect_answer();
    command::preflight(&core.vm, file, request)?;
    file.check()?;
    let limit = core.params().handshake_timeout;
    let answer = core.wait_for("the destination's answer to the preflight", limit, || reader.answer())?;
    Answer::decode(&answer).map_err(|error| Error::invalid(error.to_string()).at_side(Side::Destination))
}

fn unexpected() -> Error {
    Error::invalid("preflight: an answer that is not expected").at_side(Side::Destination)
}

/// Asks the destination whether it accepts the guest. Fails with all problems if it does not. Reports the other ones to the
/// host.
pub(in crate::migration) fn ask(core: &Core, file: &MigFile, reader: &Reader, purpose: Purpose) -> Result<()> {
    let vm = &core.vm;
    let described = Described::new(vm, &core.params(), End::Source(purpose));
    let manifest = match Fitting::new(&Request::Manifest(described.manifest.clone())) {
        Err(error) if purpose == Purpose::Migrate => {
            vm.host().report(Level::Warning, &format!("no preflight: {}", error.message()));
            return Ok(());
        }
        manifest => manifest?,
    };
    let mut answer = exchange(core, file, reader, &manifest)?;
    if let Answer::Wanted(wanted) = answer {
        let layouts = layouts(core, &described, &wanted);
        answer = request(core, file, reader, &Request::Layouts(layouts))?;
    }
    let Answer::Verdict { passes, problems } = answer else { return Err(unexpected()) };
    let strict = core.params().strict;
    report_warnings(vm, &problems, strict);
    match passes {
        true => Ok(()),
        false => Err(refusal(libc::EREMOTEIO, "the destination can't load this guest", problems, strict)),
    }
}

/// The layouts of these devices, as far as they fit a request. An empty one is unknown.
fn layouts(core: &Core, described: &Described, wanted: &[u32]) -> Vec<Vec<u8>> {
    // A request names as many as it wants, and each takes four bytes.
    let wanted = &wanted[..wanted.len().min(described.manifest.devices.len())];
    let mut left = PREFLIGHT_REQUEST_MAX as usize - 16 - 4 * wanted.len().min(1 << 20);
    let vm = &core.vm;
    with_big_lock(&*vm.host(), || {
        let layout = |index: &u32| described.layout(vm, *index as usize, true).unwrap_or_default();
        let fitting = |layout: Vec<u8>| match left.checked_sub(layout.len()) {
            Some(rest) => {
                left = rest;
                layout
            }
            None => Vec::new(),
        };
        wanted.iter().map(layout).map(fitting).collect()
    })
}
