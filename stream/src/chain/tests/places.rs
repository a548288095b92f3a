// SPDX-License-Identifier: LGPL-2.1-or-later
//! Runs of pages lead to the same places as a map with an entry for each page.

use super::super::list::{ListedPages, encode_pages};
use super::super::runs::last_copies;
use super::*;
use crate::wire::page_runs::{HASH_LEN, Hashes};

const SIZE: u64 = PAGE as u64;

/// The content of a page: its byte, or the place of its bytes and its hash.
type Naive = BTreeMap<u64, Content>;

/// The hash that stands at a position of all hashes in these tests.
fn hashes() -> Hashes {
    Arc::new((0..4096 / HASH_LEN as u64).flat_map(|at| (at * 3).to_be_bytes()).collect())
}

fn runs() -> impl Strategy<Value = Vec<Run>> {
    let fill = prop_oneof![Just(None), Just(None), Just(Some(0)), Just(Some(7))];
    let distance = prop_oneof![Just(SIZE as u32), Just(SIZE as u32 + 8), Just(0), Just(u32::MAX)];
    let run = (0u64..40, 1u32..9, fill, 0u64..100, distance, 0u32..100).prop_map(
        |(page, count, fill, offset, distance, hash)| Run {
            count,
            distance,
            ..Run::page(page * SIZE, fill, offset * SIZE, hash)
        },
    );
    let sorted = (proptest::collection::vec(run, 0..12), any::<bool>());
    sorted.prop_map(|(mut runs, is_sorted)| {
        if is_sorted {
            runs.sort_by_key(|run| run.address);
        }
        runs
    })
}

/// Adds the pages of a run one by one.
fn add(naive: &mut Naive, run: &Run, hashes: &[u8]) {
    for at in 0..u64::from(run.count) {
        let position = (run.hash as usize + at as usize) * HASH_LEN;
        let hash = u64::from_be_bytes(hashes[position..position + HASH_LEN].try_into().unwrap());
        let offset = run.offset + at * u64::from(run.distance);
        let content = match run.fill {
            Some(fill) => Content::Filled(fill),
            None => Content::At { file: run.file.into(), offset, hash },
        };
        naive.insert(run.address + at * SIZE, content);
    }
}

