// SPDX-License-Identifier: LGPL-2.1-or-later
//! Properties of the codec.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn name() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

fn devices() -> impl Strategy<Value = Device> {
    let numbers = any::<(u32, u32, u32, u32, u32)>();
    let rest = (any::<bool>(), any::<bool>(), any::<u64>());
    (name(), numbers, name(), rest).prop_map(|(name, numbers, compat_name, rest)| {
        let (instance, version, oldest, alias, compat_instance) = numbers;
        let (is_sent, is_loaded, digest) = rest;
        Device { name, instance, version, oldest, alias, compat_name, compat_instance, is_sent, is_loaded, digest }
    })
}

fn manifests() -> impl Strategy<Value = Manifest> {
    let purpose = prop_oneof![Just(Purpose::Migrate), Just(Purpose::Verdict), Just(Purpose::Rehearse)];
    let machine = (name(), 0u8..63, any::<Option<[u8; 16]>>(), vec(name(), 0..4))
        .prop_map(|(name, page_bits, uuid, capabilities)| Machine { name, page_bits, uuid, capabilities });
    let setting = (name(), any::<u64>()).prop_map(|(name, value)| Setting { name, value });
    let block = (name(), any::<(u64, u64, u64, bool)>()).prop_map(|(name, (length, page_size, address, ignored))| {
        RamBlock { name, length, page_size, address, ignored }
    });
    use proptest::option::of;
    (purpose, of(machine), vec(setting, 0..4), of(vec(block, 0..4)), vec(devices(), 0..8))
        .prop_map(|(purpose, machine, settings, ram, devices)| Manifest { purpose, machine, settings, ram, devices })
}

fn requests() -> impl Strategy<Value = Request> {
    prop_oneof![
        manifests().prop_map(Request::Manifest),
        vec(vec(any::<u8>(), 0..50), 0..5).prop_map(Request::Layouts),
        vec(any::<u8>(), 0..100).prop_map(Request::Rehearsal),
    ]
}

fn answers() -> impl Strategy<Value = Answer> {
    let severity =
        prop_oneof![Just(Severity::Note), Just(Severity::Warning), Just(Severity::Risk), Just(Severity::Error)];
    let device = proptest::option::of((vec(any::<u8>(), 1..40), any::<u32>()));
    let problem = (severity, device, ".{0,20}", ".{0,40}").prop_map(|(severity, device, path, message)| Problem {
        severity,
        device,
        path,
        message,
    });
    let time =
        (name(), any::<u32>(), any::<u64>()).prop_map(|(name, instance, micros)| LoadTime { name, instance, micros });
    prop_oneof![
        (any::<bool>(), vec(problem, 0..6)).prop_map(|(passes, problems)| Answer::Verdict { passes, problems }),
        vec(any::<u32>(), 0..9).prop_map(Answer::Wanted),
        (".{0,20}", vec(time, 0..6)).prop_map(|(failure, times)| Answer::Report { failure, times }),
    ]
}

proptest! {
    #[test]
    fn decoded_requests_equal_the_encoded(request in requests()) {
        prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
    }

    #[test]
    fn decoded_answers_equal_the_encoded(answer in answers()) {
        prop_assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
    }

    #[test]
    fn members_of_later_releases_are_ignored(manifest in manifests(), more in vec(any::<u8>(), 0..20)) {
        let body = [Request::Manifest(manifest.clone()).encode(), more].concat();
        prop_assert_eq!(Request::decode(&body), Ok(Request::Manifest(manifest)));
    }

    #[test]
    fn cut_bodies_are_rejected(manifest in manifests(), answer in answers()) {
        for (body, is_request) in [(Request::Manifest(manifest).encode(), true), (answer.encode(), false)] {
            for len in 0..body.len() {
                let cut = &body[..len];
                let failed = if is_request { Request::decode(cut).is_err() } else { Answer::decode(cut).is_err() };
                prop_assert!(failed, "cut at {len}");
            }
        }
    }

    #[test]
    fn decode_of_random_bytes_causes_no_panic(kind in 0u8..5, body in vec(any::<u8>(), 0..400)) {
        let body = [&[kind][..], &body].concat();
        let _ = (Request::decode(&body), Answer::decode(&body));
    }
}

#[test]
fn counts_beyond_the_body_are_rejected_before_they_claim_memory() {
    let mut body = Request::Manifest(Manifest::default()).encode();
    let len = body.len();
    body[len - 4..].copy_from_slice(&u32::MAX.to_be_bytes());
    let error = Request::decode(&body).unwrap_err();
    assert_eq!(error, BodyError::Invalid { what: "the number of devices", value: u32::MAX.into() });
}

#[test]
fn unknown_versions_are_named() {
    let mut body = Request::Manifest(Manifest::default()).encode();
    body[2] = 7;
    assert_eq!(Request::decode(&body).unwrap_err().to_string(), "preflight: version 7, expected 1");
}

#[test]
fn encoding_is_as_documented() {
    let device =
        Device { name: b"d".to_vec(), version: 2, alias: u32::MAX, is_sent: true, digest: 5, ..Device::default() };
    let manifest = Manifest { devices: vec![device], ..Manifest::default() };
    let text: String = Request::Manifest(manifest).encode().iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = "01 0001 00 00 0000 00 00000001 0164 00000000 00000002 00000000 ffffffff 00 00000000 01 \
                    0000000000000005";
    assert_eq!(text, expected.replace(' ', ""));
}

#[test]
fn digests_tell_sequences_apart() {
    let of = |parts: &[&[u8]]| {
        let mut digest = Digest::default();
        parts.iter().for_each(|part| digest.text(part));
        digest.finish()
    };
    assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
    assert_ne!(of(&[b""]), of(&[]));
    assert_eq!(of(&[b"abc"]), of(&[b"abc"]));
}
