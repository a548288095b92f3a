// SPDX-License-Identifier: LGPL-2.1-or-later
//! The registry compared with the plain list that QEMU 7.2 searches.

use super::{INSTANCE_ID_ANY, Registrant, Registration, Registry, Rules};
use crate::savevm::priority;
use crate::savevm::testing::Device;
use proptest::prelude::*;

/// One device in the plain list, in order.
struct Plain {
    idstr: Vec<u8>,
    instance: u32,
    alias: i32,
    compat: Option<(Vec<u8>, i32)>,
    priority: i32,
    section: u32,
    opaque: usize,
}

#[derive(Default)]
struct List {
    devices: Vec<Plain>,
    next_section: u32,
}

impl List {
    fn register(&mut self, step: &Step) {
        let section = self.next_section;
        self.next_section += 1;
        let name = step.name();
        let mut idstr = name.clone();
        let mut compat = None;
        let mut instance = step.instance;
        if let Some(path) = step.path() {
            idstr = [&path[..], b"/", &name].concat();
            let next = self.devices.iter().filter_map(|other| other.compat.as_ref());
            let next = next.filter(|(other, _)| *other == name).map(|(_, id)| id + 1).fold(0, i32::max);
            let id = if instance == INSTANCE_ID_ANY { next } else { instance as i32 };
            compat = Some((name, id));
            instance = INSTANCE_ID_ANY;
        }
        if instance == INSTANCE_ID_ANY {
            let same = self.devices.iter().filter(|other| other.idstr == idstr);
            instance = same.map(|other| other.instance + 1).max().unwrap_or(0);
        }
        if compat.is_some() && instance != 0 {
            return;
        }
        let at = self.devices.iter().position(|other| other.priority < step.priority).unwrap_or(self.devices.len());
        let new =
            Plain { idstr, instance, alias: step.alias, compat, priority: step.priority, section, opaque: step.opaque };
        self.devices.insert(at, new);
    }

    fn find(&self, idstr: &[u8], instance: u32) -> Option<u32> {
        let matches = |name: &[u8], id: u32, alias: i32| name == idstr && (id == instance || alias as u32 == instance);
        self.devices
            .iter()
            .find(|one| {
                matches(&one.idstr, one.instance, one.alias)
                    || one.compat.as_ref().is_some_and(|(name, id)| matches(name, *id as u32, one.alias))
            })
            .map(|one| one.section)
    }
}

#[derive(Clone, Debug)]
struct Step {
    add: bool,
    name: u8,
    path: Option<u8>,
    instance: u32,
    alias: i32,
    priority: i32,
    opaque: usize,
}

impl Step {
    fn name(&self) -> Vec<u8> {
        vec![b'a' + self.name]
    }
    fn path(&self) -> Option<Vec<u8>> {
        self.path.map(|path| vec![b'0' + path])
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        prop::bool::weighted(0.7),
        0..3u8,
        prop::option::of(0..4u8),
        prop_oneof![Just(INSTANCE_ID_ANY), 0..4u32],
        prop_oneof![Just(-1), 0..3i32],
        0..=priority::MAX,
        0..3usize,
    );
    let step = step.prop_map(|(add, name, path, instance, alias, priority, opaque)| Step {
        add,
        name,
        path,
        instance,
        alias,
        priority,
        opaque,
    });
    prop::collection::vec(step, 1..40)
}

proptest! {
    #[test]
    fn registry_finds_and_orders_devices_as_a_plain_list(steps in steps()) {
        let (registry, mut list) = (Registry::default(), List::default());
        for step in &steps {
            if step.add {
                list.register(step);
                let device = Device { priority: step.priority, ..Device::default() };
                let new = Registration {
                    path: step.path(),
                    name: step.name(),
                    instance_id: step.instance,
                    alias_id: step.alias,
                    registrant: Registrant { description: 0, opaque: step.opaque },
                    ..device.registration()
                };
                // Whether it was refused shows in the comparison below.
                let _ = registry.register(new, Rules::default(), &mut Vec::new());
            } else {
                let idstr = step.path().map_or(step.name(), |path| [&path[..], b"/", &step.name()].concat());
                list.devices.retain(|one| one.idstr != idstr || one.opaque != step.opaque);
                registry.unregister_name(step.path().as_deref(), &step.name(), step.opaque);
            }
            let order: Vec<u32> = registry.walk().map(|call| call.section_id).collect();
            prop_assert_eq!(order, list.devices.iter().map(|one| one.section).collect::<Vec<_>>());
            for name in [&b"a"[..], b"b", b"0/a", b"1/b", b"c"] {
                for instance in [0, 1, 2, 3, u32::MAX] {
                    let found = registry.find(name, instance).map(|call| call.section_id);
                    prop_assert_eq!(found, list.find(name, instance), "{:?} {}", name, instance);
                }
            }
        }
    }
}

fn add(registry: &Registry, name: &'static str, opaque: usize) {
    let device = Device { name, ..Device::default() };
    let new = Registration { registrant: Registrant { description: 0, opaque }, ..device.registration() };
    registry.register(new, Rules::default(), &mut Vec::new()).unwrap();
}

#[test]
fn walk_visits_devices_added_behind_it_and_skips_removed_ones() {
    let registry = Registry::default();
    add(&registry, "a", 1);
    add(&registry, "b", 2);
    let mut seen = Vec::new();
    for call in registry.walk() {
        if seen.is_empty() {
            registry.unregister_name(None, b"b", 2);
            add(&registry, "c", 3);
        }
        seen.push(call.name());
    }
    assert_eq!(seen, ["a", "c"]);
}

#[test]
fn walk_continues_from_a_removed_device_and_its_place_is_reused() {
    let registry = Registry::default();
    for round in 0..100 {
        add(&registry, "a", 1);
        add(&registry, "b", 2);
        let (mut seen, mut other) = (Vec::new(), registry.walk());
        let first = other.next().map(|call| call.name());
        for call in registry.walk() {
            // The one that both walks stand on.
            registry.unregister_name(None, &call.idstr, call.registrant.opaque);
            if seen.len() < 3 {
                add(&registry, "c", 3 + seen.len());
            }
            seen.push(call.name());
        }
        assert_eq!((first.as_deref(), seen), (Some("a"), ["a", "b", "c", "c", "c"].map(String::from).to_vec()));
        assert!(other.next().is_none() && other.next().is_none(), "round {round}");
        drop(other);
        assert!(registry.is_empty());
    }
    assert!(registry.places() <= 5, "{} places", registry.places());
}

#[test]
fn ticket_finds_the_same_registration_or_none() {
    let registry = Registry::default();
    add(&registry, "a", 1);
    let ticket = registry.find(b"a", 0).unwrap().ticket();
    assert_eq!(registry.find_again(ticket).unwrap().name(), "a");
    registry.unregister_name(None, b"a", 1);
    assert!(registry.find_again(ticket).is_none());
    add(&registry, "a", 1);
    assert!(registry.find_again(ticket).is_none());
}

#[test]
fn long_name_is_cut_at_255_bytes_or_rejected_if_strict() {
    let registry = Registry::default();
    let long = || Registration { name: vec![b'x'; 300], ..Device::default().registration() };
    let mut warnings = Vec::new();
    registry.register(long(), Rules::default(), &mut warnings).unwrap();
    assert_eq!((warnings.len(), registry.walk().next().unwrap().idstr.len()), (1, 255));
    assert_eq!(
        registry.register(long(), Rules { strict: true, ..Rules::default() }, &mut warnings).unwrap_err().errno(),
        libc::ENAMETOOLONG
    );
}
