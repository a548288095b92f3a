// SPDX-License-Identifier: LGPL-2.1-or-later
//! Chains of files in memory, good ones and damaged ones.

mod places;

use super::*;
use crate::inspect::{Block, Page, Visitor, read_whole};
use crate::testing::{Builder, flag};
use crate::wire::configuration;
use crate::wire::mapped::Header;
use crate::wire::section::{DeviceHead, encode_footer, encode_tag};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::Read;

const PAGE: usize = 4096;

/// Files by path. Their bytes live as long as the program.
#[derive(Default)]
struct Memory(BTreeMap<PathBuf, &'static [u8]>);

impl Files for Memory {
    type File = &'static [u8];

    fn open(&mut self, path: &Path) -> io::Result<(&'static [u8], u128)> {
        let found = self.0.iter().position(|(name, _)| name == path);
        let at = found.ok_or(io::ErrorKind::NotFound)?;
        Ok((self.0.values().nth(at).copied().unwrap(), at as u128))
    }
}

impl Memory {
    fn put(&mut self, path: &str, bytes: Vec<u8>) -> Identity {
        let bytes: &'static [u8] = bytes.leak();
        self.0.insert(path.into(), bytes);
        identify(&bytes).unwrap()
    }

    fn open(&mut self, path: &str) -> Result<Arc<Chain<&'static [u8]>>, String> {
        Chain::open(self, Path::new(path), &mut Budget::default())
    }

    fn open_by_lists(&mut self, path: &str) -> Result<Arc<Chain<&'static [u8]>>, String> {
        Chain::open_by_lists(self, Path::new(path), &mut Budget::default())
    }

    /// A chain of three files with these forms. `lists_base`: the child of the full snapshot has its pages in its list.
    fn chain(forms: [FlatForm; 3], lists_base: bool) -> Self {
        let mut files = Self::default();
        // A full file with fixed places leaves zero pages out.
        let mut pages = all_pages(|at| if at == 5 { 0 } else { at as u8 + 1 });
        pages.retain(|(.., value)| forms[0] == FlatForm::Stream || *value > 0);
        let base = files.put("0", snapshot_in(forms[0], "pc", &pages, b"old", None));
        let pages = [("a", 1, 0), ("a", 7, 99), ("b", 0, 98), ("b", 1, 55)];
        let mut one = snapshot_in(forms[1], "pc", &pages, b"mid", link(base, "0"));
        if lists_base {
            let pages = survey(&files.0[Path::new("0")], None).unwrap().1.unwrap();
            one.truncate(end_of_data(&one));
            let (list, _) = seal(&&one[..], Some(&pages), Some(PAGE as u64)).unwrap();
            one.extend(list);
        }
        let one = files.put("1", one);
        files.put("2", snapshot_in(forms[2], "pc", &[("b", 0, 97), ("a", 2, 0)], b"new", link(one, "1")));
        files
    }
}

/// Where the list of a file begins.
fn end_of_data(bytes: &[u8]) -> usize {
    Found::read(&bytes, &mut Budget::default()).unwrap().unwrap().end as usize
}

/// The content of each page of a chain as a lazy restore reads it: from its place, compared with its hash. `None` if it is not
/// the content that was saved.
fn contents_by_places(chain: &Chain<&'static [u8]>) -> Vec<Option<u8>> {
    let mut all = Vec::new();
    for ((_, length), found) in chain.blocks().zip(chain.pages()) {
        let mut pages = vec![Some(0); length as usize / PAGE];
        found.places().for_each(|PagePlace { address, content }| {
            pages[address as usize / PAGE] = match content {
                Content::Filled(value) => Some(value),
                Content::At { file, offset, hash } => {
                    let file = chain.files().nth(file).unwrap();
                    let bytes = file.get(offset as usize..).and_then(|bytes| bytes.get(..PAGE));
                    bytes.filter(|bytes| page_hash(bytes) == hash).map(|bytes| bytes[0])
                }
            };
        });
        all.extend(pages);
    }
    all
}

