// SPDX-License-Identifier: LGPL-2.1-or-later
//! The configuration section: what both machines must share (QEMU 7.2, `vmstate_configuration` in `migration/savevm.c`).
//!
//! ```text
//! len(be32) machine name, then optionally, each as 0x05 len(u8) name version(be32):
//!   configuration/target-page-bits  bits(be32)
//!   configuration/capabilities      count(be32) { len(u8) name }
//!   configuration/uuid              16 bytes
//! ```

use super::host::{Host, Level};
use crate::error::{Error, Phase, Result};
use crate::file::MigFile;
use crate::wire::limits::Limits;
use crate::wire::{CONFIGURATION_SUBSECTION_VERSION as SUBSECTION_VERSION, SUBSECTION};

const NAME: &[u8] = b"configuration";
const PAGE_BITS: &[u8] = b"configuration/target-page-bits";
const CAPABILITIES: &[u8] = b"configuration/capabilities";
const UUID: &[u8] = b"configuration/uuid";

/// Most capabilities that a stream may name; QEMU has some twenty.
const CAPABILITIES_MAX: u32 = 256;

fn start_subsection(file: &MigFile, name: &[u8]) {
    file.put_byte(SUBSECTION);
    file.put_byte(name.len() as u8);
    file.put(name);
    file.put_be32(SUBSECTION_VERSION);
}

/// Writes the section without its tag.
pub(super) fn save(host: &dyn Host, file: &MigFile, with_uuid: bool) {
    let machine = host.machine_name();
    file.put_be32(machine.len() as u32);
    file.put(&machine);
    if host.target_page_bits() > host.target_page_bits_min() {
        start_subsection(file, PAGE_BITS);
        file.put_be32(host.target_page_bits());
    }
    let capabilities = host.capabilities();
    if !capabilities.is_empty() {
        start_subsection(file, CAPABILITIES);
        file.put_be32(capabilities.len() as u32);
        for name in capabilities {
            let name = &name[..name.len().min(usize::from(u8::MAX))];
            file.put_byte(name.len() as u8);
            file.put(name);
        }
    }
    if let Some(uuid) = host.uuid().filter(|_| with_uuid) {
        start_subsection(file, UUID);
        file.put(&uuid);
    }
}

/// What the section says.
pub struct Received {
    /// The machine's name.
    pub machine: Vec<u8>,
    /// log2 of the target's page size.
    pub page_bits: u32,
    /// Names of the capabilities that both sides must share.
    pub capabilities: Vec<Vec<u8>>,
    /// The machine's UUID.
    pub uuid: Option<[u8; 16]>,
}

/// Reads the section behind its tag and compares it with this machine.
pub(super) fn load(host: &dyn Host, file: &MigFile, limits: &Limits) -> Result<()> {
    let received = read(host, file, limits).and_then(|received| check(host, &received));
    received.map_err(|err| err.in_phase(Phase::Configuration))
}

fn read(host: &dyn Host, file: &MigFile, limits: &Limits) -> Result<Received> {
    let len = file.get_be32();
    if len > limits.machine_name {
        let text = format!("a machine name of {len} bytes, expected at most {}", limits.machine_name);
        return Err(Error::invalid(text).at_offset(file.position()));
    }
    let mut machine = vec![0; len as usize];
    file.get(&mut machine);
    file.check()?;
    let mut received =
        Received { machine, page_bits: host.target_page_bits_min(), capabilities: Vec::new(), uuid: None };
    while let Some(name) = next_subsection(file)? {
        read_subsection(file, &name, &mut received)?;
        file.check()?;
    }
    Ok(received)
}

/// The name of the subsection that follows, if one does. A name that is not of this section ends it, as in QEMU.
fn next_subsection(file: &MigFile) -> Result<Option<Vec<u8>>> {
    if file.error() != 0 || file.peek_byte(0) != SUBSECTION {
        return Ok(None);
    }
    let mut name = vec![0; usize::from(file.peek_byte(1))];
    if name.len() <= NAME.len() || file.peek_into(&mut name, 2) != name.len() || !name.starts_with(NAME) {
        return Ok(None);
    }
    let version_at = file.position();
    if ![PAGE_BITS, CAPABILITIES, UUID].contains(&&name[..]) {
        let text = format!("unknown subsection '{}'", String::from_utf8_lossy(&name));
        return Err(Error::new(libc::ENOENT, text).at_offset(version_at));
    }
    file.skip(2 + name.len());
    let version = file.get_be32();
    if version != SUBSECTION_VERSION {
        let text = format!(
            "subsection '{}' has version {version}, expected {SUBSECTION_VERSION}",
            String::from_utf8_lossy(&name)
        );
        return Err(Error::invalid(text).at_offset(version_at));
    }
    Ok(Some(name))
}

fn read_subsection(file: &MigFile, name: &[u8], received: &mut Received) -> Result<()> {
    match name {
        PAGE_BITS => received.page_bits = file.get_be32(),
        UUID => {
            let mut uuid = [0; 16];
            file.get(&mut uuid);
            received.uuid = Some(uuid);
        }
        _ => {
            let count = file.get_be32();
            if count > CAPABILITIES_MAX {
                let text = format!("{count} capabilities, expected at most {CAPABILITIES_MAX}");
                return Err(Error::invalid(text).at_offset(file.position()));
            }
            for _ in 0..count {
                let name = file.get_counted_string();
                received.capabilities.push(name.ok_or_else(|| Error::new(libc::EIO, "a capability's name is cut"))?);
            }
        }
    }
    Ok(())
}

/// Compares what came with this machine.
pub fn check(host: &dyn Host, received: &Received) -> Result<()> {
    let machine = host.machine_name();
    // QEMU compares as many bytes as came, so a prefix of the name passes.
    if !machine.starts_with(&received.machine) {
        return Err(Error::invalid(format!(
            "Machine type received is '{}' and local is '{}'",
            String::from_utf8_lossy(&received.machine),
            String::from_utf8_lossy(&machine)
        )));
    }
    let bits = host.target_page_bits();
    if received.page_bits != bits {
        return Err(Error::invalid(format!("Received TARGET_PAGE_BITS is {} but local is {bits}", received.page_bits)));
    }
    check_capabilities(&host.capabilities(), &received.capabilities)?;
    check_uuid(host, received.uuid)
}

fn check_capabilities(here: &[Vec<u8>], there: &[Vec<u8>]) -> Result<()> {
    let differs = |name: &Vec<u8>, received: &str, local: &str| {
        let name = String::from_utf8_lossy(name);
        Err(Error::invalid(format!("Capability {name} is {local}, but received capability is {received}")))
    };
    if let Some(name) = there.iter().find(|name| !here.contains(name)) {
        return differs(name, "on", "off");
    }
    match here.iter().find(|name| !there.contains(name)) {
        Some(name) => differs(name, "off", "on"),
        None => Ok(()),
    }
}

fn check_uuid(host: &dyn Host, received: Option<[u8; 16]>) -> Result<()> {
    let Some(received) = received else { return Ok(()) };
    match host.uuid() {
        Some(uuid) if uuid == received => Ok(()),
        Some(uuid) => Err(Error::invalid(format!(
            "UUID received is {} and local is {}",
            format_uuid(&received),
            format_uuid(&uuid)
        ))),
        None => {
            let text = format!("UUID is received {}, but local uuid isn't set", format_uuid(&received));
            host.report(Level::Warning, &text);
            Ok(())
        }
    }
}

fn format_uuid(uuid: &[u8; 16]) -> String {
    let mut text = String::new();
    for (at, byte) in uuid.iter().enumerate() {
        if [4, 6, 8, 10].contains(&at) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
