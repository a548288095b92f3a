// SPDX-License-Identifier: LGPL-2.1-or-later
//! Decodes the requests and answers of a preflight, and compares machines and layouts that a peer sent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use savevm::inspect::{Budget, Device, compat};
use savevm::wire::preflight::{Answer, Manifest, Request};

/// Memory for layouts, in bytes.
const MEMORY: usize = 1 << 20;

fn compare(sent: &Manifest, here: &Manifest) {
    for strict in [false, true] {
        let compat::Machines { differing, .. } = compat::machines(sent, here, strict);
        assert!(differing.iter().all(|(at, other)| *at < sent.devices.len() && *other < here.devices.len()));
    }
}

fuzz_target!(|data: &[u8]| {
    // Where the first body ends, as a fraction of 65536. The second one is what the first is compared with.
    let [high, low, bodies @ ..] = data else { return };
    let (a, b) = bodies.split_at(bodies.len() * usize::from(u16::from_be_bytes([*high, *low])) >> 16);
    if let Ok(answer) = Answer::decode(bodies) {
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
    }
    let (first, second) = (Request::decode(a), Request::decode(b));
    if let Ok(request) = &first {
        assert_eq!(Request::decode(&request.encode()).as_ref(), Ok(request));
    }
    match (&first, &second) {
        (Ok(Request::Manifest(sent)), Ok(Request::Manifest(here))) => compare(sent, here),
        (Ok(Request::Manifest(sent)), _) => compare(sent, sent),
        _ => {}
    }
    let device = Device { name: "device".into(), instance: 0 };
    let findings = compat::descriptions(&device, a, b, &mut Budget::new(MEMORY));
    assert!(findings.len() <= 10_001);
});
