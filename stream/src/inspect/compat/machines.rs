// SPDX-License-Identifier: LGPL-2.1-or-later
//! Compares two machines by their manifests, before a migration: what the source will send with what this side loads.

use std::collections::HashMap;

use super::super::stream::Device;
use super::{Finding, Findings, Severity};
use crate::wire::preflight::{self as wire, Manifest};
use crate::wire::uuid_text;

/// The settings of a source that a destination compares. Unknown names are ignored.
pub mod settings {
    /// Postcopy may follow: 0 or 1.
    pub const POSTCOPY: &[u8] = b"postcopy";
    /// The nesting of the most deeply nested description.
    pub const NESTING: &[u8] = b"nesting";
    /// Whether the host knows its blocks' guest addresses and does not send shared ones: 0 or 1.
    pub const IGNORE_SHARED: &[u8] = b"ignore-shared";
    /// The value of the PING that announces connections and compression. `machines` leaves it to the driver.
    pub const CONNECTIONS: &[u8] = b"connections";
    /// Whether a footer follows each section: 0 or 1.
    pub const FOOTERS: &[u8] = b"footers";
    /// Whether a source sends SWITCHOVER_START, and whether a destination understands it: 0 or 1.
    pub const SWITCHOVER_START: &[u8] = b"switchover-start";
    /// Whether a source waits for the approval of the switchover, and whether a destination sends it: 0 or 1.
    pub const SWITCHOVER_ACK: &[u8] = b"switchover-ack";
    /// The source wants what only the destination has to be an error: 1.
    pub const STRICT: &[u8] = b"strict";
}

/// Settings of the switchover that the source has and this side needs, and the problem if it has not.
const SWITCHOVER: [(&[u8], &str); 2] = [
    (
        settings::SWITCHOVER_START,
        "the source sends SWITCHOVER_START, which this side does not understand: give this side the semantics of QEMU 10.0 or newer \
         (savevm_set_abi()), or have the source not send it (SAVEVM_FLAG_NO_SWITCHOVER_START)",
    ),
    (
        settings::SWITCHOVER_ACK,
        "the source waits for the approval of the switchover, which this side does not send: SAVEVM_FLAG_SWITCHOVER_ACK has to be \
         the same on both sides",
    ),
];

/// The comparison of two machines.
#[derive(Debug, Default)]
pub struct Machines {
    /// What was found.
    pub findings: Vec<Finding>,
    /// Devices that both have, whose layouts differ: index at the source, index here.
    pub differing: Vec<(usize, usize)>,
}