proptest! {
    #[test]
    fn runs_of_a_chain_have_the_places_of_a_map_with_each_page(mut files in proptest::collection::vec(runs(), 1..7)) {
        let (hashes, mut naive) = (hashes(), Naive::new());
        // The first file is the youngest.
        for (file, runs) in files.iter_mut().enumerate() {
            runs.iter_mut().for_each(|run| run.file = file as u16);
        }
        files.iter().rev().flatten().for_each(|run| add(&mut naive, run, &hashes));
        let lists = files.iter().rev().map(|runs| &runs[..]);
        let found = last_copies(lists, SIZE, &mut Budget::default()).unwrap();
        prop_assert!(found.windows(2).all(|pair| pair[0].end(SIZE) <= pair[1].address), "{:?}", found);
        prop_assert!(found.iter().all(|run| run.count > 0));
        let pages = Pages { page_size: SIZE, runs: found, hashes: vec![hashes; files.len()] };
        let places: Naive = pages.places().map(|place| (place.address, place.content)).collect();
        prop_assert_eq!(&places, &naive);
        for most in [1, 3, 100] {
            for (number, address) in (0..50).map(|page| (page, page * SIZE)) {
                let run = pages.find(address, most);
                prop_assert!(run.address == address && run.count > 0 && run.count <= most);
                for at in 0..run.count {
                    let place = pages.place(&run, at);
                    let expected = naive.get(&place.address).copied().unwrap_or(Content::Filled(0));
                    prop_assert_eq!(place.content, expected, "page {} and {} further", number, at);
                }
            }
            prop_assert_eq!(pages.count(most.into()), naive.range(..u64::from(most) * SIZE).count() as u64);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Random chains of whole files, each with pages in any order and several times.
    #[test]
    fn random_chain_has_the_content_of_a_map_with_each_page(
        forms in proptest::collection::vec(any::<bool>(), 1..5),
        changes in proptest::collection::vec(proptest::collection::vec((0usize..12, 0u8..4), 0..20), 4),
        lists_base: bool,
    ) {
        let place = |at: usize| if at < 8 { ("a", at as u64) } else { ("b", at as u64 - 8) };
        let form = |at: usize| if forms[at] { FlatForm::Mapped } else { FlatForm::Stream };
        let (mut files, mut expected) = (Memory::default(), [0u8; 12]);
        expected.iter_mut().enumerate().for_each(|(at, value)| *value = at as u8 % 5);
        let base = all_pages(|at| at as u8 % 5).into_iter().filter(|(.., value)| !forms[0] || *value > 0);
        let mut parent = files.put("0", snapshot_in(form(0), "pc", &base.collect::<Vec<_>>(), b"x", None));
        for file in 1..forms.len() {
            let pages: Vec<_> = changes[file - 1].iter().map(|(at, value)| (place(*at).0, place(*at).1, *value)).collect();
            changes[file - 1].iter().for_each(|(at, value)| expected[*at] = *value);
            let name = (file - 1).to_string();
            let mut child = snapshot_in(form(file), "pc", &pages, b"x", link(parent, &name));
            if file == 1 && lists_base {
                let pages = survey(&files.0[Path::new("0")], None).unwrap().1.unwrap();
                child.truncate(end_of_data(&child));
                child.extend(seal(&&child.clone()[..], Some(&pages), Some(SIZE)).unwrap().0);
            }
            parent = files.put(&file.to_string(), child);
        }
        let youngest = (forms.len() - 1).to_string();
        let (expected, whole) = (expected.map(Some), files.open(&youngest).unwrap());
        prop_assert_eq!(contents_by_places(&whole), expected);
        prop_assert_eq!(contents(&whole).0.into_iter().map(Some).collect::<Vec<_>>(), expected);
        if forms.len() > 1 {
            prop_assert_eq!(contents_by_places(&files.open_by_lists(&youngest).unwrap()), expected);
        }
        let (mapped, _) = flat(&whole, FlatForm::Mapped);
        files.put("mapped", mapped);
        prop_assert_eq!(contents_by_places(&files.open("mapped").unwrap()), expected);
    }
}

/// The encoded list of a file with one block of 16 pages, and these runs.
fn list(count: u32, runs: &[u8], length: u64) -> Vec<u8> {
    let mut list = vec![0];
    list.extend(4096u32.to_be_bytes());
    list.extend(1u32.to_be_bytes());
    list.extend(b"\x03ram");
    list.extend(length.to_be_bytes());
    list.extend(count.to_be_bytes());
    list.extend(runs);
    list
}

fn decode(list: &[u8], budget: usize) -> Result<ListedPages, String> {
    ListedPages::decode(list, 1 << 30, &mut Budget::new(budget))
}

fn filled(address: u64, count: u32) -> Vec<u8> {
    [&address.to_be_bytes()[..], &count.to_be_bytes(), &[0, 7]].concat()
}

fn plain(address: u64, offset: u64, distance: u32, hashes: &[u64]) -> Vec<u8> {
    let head = [&address.to_be_bytes()[..], &(hashes.len() as u32).to_be_bytes(), &[1], &offset.to_be_bytes()].concat();
    [head, distance.to_be_bytes().to_vec(), hashes.iter().flat_map(|hash| hash.to_be_bytes()).collect()].concat()
}

#[test]
fn list_has_the_documented_form() {
    let runs = [plain(0, 100, 4104, &[1, 2, 3]), filled(3 * SIZE, 2), plain(15 * SIZE, 50_000, 0, &[9])].concat();
    let list = list(3, &runs, 16 * SIZE);
    let pages = decode(&list, 10_000).unwrap();
    assert_eq!(encode_pages(&pages.blocks, pages.mapped, pages.page_size), list);
    // A file with the same pages gives the same list.
    let file = snapshot("pc", &[("a", 0, 5), ("a", 1, 6), ("a", 3, 0), ("b", 3, 7), ("a", 4, 0)], b"x", None);
    let found = survey(&&file[..], None).unwrap().1.unwrap();
    let hash = |value: u8| page_hash(&[value; PAGE]);
    let at = |value: u8| file.windows(PAGE).position(|bytes| bytes == [value; PAGE]).unwrap() as u64;
    let named = |name: &str, length: u64, count: u32| {
        [&[1][..], name.as_bytes(), &(length * SIZE).to_be_bytes(), &count.to_be_bytes()].concat()
    };
    let zeros = [&(3 * SIZE).to_be_bytes()[..], &2u32.to_be_bytes(), &[0, 0]].concat();
    let expected = [
        b"\0\0\0\x10\0\0\0\0\x02".to_vec(),
        named("a", 8, 2),
        plain(0, at(5), (at(6) - at(5)) as u32, &[hash(5), hash(6)]),
        zeros,
        named("b", 4, 1),
        plain(3 * SIZE, at(7), 0, &[hash(7)]),
    ];
    assert_eq!(found, expected.concat());
}

#[test]
fn list_with_impossible_runs_is_refused() {
    let refused = |list: Vec<u8>, reason: &str| {
        let error = decode(&list, 10_000).map(drop).unwrap_err();
        assert!(error.contains(reason), "{error}");
    };
    refused(list(1, &filled(100, 1), 16 * SIZE), "1 pages at 0x64 of a block of 65536 bytes");
    refused(list(1, &filled(0, 0), 16 * SIZE), "0 pages at 0x0");
    refused(list(1, &filled(15 * SIZE, 2), 16 * SIZE), "2 pages at 0xf000");
    refused(list(1, &filled(u64::MAX - SIZE + 1, 1), u64::MAX), "1 pages at 0xfffffffffffff000");
    refused(list(1, &plain(0, 1 << 30, 0, &[1]), 16 * SIZE), "outside of the file");
    refused(list(1, &plain(0, u64::MAX - 5, 0, &[1]), 16 * SIZE), "outside of the file");
    refused(list(1, &plain(0, 0, u32::MAX, &[1, 2]), 16 * SIZE), "outside of the file");
    refused(list(2, &filled(0, 1), 16 * SIZE), "ends before the last run");
    refused(list(u32::MAX, &filled(0, 1), 16 * SIZE), "ends before the last run");
    let mut short = plain(0, 0, 4096, &[1, 2]);
    short.pop();
    refused(list(1, &short, 16 * SIZE), "ends before the hash of a page");
    refused(list(1, &[filled(0, 1), vec![0]].concat(), 16 * SIZE), "further bytes");
    // Each run takes memory from the budget, and its number of pages does not.
    let long = list(1, &filled(0, u32::MAX), u64::MAX);
    assert!(decode(&long, 10_000).is_ok());
    let many = filled(0, 1).repeat(1000);
    assert!(decode(&list(1000, &many, 16 * SIZE), 20_000).err().unwrap().contains("more memory"));
}

#[test]
fn compressed_pages_and_differences_are_refused() {
    for (kind, contents) in [(flag::XBZRLE, &b"\x01\0\x02\x01\x01"[..]), (flag::COMPRESS_PAGE, b"\0\0\0\x02xx")] {
        let mut bytes = snapshot("pc", &[("a", 0, 0)], b"x", None);
        let mut record = Vec::new();
        flag::encode_page_head(&mut record, kind, SIZE, Some(b"a"));
        record.extend(contents);
        let mut zero = Vec::new();
        flag::encode_page_head(&mut zero, flag::ZERO, 0, Some(b"a"));
        let at = bytes.windows(zero.len()).position(|bytes| bytes == zero).unwrap();
        bytes.splice(at..at, record);
        let mut files = Memory::default();
        files.put("x", bytes);
        let error = files.open("x").err().unwrap();
        assert!(error.contains("'x': it has compressed pages or differences of pages"), "{error}");
    }
}

#[test]
fn page_size_does_not_depend_on_the_distance_of_the_first_pages() {
    // Zero pages at this distance alone look like pages of 8192 bytes.
    let mut files = Memory::default();
    let base = files.put("0", snapshot("pc", &all_pages(|_| 1), b"x", None));
    files.put("1", snapshot("pc", &[("a", 0, 0), ("a", 2, 0)], b"x", link(base, "0")));
    let chain = files.open("1").unwrap();
    assert_eq!((chain.page_size(), contents(&chain).0), (SIZE, vec![0, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]));
    assert_eq!(files.open_by_lists("1").unwrap().page_size(), SIZE);
}

#[test]
fn pages_of_different_sizes_are_refused() {
    // Two mapped blocks with pages of different sizes.
    let mut bytes = snapshot_in(FlatForm::Mapped, "pc", &[("a", 0, 1), ("b", 0, 1)], b"x", None);
    let second = bytes.windows(2).rposition(|bytes| bytes == b"\x01b").unwrap();
    // The name, the length, the version.
    let size = second + 2 + 8 + 4;
    assert_eq!(bytes[size..size + 8], SIZE.to_be_bytes());
    bytes[size..size + 8].copy_from_slice(&(2 * SIZE).to_be_bytes());
    let mut files = Memory::default();
    files.put("x", bytes);
    let error = files.open("x").err().unwrap();
    assert!(error.contains("'x': it has pages of different sizes"), "{error}");
}