fn forms(number: u32) -> [FlatForm; 3] {
    [0, 1, 2].map(|bit| if number >> bit & 1 == 1 { FlatForm::Mapped } else { FlatForm::Stream })
}

/// A machine with blocks "a" and "b": a stream with these pages, and with a parent.
fn snapshot(machine: &str, pages: &[(&str, u64, u8)], state: &[u8], parent: Option<Link<&str>>) -> Vec<u8> {
    snapshot_in(FlatForm::Stream, machine, pages, state, parent)
}

/// The list of blocks. With fixed places it has the pages.
fn block_list(form: FlatForm, start: usize, pages: &[(&str, u64, u8)]) -> Vec<u8> {
    let mut list = Vec::new();
    flag::encode_block_list(&mut list, 12 * PAGE as u64);
    for (name, count) in [("a", 8), ("b", 4)] {
        let length = count * PAGE as u64;
        flag::BlockEntry { name: name.as_bytes(), length }.encode(&mut list, None, None);
        if form == FlatForm::Mapped {
            let header = Header::place((start + list.len()) as u64, length, PAGE as u64).unwrap();
            header.encode(&mut list);
            list.resize(header.pages_offset as usize + length as usize - start, 0);
            for (_, page, value) in pages.iter().filter(|(block, ..)| *block == name) {
                list[header.bitmap_offset as usize - start] |= 1 << page;
                let at = header.pages_offset as usize - start + *page as usize * PAGE;
                list[at..at + PAGE].fill(*value);
            }
        }
    }
    flag::encode_end(&mut list);
    list
}

fn snapshot_in(
    form: FlatForm,
    machine: &str,
    pages: &[(&str, u64, u8)],
    state: &[u8],
    parent: Option<Link<&str>>,
) -> Vec<u8> {
    let mut stream = Builder::new();
    match form {
        FlatForm::Mapped => {
            let mut bytes = vec![crate::wire::CONFIGURATION];
            configuration::encode_machine(&mut bytes, machine.as_bytes());
            configuration::Content::Capabilities(vec![&b"mapped-ram"[..]]).encode(&mut bytes);
            stream.raw(&bytes);
        }
        _ => {
            stream.configuration(machine);
        }
    }
    let stream_is_child = parent.is_some();
    if let Some(link) = parent {
        let mut bytes = Vec::new();
        encode_tag(&mut bytes, 4, crate::wire::chain::SECTION_ID);
        let head = DeviceHead { name: crate::wire::chain::SECTION, instance: 0, version: crate::wire::chain::VERSION };
        head.encode(&mut bytes);
        link.encode(&mut bytes);
        encode_footer(&mut bytes, crate::wire::chain::SECTION_ID);
        stream.raw(&bytes);
    }
    // Tag, number, name, instance and version.
    let start = stream.bytes.len() + 1 + 4 + 1 + 3 + 4 + 4;
    stream.named(1, 3, "ram", 0, 4, &block_list(form, start, pages));
    let mut records = Vec::new();
    for (block, page, value) in pages.iter().filter(|_| form != FlatForm::Mapped) {
        let kind = if *value == 0 { flag::ZERO } else { flag::PAGE };
        flag::encode_page_head(&mut records, kind, page * PAGE as u64, Some(block.as_bytes()));
        records.extend(std::iter::repeat_n(*value, if *value == 0 { 1 } else { PAGE }));
    }
    flag::encode_end(&mut records);
    stream.further(2, 3, &records);
    let mut end = Vec::new();
    flag::encode_end(&mut end);
    stream.further(3, 3, &end);
    stream.named(4, 4, "timer", 0, 1, state);
    stream.raw(&[0]);
    if stream_is_child {
        let (list, identity) = seal(&&stream.bytes[..], None, Some(PAGE as u64)).unwrap();
        stream.raw(&list);
        assert_eq!(identify(&&stream.bytes[..]).unwrap(), identity);
    }
    stream.bytes.clone()
}

