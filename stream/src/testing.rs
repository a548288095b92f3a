// SPDX-License-Identifier: LGPL-2.1-or-later
//! Builds streams for tests, byte by byte (feature `testing`).

/// Builds a stream. Every method appends and does not check numbers and names.
#[derive(Clone, Debug)]
pub struct Builder {
    /// The bytes so far.
    pub bytes: Vec<u8>,
    /// Whether sections get footers.
    pub footers: bool,
    /// The page size that the description names.
    pub page_size: u64,
    described: Vec<String>,
}

/// The flags of a RAM record.
pub use crate::wire::ram as flag;

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// Magic and version.
    pub fn new() -> Self {
        let bytes = b"QEVM\0\0\0\x03".to_vec();
        Self { bytes, footers: true, page_size: 4096, described: Vec::new() }
    }

    /// Appends bytes.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// A configuration section without subsections.
    pub fn configuration(&mut self, machine: &str) -> &mut Self {
        let len = (machine.len() as u32).to_be_bytes();
        self.raw(&[7]).raw(&len).raw(machine.as_bytes())
    }

    /// A subsection, of the configuration or of a device.
    pub fn subsection(name: &str, version: u32, contents: &[u8]) -> Vec<u8> {
        let mut bytes = vec![5, name.len() as u8];
        bytes.extend(name.as_bytes());
        bytes.extend(version.to_be_bytes());
        bytes.extend(contents);
        bytes
    }

    /// A section that names its device: START (1) or FULL (4).
    pub fn named(&mut self, tag: u8, id: u32, name: &str, instance: u32, version: u32, state: &[u8]) -> &mut Self {
        self.raw(&[tag]).raw(&id.to_be_bytes()).raw(&[name.len() as u8]).raw(name.as_bytes());
        self.raw(&instance.to_be_bytes()).raw(&version.to_be_bytes()).raw(state).footer(id)
    }

    /// A FULL section and its entry in the description, whose members follow `instance_id`.
    pub fn device(&mut self, id: u32, name: &str, instance: u32, state: &[u8], members: &str) -> &mut Self {
        let described = in_json(name);
        self.described.push(format!(r#"{{"name": "{described}", "instance_id": {instance}, {members}}}"#));
        self.named(4, id, name, instance, 1, state)
    }

    /// A further section of a live device: PART (2) or END (3).
    pub fn further(&mut self, tag: u8, id: u32, state: &[u8]) -> &mut Self {
        self.raw(&[tag]).raw(&id.to_be_bytes()).raw(state).footer(id)
    }

    fn footer(&mut self, id: u32) -> &mut Self {
        if self.footers {
            self.raw(&[0x7e]).raw(&id.to_be_bytes());
        }
        self
    }

    /// A command.
    pub fn command(&mut self, number: u16, payload: &[u8]) -> &mut Self {
        let len = (payload.len() as u16).to_be_bytes();
        self.raw(&[8]).raw(&number.to_be_bytes()).raw(&len).raw(payload)
    }

    /// EOF, and with `described` the description of the devices.
    pub fn finish(&mut self, described: bool) -> Vec<u8> {
        self.raw(&[0]);
        if described {
            let text = format!(r#"{{"page_size": {}, "devices": [{}]}}"#, self.page_size, self.described.join(", "));
            self.raw(&[6]).raw(&(text.len() as u32).to_be_bytes()).raw(text.as_bytes());
        }
        self.bytes.clone()
    }
}

/// Builds the state of a "ram" section.
#[derive(Clone, Debug, Default)]
pub struct Ram(pub Vec<u8>);

impl Ram {
    /// The list of blocks.
    pub fn blocks(mut self, blocks: &[(&str, u64)]) -> Self {
        let total: u64 = blocks.iter().map(|(_, length)| length).sum();
        self.0.extend((total | flag::MEM_SIZE).to_be_bytes());
        for (name, length) in blocks {
            self = self.counted(name).word(*length);
        }
        self
    }

    /// A be64.
    pub fn word(mut self, word: u64) -> Self {
        self.0.extend(word.to_be_bytes());
        self
    }

    fn counted(mut self, text: &str) -> Self {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self
    }

    /// A page's header. Without a name it is in the block of the record before.
    fn header(self, address: u64, flags: u64, name: Option<&str>) -> Self {
        match name {
            Some(name) => self.word(address | flags).counted(name),
            None => self.word(address | flags | flag::CONTINUE),
        }
    }

    /// A page of zeroes.
    pub fn zero(self, address: u64, name: Option<&str>) -> Self {
        let mut ram = self.header(address, flag::ZERO, name);
        ram.0.push(0);
        ram
    }

    /// A whole page.
    pub fn page(self, address: u64, name: Option<&str>, page: &[u8]) -> Self {
        let mut ram = self.header(address, flag::PAGE, name);
        ram.0.extend(page);
        ram
    }

    /// The difference from a page's previous contents.
    pub fn xbzrle(self, address: u64, name: Option<&str>, runs: &[u8]) -> Self {
        let mut ram = self.header(address, flag::XBZRLE, name);
        ram.0.push(1);
        ram.0.extend((runs.len() as u16).to_be_bytes());
        ram.0.extend(runs);
        ram
    }

    /// The end of the section.
    pub fn end(self) -> Vec<u8> {
        self.word(flag::EOS).0
    }
}

/// Returns the text escaped for a JSON string.
pub fn in_json(text: &str) -> String {
    let is_plain = |c: char| (' '..='~').contains(&c) && c != '"' && c != '\\';
    text.encode_utf16().fold(String::new(), |out, unit| match char::from_u32(unit.into()).filter(|c| is_plain(*c)) {
        Some(c) => out + &c.to_string(),
        None => format!("{out}\\u{unit:04x}"),
    })
}

/// Returns members of a device's description for fields `name: type of size`, for [`Builder::device`].
pub fn fields(vmsd: &str, fields: &[(&str, &str, u64)]) -> String {
    let field =
        |(name, kind, size): &(&str, &str, u64)| format!(r#"{{"name": "{name}", "type": "{kind}", "size": {size}}}"#);
    let fields: Vec<String> = fields.iter().map(field).collect();
    format!(r#""vmsd_name": "{vmsd}", "version": 1, "fields": [{}]"#, fields.join(", "))
}

/// Returns a small stream with all kinds of contents: memory of two blocks, a live device, four devices.
pub fn small(described: bool) -> Vec<u8> {
    let page = |fill: u8| (0..4096u32).map(|at| (at as u8).wrapping_mul(31).wrapping_add(fill)).collect::<Vec<u8>>();
    let start = Ram::default().blocks(&[("pc.ram", 0x8000), ("vga.vram", 0x2000)]).end();
    let part = Ram::default().page(0, Some("pc.ram"), &page(1)).zero(0x1000, None).page(0x2000, None, &page(2));
    let part = part.zero(0, Some("vga.vram")).zero(0x1000, None).end();
    let end = Ram::default().xbzrle(0x2000, Some("pc.ram"), &[3, 2, 0xaa, 0xbb]).end();
    let mut stream = Builder::new();
    stream.configuration("pc-i440fx-7.2").named(1, 2, "ram", 0, 4, &start).named(
        1,
        3,
        "spapr/htab",
        0,
        1,
        &[0, 0, 0, 24],
    );
    stream.further(2, 2, &part).further(2, 3, &[0; 12]).further(3, 2, &end).further(3, 3, &[0; 12]);
    stream.device(4, "timer", 0, &[0, 0, 0, 0, 0, 0, 1, 0], &fields("timer", &[("ticks", "int64", 8)]));
    let cpu = [("eip", "uint32", 4), ("halted", "bool", 1), ("xmm", "buffer", 16), ("alarm", "timer", 8)];
    for instance in 0..2 {
        let mut state = vec![0, 0, 0xff, 0xf0 + instance as u8, 1];
        state.extend([0x11; 16]);
        state.extend([0xff; 8]);
        stream.device(5 + instance, "cpu", instance, &state, &fields("cpu", &cpu));
    }
    let members = fields("serial", &[("lcr", "uint8", 1)])
        + r#", "subsections": [{"#
        + &fields("serial/fifo", &[("n", "int16", 2)])
        + "}]";
    let mut state = vec![3];
    state.extend(Builder::subsection("serial/fifo", 1, &[0xff, 0xfe]));
    stream.device(9, "serial", 0, &state, &members);
    stream.finish(described)
}
