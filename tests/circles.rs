// SPDX-License-Identifier: LGPL-2.1-or-later
//! The files of a module do not import each other in a circle.
//!
//! A `mod.rs` that only declares and re-exports is no file of its own here: an import through it counts as an import of
//! the file with the item.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The modules that are checked, each with the only circles that it may have.
const CHECKED: [(&str, &[&[&str]]); 3] = [
    ("savevm", &[]),
    ("migration", &[]),
    // A field may hold a structure, whose fields may hold structures.
    (
        "ffi",
        &[&[
            "ffi::vmstate",
            "ffi::vmstate::fresh",
            "ffi::vmstate::infos",
            "ffi::vmstate::items",
            "ffi::vmstate::state",
        ]],
    ),
];

/// The path of a Rust module below `src`: `["savevm", "registry", "entry"]`.
type Module = Vec<String>;

fn is_test(name: &str) -> bool {
    name.ends_with("tests") || name == "testing"
}

/// Reads all modules below `path` that are not tests.
fn read(path: &Path, module: &Module, into: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut inner = module.clone();
        if name != "mod" {
            inner.push(name.clone());
        }
        if is_test(&name) {
        } else if path.is_dir() {
            read(&path, &inner, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            into.insert(inner, lines.collect::<Vec<_>>().join("\n"));
        }
    }
}

/// Expands a path with braces, such as `a::{b, c::{d, e}}`, at the start of `text`.
fn paths(text: &str) -> Vec<Vec<String>> {
    let (found, _) = expand(text, &Vec::new());
    found
}

fn expand<'a>(mut text: &'a str, before: &[String]) -> (Vec<Vec<String>>, &'a str) {
    let mut path = before.to_vec();
    loop {
        text = text.trim_start();
        if let Some(list) = text.strip_prefix('{') {
            let (mut all, mut rest) = (Vec::new(), list);
            loop {
                let (found, after) = expand(rest, &path);
                all.extend(found);
                rest = after.trim_start();
                match rest.strip_prefix(',') {
                    Some(next) if !next.trim_start().starts_with('}') => rest = next,
                    Some(next) => return (all, next.trim_start().strip_prefix('}').unwrap()),
                    None => return (all, rest.strip_prefix('}').unwrap_or(rest)),
                }
            }
        }
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
        if end > 0 {
            path.push(text[..end].to_owned());
        }
        text = &text[end..];
        match text.strip_prefix("::") {
            Some(rest) => text = rest,
            None => return (vec![path], text),
        }
    }
}

/// The module that a path in `module` leads to: the longest known one, behind re-exports.
fn resolve(module: &Module, path: &[String], is_root: bool, all: &BTreeMap<Module, String>) -> Option<Module> {
    let mut at: Module = Vec::new();
    let mut path = path;
    match path.first()?.as_str() {
        "crate" => path = &path[1..],
        "super" | "self" => {
            at.clone_from(module);
            if !is_root {
                at.pop();
            }
            if path[0] == "super" && is_root {
                at.pop();
            }
            path = &path[1..];
            while path.first().is_some_and(|name| name == "super") {
                at.pop();
                path = &path[1..];
            }
        }
        // A child of a `mod.rs`.
        _ if is_root => at.clone_from(module),
        _ => return None,
    }
    for (depth, name) in path.iter().enumerate() {
        at.push(name.clone());
        if all.contains_key(&at) {
            continue;
        }
        at.pop();
        // A folder without code of its own, or an item of `at`, perhaps re-exported.
        let text = all.get(&at)?;
        for line in text.split("pub use ").skip(1) {
            for exported in paths(line.split(';').next().unwrap()) {
                if exported.last() == Some(name) && exported.len() > 1 {
                    let rest = [&exported[..], &path[depth + 1..]].concat();
                    return resolve(&at, &rest, true, all);
                }
            }
        }
        break;
    }
    Some(at)
}

/// Which modules each module imports, inside of the one that is checked.
fn imports(all: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut graph = BTreeMap::new();
    for (module, text) in all {
        let is_root = all.keys().any(|other| other.len() == module.len() + 1 && other.starts_with(module));
        let mut targets = BTreeSet::new();
        for start in ["use ", "crate::", "super::"] {
            for (at, _) in text.match_indices(start) {
                let declares = text[..at].ends_with("pub ") && start == "use ";
                let qualified = text[..at].ends_with([':', '(']) && text[..at].ends_with("::");
                let word = text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
                if declares || qualified || word {
                    continue;
                }
                let path = if start == "use " { &text[at + 4..] } else { &text[at..] };
                targets.extend(paths(path).iter().filter_map(|path| resolve(module, path, is_root, all)));
            }
        }
        targets.remove(module);
        targets.retain(|target| all.contains_key(target));
        graph.insert(module.clone(), targets);
    }
    graph
}

/// The modules that reach themselves, in groups.
fn circles(graph: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<BTreeSet<Module>> {
    let reach = |from: &Module| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(module) = next.pop() {
            for target in graph.get(module).into_iter().flatten() {
                if seen.insert(target.clone()) {
                    next.push(target);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<_, _> = graph.keys().map(|module| (module, reach(module))).collect();
    let mut found: Vec<BTreeSet<Module>> = Vec::new();
    for (module, targets) in &reached {
        let circle: BTreeSet<_> = targets
            .iter()
            .filter(|target| reached.get(target).is_some_and(|back| back.contains(*module)))
            .cloned()
            .collect();
        if !circle.is_empty() && !found.contains(&circle) {
            found.push(circle);
        }
    }
    found
}

#[test]
fn no_module_has_an_import_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (name, allowed) in CHECKED {
        let mut all = BTreeMap::new();
        read(&root.join(name), &vec![name.to_owned()], &mut all);
        let graph = imports(&all);
        assert!(graph.values().any(|targets| !targets.is_empty()), "{name}: imports are found");
        let allowed: Vec<BTreeSet<Module>> = allowed
            .iter()
            .map(|circle| circle.iter().map(|path| path.split("::").map(str::to_owned).collect()).collect())
            .collect();
        let circles: Vec<_> = circles(&graph).into_iter().filter(|circle| !allowed.contains(circle)).collect();
        let mut text = String::new();
        for circle in &circles {
            for module in circle {
                let inside: Vec<_> = graph[module].intersection(circle).map(|target| target.join("::")).collect();
                text.push_str(&format!("\n  {} imports {}", module.join("::"), inside.join(", ")));
            }
            text.push('\n');
        }
        assert!(circles.is_empty(), "import circles in {name}:{text}");
    }
}

#[test]
fn a_circle_is_found_through_a_re_export() {
    let all = [
        ("m", "mod a;\nmod b;\nmod c;\npub use a::{A, Other};"),
        ("m::a", "use super::b::{self, B};\nuse std::sync::Arc;"),
        ("m::b", "use crate::m::{c::C, A};"),
        ("m::c", "fn f() {}"),
    ];
    let split = |path: &str| path.split("::").map(str::to_owned).collect::<Module>();
    let all: BTreeMap<_, _> = all.into_iter().map(|(module, text)| (split(module), text.to_owned())).collect();
    let graph = imports(&all);
    assert_eq!(graph[&split("m::b")], BTreeSet::from([split("m::a"), split("m::c")]));
    assert_eq!(circles(&graph), [BTreeSet::from([split("m::a"), split("m::b")])]);
}