/// Compares the machine of a source with the one here. Devices that only this side has are warnings, or errors if
/// `strict`.
pub fn machines(source: &Manifest, here: &Manifest, strict: bool) -> Machines {
    let mut findings = Findings::default();
    let extra = if strict { Severity::Error } else { Severity::Warning };
    configuration(source.machine.as_ref(), here.machine.as_ref(), &mut findings);
    compare_settings(source, here, &mut findings);
    if let (Some(have), Some(wanted)) = (&source.ram, &here.ram) {
        ram(have, wanted, postcopy(source), &mut findings);
    }
    let differing = devices(source, here, extra, &mut findings);
    Machines { findings: findings.finish(), differing }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn device(device: &wire::Device) -> Device {
    Device { name: text(&device.name).into(), instance: device.instance }
}

fn setting(manifest: &Manifest, name: &[u8]) -> Option<u64> {
    manifest.settings.iter().find(|setting| setting.name == name).map(|setting| setting.value)
}

fn postcopy(manifest: &Manifest) -> bool {
    setting(manifest, settings::POSTCOPY) == Some(1)
}

fn configuration(have: Option<&wire::Machine>, wanted: Option<&wire::Machine>, findings: &mut Findings) {
    let (have, wanted) = match (have, wanted) {
        (Some(have), Some(wanted)) => (have, wanted),
        (None, None) => return,
        (Some(_), None) => return findings.error("the stream has a configuration section, the machine expects none"),
        (None, Some(_)) => return findings.error("the stream has no configuration section, the machine expects one"),
    };
    findings.machine(Some(&text(&have.name)), Some(&text(&wanted.name)));
    findings.page_size(1 << have.page_bits.min(62), 1 << wanted.page_bits.min(62));
    let names = |machine: &wire::Machine| machine.capabilities.iter().map(|name| text(name)).collect::<Vec<_>>();
    let (sent, known) = (names(have), names(wanted));
    let [sent, known] = [&sent, &known].map(|names| names.iter().map(String::as_str).collect::<Vec<_>>());
    findings.capabilities(&sent, &known);
    match (have.uuid, wanted.uuid) {
        (Some(have), Some(wanted)) if have != wanted => {
            findings.error(format!("the UUID is {}, the machine's is {}", uuid_text(&have), uuid_text(&wanted)));
        }
        (Some(have), None) => findings.note(format!("the UUID is {}, the machine has none", uuid_text(&have))),
        _ => {}
    }
}

/// Compares the settings that the source named. Those of this side are what it allows.
fn compare_settings(source: &Manifest, here: &Manifest, findings: &mut Findings) {
    if postcopy(source) && !postcopy(here) {
        findings.error("postcopy is enabled at the source and not on this side");
    }
    let (have, wanted) = (setting(source, settings::IGNORE_SHARED), setting(here, settings::IGNORE_SHARED));
    if let (Some(have), Some(wanted)) = (have, wanted) {
        if have != wanted {
            let state = |on| if on == 1 { "on" } else { "off" };
            let (have, wanted) = (state(have), state(wanted));
            findings.error(format!("leaving out shared memory is {have} at the source and {wanted} on this side"));
        }
    }
    if let (Some(have), Some(wanted)) = (setting(source, settings::FOOTERS), setting(here, settings::FOOTERS)) {
        if have != wanted {
            findings.error(match have {
                0 => "the sections of the stream have no footers, which the machine expects",
                _ => "the sections of the stream have footers, which the machine does not expect",
            });
        }
    }
    for (name, message) in SWITCHOVER {
        if (setting(source, name), setting(here, name)) == (Some(1), Some(0)) {
            findings.error(message);
        }
    }
    if let (Some(have), Some(limit)) = (setting(source, settings::NESTING), setting(here, settings::NESTING)) {
        if have > limit {
            findings.error(format!("{have} levels of nested descriptions, the limit of this side is {limit}"));
        }
    }
}

fn ram(have: &[wire::RamBlock], wanted: &[wire::RamBlock], postcopy: bool, findings: &mut Findings) {
    let names = |blocks: &[wire::RamBlock]| -> Vec<(String, u64)> {
        blocks.iter().map(|block| (text(&block.name), block.length)).collect()
    };
    let (ours, theirs) = (names(have), names(wanted));
    let [ours, theirs] =
        [&ours, &theirs].map(|blocks| blocks.iter().map(|(name, length)| (name.as_str(), *length)).collect::<Vec<_>>());
    // The library's RAM loads no stream that lacks one of its blocks.
    findings.ram_blocks(&ours, &theirs, Severity::Error);
    let known: HashMap<&[u8], &wire::RamBlock> = wanted.iter().map(|block| (&*block.name, block)).collect();
    for block in have {
        let Some(known) = known.get(&*block.name) else { continue };
        findings.within(&format!("RAM block {}", text(&block.name)), |findings| {
            if block.page_size != known.page_size && postcopy {
                let (size, wanted) = (block.page_size, known.page_size);
                findings
                    .error(format!("host pages of {size} bytes, the machine's have {wanted}: postcopy needs the same"));
            }
            if block.ignored != known.ignored {
                findings.error(match block.ignored {
                    true => "it is shared and not sent, and the machine's is not shared",
                    false => "it is sent, and the machine's is shared and not sent",
                });
            }
            if block.ignored && known.ignored && block.address != known.address {
                let (have, wanted) = (block.address, known.address);
                findings.error(format!("at guest address {have:#x}, the machine's is at {wanted:#x}"));
            }
        });
    }
}

/// Compares the devices. Returns those whose layouts differ.
fn devices(source: &Manifest, here: &Manifest, extra: Severity, findings: &mut Findings) -> Vec<(usize, usize)> {
    let index = Index::new(here);
    let mut differing = Vec::new();
    let mut found = vec![false; here.devices.len()];
    for (at, sent) in source.devices.iter().enumerate() {
        findings.about(&device(sent), |findings| {
            let Some(other) = index.find(&sent.name, sent.instance) else {
                return match sent.is_sent {
                    true => findings.error(index.missing(&sent.name)),
                    false => findings.warning(index.missing(&sent.name) + "; it is not sent in every stream"),
                };
            };
            found[other] = true;
            let known = &here.devices[other];
            if !known.is_loaded {
                return findings.error("the machine's device can't be loaded");
            }
            findings.version(sent.version.into(), known.version.into());
            findings.oldest_version(sent.version.into(), known.oldest.into());
            match (sent.digest, known.digest) {
                (0, 0) => {}
                (0, _) => findings.note("it is saved by a function: its layout can't be compared"),
                (_, 0) => findings.note("the machine loads it by a function: its layout can't be compared"),
                (have, wanted) if have != wanted => differing.push((at, other)),
                _ => {}
            }
        });
    }
    for (known, _) in here.devices.iter().zip(&found).filter(|(known, found)| known.is_sent && !**found) {
        findings.about(&device(known), |findings| {
            findings.add(extra, "the stream does not have it; it stays as after a reset");
        });
    }
    differing
}

/// Finds the devices here as the loader does.
struct Index<'a> {
    by_name: HashMap<(&'a [u8], u32), usize>,
    by_older_name: HashMap<(&'a [u8], u32), usize>,
    instances: HashMap<&'a [u8], Vec<u32>>,
}

impl<'a> Index<'a> {
    fn new(here: &'a Manifest) -> Self {
        let mut index = Self { by_name: HashMap::new(), by_older_name: HashMap::new(), instances: HashMap::new() };
        for (at, device) in here.devices.iter().enumerate() {
            index.by_name.entry((&device.name, device.instance)).or_insert(at);
            index.instances.entry(&device.name).or_default().push(device.instance);
        }
        // An alias does not hide a device.
        for (at, device) in here.devices.iter().enumerate() {
            index.by_name.entry((&device.name, device.alias)).or_insert(at);
            if !device.compat_name.is_empty() {
                for instance in [device.compat_instance, device.alias] {
                    index.by_older_name.entry((&device.compat_name, instance)).or_insert(at);
                }
            }
        }
        index
    }

    fn find(&self, name: &[u8], instance: u32) -> Option<usize> {
        self.by_name.get(&(name, instance)).or_else(|| self.by_older_name.get(&(name, instance))).copied()
    }

    /// Returns the text for a device that is not here.
    fn missing(&self, name: &[u8]) -> String {
        match self.instances.get(name) {
            None => "the machine has no such device".into(),
            Some(known) => {
                let list: Vec<_> = known.iter().take(8).map(u32::to_string).collect();
                format!("the machine has no such instance, only {}", list.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dev(name: &str, instance: u32) -> wire::Device {
        wire::Device {
            name: name.into(),
            instance,
            version: 2,
            oldest: 1,
            alias: u32::MAX,
            is_sent: true,
            is_loaded: true,
            digest: 7,
            ..Default::default()
        }
    }

    fn block(name: &str) -> wire::RamBlock {
        wire::RamBlock { name: name.into(), length: 4096, page_size: 4096, ..Default::default() }
    }

    fn machine() -> Manifest {
        let configuration = wire::Machine {
            name: b"pc".to_vec(),
            page_bits: 12,
            uuid: Some([1; 16]),
            capabilities: vec![b"x".to_vec()],
        };
        Manifest {
            machine: Some(configuration),
            settings: vec![wire::Setting { name: settings::POSTCOPY.to_vec(), value: 0 }],
            ram: Some(vec![block("pc.ram")]),
            devices: vec![dev("nic", 0), dev("nic", 1), dev("timer", 0)],
            ..Manifest::default()
        }
    }

    fn found(source: &Manifest, here: &Manifest, strict: bool) -> Vec<String> {
        machines(source, here, strict)
            .findings
            .iter()
            .map(|finding| format!("{} {finding}", finding.severity.name()))
            .collect()
    }

    /// The findings after a change of the machine here.
    fn changed(change: impl FnOnce(&mut Manifest)) -> Vec<String> {
        let mut here = machine();
        change(&mut here);
        found(&machine(), &here, false)
    }

    #[test]
    fn equal_machines_have_no_findings() {
        let all = machines(&machine(), &machine(), true);
        assert!(all.findings.is_empty() && all.differing.is_empty(), "{:?}", all.findings);
    }

    #[test]
    fn each_difference_of_the_configuration_is_found() {
        let found = changed(|here| {
            let machine = here.machine.as_mut().unwrap();
            (machine.name, machine.page_bits, machine.uuid) = (b"q35".to_vec(), 14, Some([2; 16]));
            machine.capabilities = vec![b"y".to_vec()];
        });
        assert_eq!(
            found,
            [
                "error the stream is of machine pc, not q35",
                "error pages of 4096 bytes, the machine's have 16384",
                "error the capability x is on in the stream alone",
                "error the capability y is off in the stream alone",
                "error the UUID is 01010101-0101-0101-0101-010101010101, the machine's is \
                 02020202-0202-0202-0202-020202020202",
            ]
        );
        assert!(changed(|here| here.machine = None)[0].contains("the machine expects none"));
    }

    #[test]
    fn each_difference_of_ram_is_found() {
        let found = changed(|here| here.ram.as_mut().unwrap()[0].length = 8192);
        assert_eq!(found, ["error RAM block pc.ram: 4 KiB (0x1000 bytes), the machine's has 8 KiB (0x2000 bytes)"]);
        let renamed = changed(|here| here.ram.as_mut().unwrap()[0].name = b"ram".to_vec());
        assert!(renamed[0].ends_with("the machine has no such block") && renamed[1].starts_with("error RAM block ram"));
        let shared = changed(|here| here.ram.as_mut().unwrap()[0].ignored = true);
        assert!(shared[0].contains("it is sent, and the machine's is shared"));
        let huge = |here: &mut Manifest| here.ram.as_mut().unwrap()[0].page_size = 2 << 20;
        assert_eq!(changed(huge), [""; 0]);
        let (mut source, mut here) = (machine(), machine());
        source.settings[0].value = 1;
        assert!(found_one(&source, &here).contains("postcopy is enabled at the source"));
        here.settings[0].value = 1;
        huge(&mut here);
        assert!(found_one(&source, &here).contains("host pages of 4096 bytes, the machine's have 2097152"));
    }

    fn found_one(source: &Manifest, here: &Manifest) -> String {
        let found = found(source, here, false);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    }

    #[test]
    fn each_difference_of_devices_is_found() {
        let found = changed(|here| {
            here.devices[0].version = 1;
            here.devices[1].instance = 5;
            here.devices[2].oldest = 3;
        });
        assert_eq!(
            found,
            [
                "error 'nic' instance 0: version 2 is too new, the machine knows 1",
                "error 'nic' instance 1: the machine has no such instance, only 0, 5",
                "error 'timer' instance 0: version 2 is too old, the machine knows 3 and later",
                "warning 'nic' instance 5: the stream does not have it; it stays as after a reset",
            ]
        );
        let mut here = machine();
        here.devices.push(dev("more", 0));
        assert!(self::found(&machine(), &here, true)[0].starts_with("error 'more' instance 0"));
        here.devices[0].digest = 8;
        assert_eq!(machines(&machine(), &here, false).differing, [(0, 0)]);
    }

    #[test]
    fn aliases_and_older_names_are_found() {
        let mut here = machine();
        here.devices[1] = wire::Device { alias: 1, ..dev("nic", 9) };
        here.devices[2] = wire::Device { compat_name: b"timer".to_vec(), compat_instance: 0, ..dev("/path/timer", 0) };
        assert_eq!(found(&machine(), &here, true), [""; 0]);
    }

    #[test]
    fn what_is_not_sent_now_is_a_warning() {
        let mut source = machine();
        source.devices[2].is_sent = false;
        let mut here = machine();
        here.devices.pop();
        assert!(
            found_one(&source, &here)
                .starts_with("warning 'timer' instance 0: the machine has no such device; it is not sent")
        );
    }

    #[test]
    fn switchover_of_the_source_is_compared() {
        let with = |name: &[u8], value| {
            let mut manifest = machine();
            manifest.settings.push(wire::Setting { name: name.to_vec(), value });
            manifest
        };
        for (name, part) in
            [(settings::SWITCHOVER_START, "sends SWITCHOVER_START"), (settings::SWITCHOVER_ACK, "waits for the")]
        {
            for (source, here) in [(1, 1), (0, 1), (0, 0)] {
                assert_eq!(found(&with(name, source), &with(name, here), false), [""; 0], "{source} {here}");
            }
            assert!(found_one(&with(name, 1), &with(name, 0)).contains(part));
            // An older library does not say it.
            assert_eq!(found(&with(name, 1), &machine(), false), [""; 0]);
        }
    }

    #[test]
    fn limits_are_compared_with_what_the_source_needs() {
        let with = |value| {
            let mut manifest = machine();
            manifest.settings.push(wire::Setting { name: settings::NESTING.to_vec(), value });
            manifest
        };
        assert_eq!(found(&with(3), &with(64), false), [""; 0]);
        assert!(found_one(&with(5), &with(4)).contains("5 levels of nested descriptions, the limit of this side is 4"));
    }
}