fn all_pages(value: impl Fn(usize) -> u8) -> Vec<(&'static str, u64, u8)> {
    let places = (0..8).map(|page| ("a", page)).chain((0..4).map(|page| ("b", page)));
    places.enumerate().map(|(at, (block, page))| (block, page, value(at))).collect()
}

#[derive(Default)]
struct Seen(BTreeMap<(String, u64), u8>);

impl Visitor for Seen {
    const WANTS_PAGES: bool = true;

    fn page(&mut self, block: &Block, address: u64, page: Page<'_>, _offset: u64) -> io::Result<()> {
        let value = match page {
            Page::Fill(value, _) => value,
            Page::Plain(bytes) if bytes.iter().all(|byte| *byte == bytes[0]) => bytes[0],
            _ => return Err(io::Error::other("not a page of these tests")),
        };
        self.0.insert((block.name.to_string(), address / PAGE as u64), value);
        Ok(())
    }
}

/// The pages and the last device's state of a flattened chain.
fn contents(chain: &Arc<Chain<&'static [u8]>>) -> (Vec<u8>, Vec<u8>) {
    let mut bytes = Vec::new();
    chain.flatten(FlatForm::Stream).read_to_end(&mut bytes).unwrap();
    let mut pages = Seen::default();
    let stream = read_whole(&bytes, Options::default(), &mut pages).unwrap();
    assert!(stream.damage.is_none() && stream.parent.is_none() && stream.trailing == 0, "{:?}", stream.damage);
    let state = stream.devices().last().and_then(|(_, section)| section.data.clone()).unwrap();
    (pages.0.values().copied().collect(), state)
}

/// All bytes of a chain in a form, with the number of bytes in holes.
fn flat(chain: &Arc<Chain<&'static [u8]>>, form: FlatForm) -> (Vec<u8>, u64) {
    let (mut bytes, mut holes, mut flat) = (Vec::new(), 0, chain.flatten(form));
    while let Some(part) = flat.next_part().unwrap() {
        match part {
            Part::Bytes(part) => bytes.extend_from_slice(part),
            Part::Hole(count) => {
                holes += count;
                bytes.resize(bytes.len() + count as usize, 0);
            }
        }
    }
    let mut read = Vec::new();
    chain.flatten(form).read_to_end(&mut read).unwrap();
    assert!(read == bytes);
    (bytes, holes)
}

fn link(parent: Identity, name: &str) -> Option<Link<&str>> {
    Some(Link { parent, name })
}

#[test]
fn flattened_chain_has_the_last_copy_of_each_page() {
    let mut files = Memory::default();
    let base = files.put("d/base", snapshot("pc", &all_pages(|at| at as u8 + 1), b"old", None));
    let one =
        files.put("d/one", snapshot("pc", &[("a", 7, 99), ("b", 0, 98), ("a", 1, 0)], b"mid", link(base, "base")));
    files.put("d/two", snapshot("pc", &[("b", 0, 97)], b"new", link(one, "one")));
    let chain = files.open("d/two").unwrap();
    assert_eq!(chain.paths().count(), 3);
    assert_eq!(contents(&chain), (vec![1, 0, 3, 4, 5, 6, 7, 99, 97, 10, 11, 12], b"new".to_vec()));
    // A full snapshot is not changed.
    let mut bytes = Vec::new();
    files.open("d/base").unwrap().flatten(FlatForm::Stream).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, files.0[Path::new("d/base")]);
    let found = super::link(files.0[Path::new("d/two")]).unwrap();
    assert_eq!((found.parent, &*found.name), (one, "one"));
    assert_eq!(super::link(files.0[Path::new("d/base")]), None);
    assert_eq!(super::link(b"QEVM"), None);
}

