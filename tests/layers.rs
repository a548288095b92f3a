// SPDX-License-Identifier: LGPL-2.1-or-later
//! docs/architecture.md says which module imports which: it says the truth, and no arrow goes up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the crate `savevm-stream`, which the engine re-exports.
const STREAM: [&str; 5] = ["chain", "inspect", "json", "replace", "wire"];

type Imports = BTreeMap<String, BTreeSet<String>>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The rows of the table of layers, from the top one down.
fn table() -> Vec<(String, BTreeSet<String>)> {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("| module")).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|line| {
            let mut words = line.split('`').skip(1).step_by(2).map(str::to_owned);
            (words.next().unwrap(), words.collect())
        })
        .collect()
}

/// All Rust files of a module that are not tests.
fn files(path: PathBuf, into: &mut Vec<PathBuf>) {
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    if name.ends_with("tests") || name == "testing" {
    } else if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| files(entry.unwrap().path(), into));
    } else if path.extension().is_some_and(|ending| ending == "rs") {
        into.push(path);
    }
}

/// The modules that a file names behind `crate::`.
fn imports(path: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    code.split("crate::")
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap().split(',').collect(),
            None => vec![rest],
        })
        .map(|name| name.trim().split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap().to_owned())
        .collect()
}

fn actual(modules: &[String]) -> Imports {
    let mut all = Imports::new();
    for module in modules {
        let source = if STREAM.contains(&module.as_str()) { "stream/src" } else { "src" };
        let directory = root().join(source).join(module);
        let mut paths = Vec::new();
        files(if directory.is_dir() { directory } else { directory.with_extension("rs") }, &mut paths);
        assert!(!paths.is_empty(), "there is no module {module}");
        let mut found: BTreeSet<_> = paths.iter().flat_map(|path| imports(path)).collect();
        found.retain(|name| name != module && modules.contains(name));
        all.insert(module.clone(), found);
    }
    all
}

#[test]
fn the_table_of_layers_is_true() {
    let table = table();
    let modules: Vec<_> = table.iter().map(|(module, _)| module.clone()).collect();
    let library = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    assert!(
        library.contains("pub use savevm_stream::{chain, inspect, json, replace, wire};"),
        "the engine re-exports {STREAM:?}"
    );
    let own = library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let declared: BTreeSet<_> = own.chain(STREAM).map(str::to_owned).collect();
    assert_eq!(declared, modules.iter().cloned().collect(), "modules of the library, and of the table");
    let actual = actual(&modules);
    for (place, (module, said)) in table.iter().enumerate() {
        assert_eq!(said, &actual[module], "imports of {module} in the table, and in the code");
        for import in said {
            assert!(modules[place..].contains(import), "{module} imports {import}, which stands above it");
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

#[test]
fn the_table_of_locks_lists_all_ranks_in_order() {
    let source = read("src/sync.rs");
    let ranks = source.split("pub enum Rank {").nth(1).unwrap().split("\n}").next().unwrap();
    let ranks: Vec<_> = ranks
        .lines()
        .filter_map(|line| line.trim().strip_suffix(','))
        .filter(|name| name.starts_with(char::is_uppercase))
        .map(str::to_owned)
        .collect();
    let document = read("docs/architecture.md");
    let table = document.lines().skip_while(|line| !line.starts_with("| area | locks")).skip(2);
    let table = table.take_while(|line| line.starts_with('|'));
    let listed: Vec<_> = table.flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned).collect();
    assert_eq!(listed, ranks, "locks of the table, and of src/sync.rs");
}

#[test]
fn all_locks_have_a_rank() {
    let mut paths = Vec::new();
    files(root().join("src"), &mut paths);
    for path in paths.iter().filter(|path| !path.ends_with("src/sync.rs")) {
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for import in code.split("std::sync::").skip(1) {
            let import = import.split(';').next().unwrap();
            let without_rank =
                ["Mutex", "RwLock", "Condvar", "PoisonError"].into_iter().find(|name| import.contains(name));
            assert_eq!(without_rank, None, "{}: use the locks of crate::sync", path.display());
        }
    }
}
