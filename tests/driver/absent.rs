// SPDX-License-Identifier: LGPL-2.1-or-later
//! Devices that are registered at the destination and absent from the stream.

use super::link::{Break, fragile};
use super::machine::Machine;
use super::precopy::{Run, check_moved, check_stayed, quick};
use super::rest::scratch;
use savevm::channel::Uri;
use savevm::migration::{Owner, Params, SnapshotOptions, snapshot_load, snapshot_save};

const TEXT: &str = "registered here and absent from the stream: 'early' 0";

fn warnings(machine: &Machine) -> usize {
    machine.host.reports.lock().unwrap().iter().filter(|text| text.contains(TEXT)).count()
}

#[test]
fn an_absent_device_is_a_warning() {
    for extensions in [true, false] {
        let (source, destination, stage) = Machine::two();
        let (destination, _early) = destination.with_early(0);
        let params = Params { extensions, ..quick() };
        let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (params, quick()));
        run.wait("absent").0.unwrap();
        check_moved(&source, &destination, &stage, "absent");
        assert_eq!(warnings(&destination), 1);
    }
}

#[test]
fn a_strict_destination_refuses_before_the_source_gives_the_guest_up() {
    let (source, destination, stage) = Machine::two();
    let (destination, _early) = destination.with_early(0);
    let strict = Params { strict: true, preflight: false, ..quick() };
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (quick(), strict));
    let (out, into) = run.wait("strict");
    assert!(into.unwrap_err().message().contains(TEXT));
    assert!(out.unwrap_err().message().contains(TEXT), "the source hears the reason");
    assert_eq!(source.vm.ownership.owner(), Owner::Here);
    check_stayed(&source, &destination, &stage, "strict");
}

#[test]
fn a_strict_context_refuses_an_incomplete_snapshot() {
    let (source, destination, _stage) = Machine::two();
    let path = scratch("absent");
    let uri = Uri::File { path: path.clone(), offset: 0 };
    snapshot_save(&source.vm, &uri, &SnapshotOptions::default()).unwrap();
    let (destination, _early) = destination.with_early(0);
    snapshot_load(&destination.vm, &uri, &SnapshotOptions::default()).unwrap();
    assert_eq!(warnings(&destination), 1);
    destination.vm.set_strict(true);
    assert!(snapshot_load(&destination.vm, &uri, &SnapshotOptions::default()).unwrap_err().message().contains(TEXT));
    assert_eq!(destination.vm.ownership.owner(), Owner::Torn);
    std::fs::remove_file(path).unwrap();
}