#[test]
fn files_with_fixed_places_may_be_anywhere_in_a_chain() {
    let expected = (vec![1, 0, 3, 4, 5, 0, 7, 99, 97, 10, 11, 12], b"new".to_vec());
    for number in 0..8 {
        let form = |bit: u32| if number >> bit & 1 == 1 { FlatForm::Mapped } else { FlatForm::Stream };
        let mut files = Memory::default();
        // A full file with fixed places leaves zero pages out.
        let mut pages = all_pages(|at| if at == 5 { 0 } else { at as u8 + 1 });
        pages.retain(|(.., value)| form(0) == FlatForm::Stream || *value > 0);
        let base = files.put("base", snapshot_in(form(0), "pc", &pages, b"old", None));
        let pages = [("a", 1, 0), ("a", 7, 99), ("b", 0, 98)];
        let one = files.put("one", snapshot_in(form(1), "pc", &pages, b"mid", link(base, "base")));
        files.put("two", snapshot_in(form(2), "pc", &[("b", 0, 97)], b"new", link(one, "one")));
        let chain = files.open("two").unwrap();
        assert_eq!(chain.is_mapped(), form(2) == FlatForm::Mapped);
        assert_eq!(contents(&chain), expected, "{number:03b}");
        let (mapped, holes) = flat(&chain, FlatForm::Mapped);
        assert!(holes > 1 << 20);
        files.put("mapped", mapped);
        let mapped = files.open("mapped").unwrap();
        assert!(mapped.is_mapped() && !mapped.is_incremental());
        assert_eq!(contents(&mapped), expected, "{number:03b}");
        let (without, _) = flat(&chain, FlatForm::WithoutPages);
        let mut seen = Seen::default();
        let stream = read_whole(&without, Options::default(), &mut seen).unwrap();
        assert!(stream.damage.is_none() && seen.0.is_empty() && stream.ram.blocks.len() == 2);
        assert_eq!(chain.blocks().collect::<Vec<_>>(), [("a", 8 * PAGE as u64), ("b", 4 * PAGE as u64)]);
        let places: Vec<_> = chain.pages().next().unwrap().places().collect();
        assert!(places.len() >= 7 && places.is_sorted_by_key(|place| place.address));
        let Content::At { file, offset, hash } = places.last().unwrap().content else { panic!("{places:?}") };
        let bytes = &files.0[Path::new("one")][offset as usize..offset as usize + PAGE];
        assert_eq!((file, hash), (1, page_hash(bytes)));
    }
}

#[test]
fn unused_places_do_not_count_and_all_others_do() {
    let mut files = Memory::default();
    let bytes = snapshot_in(FlatForm::Mapped, "pc", &[("a", 3, 7)], b"x", None);
    let good = files.put("x", bytes.clone());
    let pages = (1 << 20)..(1 << 20) + 8 * PAGE;
    assert!(bytes[pages.start + 3 * PAGE] == 7);
    for at in (0..bytes.len()).step_by(40_009).chain([bytes.len() - 1]) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let unused =
            pages.contains(&at) && (at - pages.start) / PAGE != 3 || (2 << 20..(2 << 20) + 4 * PAGE).contains(&at);
        assert_eq!(files.put("y", changed) == good, unused, "{at:#x}");
    }
    assert_ne!(files.put("y", bytes[..bytes.len() - 1].to_vec()), good);
}

