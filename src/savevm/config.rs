// SPDX-License-Identifier: LGPL-2.1-or-later
//! The configuration section: what both machines must have in common (QEMU 7.2, `vmstate_configuration` in
//! `migration/savevm.c`).

//! `wire::configuration` has the layout.

use super::Vm;
use super::host::{Host, Level};
use crate::error::{Error, Phase, Result};
use crate::file::MigFile;
use crate::wire::configuration::{self, Content, ContentError, Subsection};
use crate::wire::limits::{CAPABILITIES_MAX, Limits};
use crate::wire::uuid_text;
use crate::wire::{CONFIGURATION_SUBSECTION_VERSION as SUBSECTION_VERSION, SUBSECTION};

/// The capability of streams in which RAM has fixed places.
const MAPPED: &[u8] = crate::wire::mapped::CAPABILITY.as_bytes();

/// Writes the section without its tag.
pub(super) fn save(host: &dyn Host, mut file: &MigFile, with_uuid: bool, mapped: bool) {
    configuration::encode_machine(&mut file, &host.machine_name());
    let bits = host.target_page_bits();
    let mut capabilities = host.capabilities();
    if mapped && !capabilities.iter().any(|name| name == MAPPED) {
        capabilities.push(MAPPED.to_vec());
    }
    let contents = [
        (bits > host.target_page_bits_min()).then_some(Content::PageBits(bits)),
        (!capabilities.is_empty()).then_some(Content::Capabilities(capabilities)),
        host.uuid().filter(|_| with_uuid).map(Content::Uuid),
    ];
    contents.iter().flatten().for_each(|content| content.encode(&mut file));
}

/// Returns the section as it appears in the description of the stream (QEMU 10.0).
pub(super) fn describe(host: &dyn Host, with_uuid: bool) -> Vec<u8> {
    let field = |name: &str, len: usize, kind: &str, size: usize| {
        let len = if len > 1 { format!(", \"array_len\": {len}") } else { String::new() };
        format!("{{\"name\": \"{name}\"{len}, \"type\": \"{kind}\", \"size\": {size}}}")
    };
    let table = |name: &str, fields: &[String]| {
        format!("\"vmsd_name\": \"{name}\", \"version\": 1, \"fields\": [{}]", fields.join(", "))
    };
    let mut subsections = Vec::new();
    if host.target_page_bits() > host.target_page_bits_min() {
        subsections.push(table("configuration/target-page-bits", &[field("target_page_bits", 1, "uint32", 4)]));
    }
    let capabilities = host.capabilities();
    if let Some(first) = capabilities.first() {
        let fields = [
            field("caps_count", 1, "uint32", 4),
            field("capabilities", capabilities.len(), "capability", first.len() + 1),
        ];
        subsections.push(table("configuration/capabilities", &fields));
    }
    if with_uuid && host.uuid().is_some() {
        subsections.push(table("configuration/uuid", &[field("uuid.data", 16, "uint8", 1)]));
    }
    let name = field("name", 1, "buffer", host.machine_name().len());
    let mut text = table("configuration", &[field("len", 1, "uint32", 4), name]);
    if !subsections.is_empty() {
        let all: Vec<_> = subsections.iter().map(|subsection| format!("{{{subsection}}}")).collect();
        text += &format!(", \"subsections\": [{}]", all.join(", "));
    }
    text.into_bytes()
}

/// The capabilities that QEMU compares, and the versions that introduced them.
const NEW_CAPABILITIES: [(&str, &str); 2] = [("x-ignore-shared", "4.0"), ("mapped-ram", "9.0")];

/// A received section.
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

impl Received {
    fn is_mapped(&self) -> bool {
        self.capabilities.iter().any(|name| name == MAPPED)
    }
}

/// Reads the section behind its tag, and compares it with this machine. Returns why it does not fit, if it does not.
pub(super) fn load(vm: &Vm, file: &MigFile) -> Result<Option<Error>> {
    let host = vm.host();
    let received = read(&*host, file, &vm.limits()).map_err(|err| err.in_phase(Phase::Configuration))?;
    if let Err(error) = check(vm, &*host, &received) {
        return Ok(Some(error.in_phase(Phase::Configuration)));
    }
    if received.is_mapped() {
        vm.load_state().set_mapped();
    }
    Ok(None)
}

/// Reads the section behind its tag, and does not compare it.
pub(super) fn skip(vm: &Vm, file: &MigFile) -> Result<()> {
    read(&*vm.host(), file, &vm.limits()).map(drop).map_err(|err| err.in_phase(Phase::Configuration))
}

