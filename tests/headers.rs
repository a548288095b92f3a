// SPDX-License-Identifier: LGPL-2.1-or-later
//! The committed headers are the ones that the sources generate. `SAVEVM_UPDATE_HEADERS=1` renews them.

use std::path::Path;

fn compare(generated: &str, committed: &str) {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("include").join(committed);
    if std::env::var_os("SAVEVM_UPDATE_HEADERS").is_some() {
        std::fs::write(&committed, generated).expect("the header can be written");
    }
    let found = std::fs::read_to_string(&committed).expect("the header is there");
    assert!(found == generated, "{} is stale: run with SAVEVM_UPDATE_HEADERS=1", committed.display());
}

#[test]
fn savevm_h_is_what_the_sources_generate() {
    compare(include_str!(concat!(env!("OUT_DIR"), "/savevm.h")), "savevm.h");
}

#[test]
fn register_h_is_what_the_sources_generate() {
    compare(include_str!(concat!(env!("OUT_DIR"), "/register.h")), "migration/register.h");
}