#[test]
fn chains_that_do_not_belong_together_are_refused() {
    let mut files = Memory::default();
    let base = files.put("base", snapshot("pc", &all_pages(|_| 1), b"x", None));
    let refused = |files: &mut Memory, child: Vec<u8>, reason: &str| {
        files.put("child", child);
        let error = files.open("child").err().unwrap();
        assert!(error.contains(reason), "{error}");
    };
    let child = |name, identity| snapshot("pc", &[("a", 0, 7)], b"y", link(identity, name));
    refused(&mut files, child("gone", base), "'gone', the parent of 'child', can't be opened");
    let other = Identity { length: base.length, hash: [0; 16] };
    refused(&mut files, child("base", other), "'base' is not the parent of 'child', or was changed since");
    let changed = snapshot("pc", &all_pages(|at| u8::from(at == 3)), b"x", None);
    let changed = files.put("changed", changed);
    refused(&mut files, child("changed", base), "is not the parent of 'child', or was changed since");
    refused(
        &mut files,
        snapshot("q35", &[], b"y", link(base, "base")),
        "different machines: the machine types q35 and pc",
    );
    // Nothing can name itself by its hash, but a name can lead back.
    refused(&mut files, child("child", base), "the chain leads back to this file");
    let hole = files.put("hole", snapshot("pc", &all_pages(|_| 1)[1..], b"x", None));
    refused(&mut files, snapshot("pc", &[], b"y", link(hole, "hole")), "have 7 of the 8 pages of block 'a'");
    let cut = files.put("cut", snapshot("pc", &all_pages(|_| 1), b"x", None)[..5000].to_vec());
    refused(&mut files, child("cut", cut), "'cut': cut off at offset");
    assert_ne!(changed, base);
}

#[test]
fn chains_are_limited_in_files_and_memory() {
    let mut files = Memory::default();
    let mut parent = files.put("0", snapshot("pc", &all_pages(|_| 1), b"x", None));
    for number in 1..=FILES_MAX {
        let name = (number - 1).to_string();
        parent = files.put(&number.to_string(), snapshot("pc", &[("a", 1, 2)], b"x", link(parent, &name)));
    }
    assert!(files.open(&(FILES_MAX - 1).to_string()).is_ok());
    let error = files.open(&FILES_MAX.to_string()).err().unwrap();
    assert!(error.contains("more than 256 files"), "{error}");
    let error = Chain::open(&mut files, Path::new("0"), &mut Budget::new(500)).err().unwrap();
    assert!(error.contains("memory"), "{error}");
}

#[test]
fn many_blocks_are_indexed_in_time() {
    // A search through all blocks for each of them would be too slow.
    const BLOCKS: u64 = 100_000;
    let mut list = Vec::new();
    flag::encode_block_list(&mut list, BLOCKS * PAGE as u64);
    for number in 0..BLOCKS {
        flag::BlockEntry { name: format!("{number:05}").as_bytes(), length: PAGE as u64 }.encode(&mut list, None, None);
    }
    flag::encode_end(&mut list);
    let mut stream = Builder::new();
    stream.configuration("pc").named(1, 3, "ram", 0, 4, &list).raw(&[0]);
    let mut files = Memory::default();
    files.put("x", stream.bytes);
    let error = files.open("x").err().unwrap();
    assert!(error.contains("have 0 of the 1 pages of block '00000'"), "{error}");
}

#[test]
fn page_that_changes_while_it_is_read_is_refused() {
    /// A file whose last read shows other bytes.
    struct Changing(std::cell::Cell<bool>, Vec<u8>);
    impl ReadAt for &Changing {
        fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
            let count = (&self.1[..]).read_at(offset, into)?;
            if self.0.get() {
                into[..count].iter_mut().for_each(|byte| *byte ^= u8::from(*byte == 3));
            }
            Ok(count)
        }
        fn length(&self) -> io::Result<u64> {
            Ok(self.1.len() as u64)
        }
    }
    struct Two<'a>([&'a Changing; 2]);
    impl<'a> Files for Two<'a> {
        type File = &'a Changing;
        fn open(&mut self, path: &Path) -> io::Result<(&'a Changing, u128)> {
            let at = usize::from(path == Path::new("base"));
            Ok((self.0[at], at as u128))
        }
    }
    let base = Changing(false.into(), snapshot("pc", &all_pages(|at| at as u8), b"x", None));
    let identity = identify(&&base).unwrap();
    let child = Changing(false.into(), snapshot("pc", &[("a", 0, 9)], b"y", link(identity, "base")));
    let chain = Chain::open(&mut Two([&child, &base]), Path::new("child"), &mut Budget::default()).ok().unwrap();
    base.0.set(true);
    let error = chain.flatten(FlatForm::Stream).read_to_end(&mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("'base' at 0x") && error.to_string().contains("was changed"), "{error}");
}