fn read(host: &dyn Host, mut file: &MigFile, limits: &Limits) -> Result<Received> {
    let len = configuration::decode_machine_len(&mut file)?;
    if len > limits.machine_name {
        let text = format!("a machine name of {len} bytes, expected at most {}", limits.machine_name);
        return Err(Error::invalid(text).at_offset(file.position()));
    }
    let mut machine = vec![0; len as usize];
    file.get(&mut machine);
    file.check()?;
    let mut received =
        Received { machine, page_bits: host.target_page_bits_min(), capabilities: Vec::new(), uuid: None };
    while let Some(subsection) = next_subsection(file)? {
        match subsection.decode(&mut file).map_err(|err| content_error(file, err))? {
            Content::PageBits(bits) => received.page_bits = bits,
            Content::Capabilities(names) => received.capabilities.extend(names),
            Content::Uuid(uuid) => received.uuid = Some(uuid),
        }
        file.check()?;
    }
    Ok(received)
}

fn content_error(file: &MigFile, error: ContentError<Error>) -> Error {
    match error {
        ContentError::Input(error) => error,
        ContentError::TooManyCapabilities(count) => {
            let text = format!("{count} capabilities, expected at most {CAPABILITIES_MAX}");
            Error::invalid(text).at_offset(file.position())
        }
    }
}

/// Returns the subsection that follows, if one does, and moves behind its version. As in QEMU, a name that is not of
/// this section ends the section.
fn next_subsection(file: &MigFile) -> Result<Option<Subsection>> {
    if file.error() != 0 || file.peek_byte(0) != SUBSECTION {
        return Ok(None);
    }
    let mut name = vec![0; usize::from(file.peek_byte(1))];
    let prefix = configuration::PREFIX;
    if name.len() <= prefix.len() || file.peek_into(&mut name, 2) != name.len() || !name.starts_with(prefix) {
        return Ok(None);
    }
    let start = file.position();
    let Some(subsection) = Subsection::from_name(&name) else {
        let text = format!("unknown subsection '{}'", String::from_utf8_lossy(&name));
        return Err(Error::new(libc::ENOENT, text).at_offset(start));
    };
    file.skip(2 + name.len());
    let version = file.get_be32();
    if version != SUBSECTION_VERSION {
        let text = format!("subsection '{}' has version {version}, expected {SUBSECTION_VERSION}", subsection.name());
        return Err(Error::invalid(text).at_offset(start));
    }
    Ok(Some(subsection))
}

/// Returns whether the RAM of a machine can have fixed places in a file.
pub fn maps_ram(vm: &Vm) -> bool {
    vm.registry.walk().any(|entry| entry.handler.maps_ram())
}

/// Compares a received section with this machine.
pub fn check(vm: &Vm, host: &dyn Host, received: &Received) -> Result<()> {
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
    let mut capabilities = host.capabilities();
    if received.is_mapped() && !capabilities.iter().any(|name| name == MAPPED) && maps_ram(vm) {
        // The RAM device finds the format from the stream.
        capabilities.push(MAPPED.to_vec());
    }
    check_capabilities(&capabilities, &received.capabilities)?;
    check_uuid(host, received.uuid)
}

fn check_capabilities(here: &[Vec<u8>], there: &[Vec<u8>]) -> Result<()> {
    let differs = |name: &Vec<u8>, received: &str, local: &str| {
        let since = NEW_CAPABILITIES.iter().find(|(known, _)| known.as_bytes() == name);
        let since = since.map_or(String::new(), |(_, version)| format!("; QEMU {version} introduced it"));
        let name = String::from_utf8_lossy(name);
        Err(Error::invalid(format!("Capability {name} is {local}, but received capability is {received}{since}")))
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
        Some(uuid) => {
            Err(Error::invalid(format!("UUID received is {} and local is {}", uuid_text(&received), uuid_text(&uuid))))
        }
        None => {
            let text = format!("UUID is received {}, but local uuid isn't set", uuid_text(&received));
            host.report(Level::Warning, &text);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_capability_is_named_with_the_version_that_introduced_it() {
        let text = |name: &[u8]| check_capabilities(&[], &[name.to_vec()]).unwrap_err().message().to_owned();
        let expected = "Capability mapped-ram is off, but received capability is on; QEMU 9.0 introduced it";
        assert_eq!(text(MAPPED), expected);
        assert!(text(b"other").ends_with("received capability is on"));
    }
}