#[test]
fn lists_lead_to_the_same_pages_and_devices() {
    let expected = [1, 0, 0, 4, 5, 0, 7, 99, 97, 55, 11, 12].map(Some);
    for (number, lists_base) in (0..8).flat_map(|number| [(number, false), (number, true)]) {
        let what = format!("{number:03b}, the base is listed: {lists_base}");
        let mut files = Memory::chain(forms(number), lists_base);
        let (whole, listed) = (files.open("2").unwrap(), files.open_by_lists("2").unwrap());
        assert_eq!(contents_by_places(&whole), expected, "{what}");
        assert_eq!(contents_by_places(&listed), expected, "{what}");
        assert_eq!(listed.identity(), whole.identity(), "{what}");
        assert_eq!(listed.paths().collect::<Vec<_>>(), whole.paths().collect::<Vec<_>>());
        assert!(listed.blocks().eq(whole.blocks()) && listed.page_size() == whole.page_size(), "{what}");
        let devices = flat(&listed, FlatForm::WithoutPages).0;
        assert!(devices == flat(&whole, FlatForm::WithoutPages).0, "{what}");
    }
}

/// A file that fails to read its pages.
struct WithoutPages(&'static [u8], std::ops::Range<usize>);

impl ReadAt for WithoutPages {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let end = offset as usize + into.len();
        // The first bytes show whether a file has a parent.
        let is_start = offset == 0 && end <= START;
        assert!(is_start || end <= self.1.start || self.1.end <= offset as usize, "a page is read at {offset:#x}");
        self.0.read_at(offset, into)
    }

    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
}

#[test]
fn no_page_is_read_with_the_lists() {
    struct Guarded(Memory);
    impl Files for Guarded {
        type File = WithoutPages;
        fn open(&mut self, path: &Path) -> io::Result<(WithoutPages, u128)> {
            let (bytes, number) = Files::open(&mut self.0, path)?;
            // The pages are filled with bytes that occur nowhere else so often.
            let is_page = |at: &usize| {
                bytes[*at..].len() > 4 && bytes[*at..*at + 4].iter().all(|byte| [99, 98, 97, 7, 8].contains(byte))
            };
            let first = (0..bytes.len()).find(is_page).unwrap_or(0);
            let last = (0..bytes.len()).rfind(is_page).map_or(0, |last| last + 4);
            Ok((WithoutPages(bytes, first..last), number))
        }
    }
    for number in 0..8 {
        let mut files = Guarded(Memory::chain(forms(number), true));
        Chain::open_by_lists(&mut files, Path::new("2"), &mut Budget::default()).map(drop).unwrap();
    }
}

#[test]
fn missing_cut_and_wrong_files_are_refused_with_the_lists() {
    let refused = |change: &dyn Fn(&mut Memory), reason: &str| {
        let mut files = Memory::chain(forms(0), true);
        change(&mut files);
        let error = files.open_by_lists("2").map(drop).unwrap_err();
        assert!(error.contains(reason), "{error}");
    };
    let cut = |path: &'static str| {
        move |files: &mut Memory| {
            let bytes = files.0[Path::new(path)];
            files.0.insert(path.into(), &bytes[..bytes.len() - 1]);
        }
    };
    let remove = |files: &mut Memory| assert!(files.0.remove(Path::new("0")).is_some());
    refused(&remove, "'0', the parent of '1', can't be opened");
    refused(&cut("0"), "'0' is not the parent of '1', or was changed since");
    refused(&cut("1"), "'1': it is damaged or cut off");
    refused(&cut("2"), "'2': it is damaged or cut off");
    let other = |files: &mut Memory| {
        let mut others = Memory::chain(forms(0), false);
        files.0.insert("1".into(), others.0.remove(Path::new("1")).unwrap());
    };
    refused(&other, "'1' is not the parent of '2', or was changed since");
    let mut files = Memory::chain(forms(0), true);
    let error = files.open_by_lists("0").map(drop).unwrap_err();
    assert!(error.contains("'0': it is damaged or cut off: it has no list"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn damage_anywhere_in_a_chain_is_refused(
        mapped: [bool; 3], file in 0usize..3, at: prop::sample::Index, change in 1u8..,
    ) {
        let mut files = Memory::default();
        let form = |at: usize| if mapped[at] { FlatForm::Mapped } else { FlatForm::Stream };
        let base = files.put("0", snapshot_in(form(0), "pc", &all_pages(|at| at as u8 + 1), b"old", None));
        let pages: Vec<_> = [("a", 7, 99), ("b", 2, 0)].into_iter().chain(all_pages(|_| 3)).collect();
        let one = files.put("1", snapshot_in(form(1), "pc", &pages, b"mid", link(base, "0")));
        files.put("2", snapshot_in(form(2), "pc", &all_pages(|at| 97 + at as u8), b"new", link(one, "1")));
        prop_assert!(files.open("2").is_ok());
        let path = file.to_string();
        let mut bytes = files.0[Path::new(&path)].to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        files.put(&path, bytes);
        prop_assert!(files.open("2").is_err(), "damage at {} was not noticed", at);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut files = Memory::default();
        let _ = super::link(&bytes);
        files.put("x", bytes);
        if let Ok(chain) = files.open("x") {
            let _ = chain.flatten(FlatForm::Stream).read_to_end(&mut Vec::new());
        }
    }
    #[test]
    fn damage_anywhere_is_refused_or_found_at_the_page_with_the_lists(
        number in 0u32..8, lists_base: bool, file in 0usize..3, at: prop::sample::Index, change in 1u8..,
    ) {
        let mut files = Memory::chain(forms(number), lists_base);
        let good = files.open_by_lists("2").unwrap();
        let path = file.to_string();
        let mut bytes = files.0[Path::new(&path)].to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        files.put(&path, bytes);
        if let Ok(chain) = files.open_by_lists("2") {
            let devices = flat(&chain, FlatForm::WithoutPages).0;
            prop_assert!(devices == flat(&good, FlatForm::WithoutPages).0, "damage at {at} changed a device");
            for (page, good) in contents_by_places(&chain).into_iter().zip(contents_by_places(&good)) {
                prop_assert!(page.is_none() || page == good, "damage at {at} changed a page");
            }
        }
    }

    #[test]
    fn any_list_with_a_good_hash_stays_within_its_files(
        number in 0u32..8, file in 1usize..3, changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut files = Memory::chain(forms(number), true);
        let path = file.to_string();
        let mut bytes = files.0[Path::new(&path)].to_vec();
        let start = end_of_data(&bytes);
        let mut list = bytes.split_off(start);
        list.truncate(list.len() - crate::wire::chain::TRAILER_LEN);
        let before = list.clone();
        for (at, value) in changes {
            let at = at.index(list.len());
            list[at] = value;
        }
        let is_changed = list != before;
        bytes.extend(list::finish(list).0);
        let child = files.put(&path, bytes);
        if file == 1 {
            // The youngest file names the changed one.
            files.put("2", snapshot_in(forms(number)[2], "pc", &[("b", 0, 97)], b"new", link(child, "1")));
        }
        prop_assert!(!is_changed || files.open("2").is_err(), "a list that differs from its file is accepted");
        if let Ok(chain) = files.open_by_lists("2") {
            contents_by_places(&chain);
            let _ = chain.flatten(FlatForm::WithoutPages).read_to_end(&mut Vec::new());
            for place in chain.pages().flat_map(|pages| pages.places()) {
                if let Content::At { file, offset, .. } = place.content {
                    let length = chain.files().nth(file).unwrap().len();
                    assert!(offset as usize + PAGE <= length, "a page outside of its file");
                }
            }
        }
    }
}
