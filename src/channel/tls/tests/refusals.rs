// SPDX-License-Identifier: LGPL-2.1-or-later
//! Certificates and files that are refused: both sides say which one, why, and what to do.

use super::certificates::{Authority, DESTINATION, Dir, FUTURE, PAST, SOURCE, Spec};
use super::{Ends, options, read_some, shake};
use crate::channel::tls::Credentials;
use crate::channel::{Channel, Role, TlsOptions};
use crate::error::{Error, Result};
use std::sync::Arc;

/// The text with which each side ends: of the handshake, or of the first read after it.
fn texts((connected, accepted): Ends) -> (String, String) {
    let text = |result: Result<Arc<dyn Channel>>| match result {
        Err(error) => error.to_string(),
        Ok(channel) => match read_some(&*channel, 1) {
            Err(err) => Error::io("read", &err).to_string(),
            Ok(bytes) => format!("no error, {} bytes", bytes.len()),
        },
    };
    // The destination's handshake is complete, or its channel is closed.
    let here = accepted.err().map_or_else(|| "accepted".to_owned(), |error| error.to_string());
    (text(connected), here)
}

struct Refusal<'a> {
    what: &'a str,
    files: FileChange<'a>,
    options: &'a dyn Fn(&mut TlsOptions, &mut TlsOptions),
    /// Parts of the texts at the source and at the destination.
    at_source: &'a [&'a str],
    at_destination: &'a [&'a str],
    /// Which side can't even begin, and parts of its text.
    own: Option<(Role, &'a [&'a str])>,
}

fn check(refusal: &Refusal<'_>) {
    let what = refusal.what;
    let authority = Authority::new("Test CA");
    let (source, destination) = (Dir::standard(&authority), Dir::standard(&authority));
    (refusal.files)(&authority, &source, &destination);
    let (mut near, mut far) = (options(&source), options(&destination));
    (refusal.options)(&mut near, &mut far);
    for (role, options) in [(Role::Source, &near), (Role::Destination, &far)] {
        let loaded = Credentials::load(options, role);
        match refusal.own.filter(|(owner, _)| *owner == role) {
            Some((_, parts)) => {
                let text = loaded.err().unwrap_or_else(|| panic!("{what}: {role:?} begins")).to_string();
                parts
                    .iter()
                    .for_each(|part| assert!(text.contains(part), "{what}, {role:?}: {part} is not in: {text}"));
            }
            None => drop(loaded.unwrap_or_else(|error| panic!("{what}: {role:?}: {error}"))),
        }
    }
    if refusal.at_source.is_empty() {
        return;
    }
    // A peer that is not this library may use such a certificate all the same.
    let near = Credentials::load_unchecked(&near, Role::Source).unwrap();
    let far = Credentials::load_unchecked(&far, Role::Destination).unwrap();
    let (at_source, at_destination) = texts(shake(&near, &far));
    for (side, text, parts) in
        [("source", at_source, refusal.at_source), ("destination", at_destination, refusal.at_destination)]
    {
        parts.iter().for_each(|part| assert!(text.contains(part), "{what}, {side}: '{part}' is not in: {text}"));
    }
}

/// Changes the files of the source and of the destination.
type FileChange<'a> = &'a dyn Fn(&Authority, &Dir, &Dir);

const SAME: FileChange<'_> = &|_, _, _| ();
const USUAL: &dyn Fn(&mut TlsOptions, &mut TlsOptions) = &|_, _| ();

#[test]
fn bad_certificate_is_refused_on_both_ends_with_the_reason() {
    let expired = Spec { years: (PAST, PAST + 1), ..SOURCE };
    let early = Spec { years: (FUTURE - 1, FUTURE), ..SOURCE };
    let server_expired = Spec { years: (PAST, PAST + 1), ..DESTINATION };
    let server_early = Spec { years: (FUTURE - 1, FUTURE), ..DESTINATION };
    let elsewhere = Spec { hosts: &["other.example", "10.0.0.7"], ..DESTINATION };
    let nowhere = Spec { hosts: &[], ..DESTINATION };
    let other_purpose = Spec { purposes: (true, false), ..SOURCE };
    let table = [
        Refusal {
            what: "the source's certificate has expired",
            files: &|ca, source, _| source.put("client", &ca.issue(&expired)),
            options: USUAL,
            at_source: &[
                "the destination refused this side's certificate",
                "client-cert.pem (O=Test,CN=source)",
                "expired",
            ],
            at_destination: &["the source's certificate (O=Test,CN=source) is refused", "until 2002-12-31", "renew it"],
            own: Some((Role::Source, &["client-cert.pem (O=Test,CN=source) is not usable", "expired", "2002-12-31"])),
        },
        Refusal {
            what: "the destination's certificate has expired",
            files: &|ca, _, destination| destination.put("server", &ca.issue(&server_expired)),
            options: USUAL,
            at_source: &["the destination's certificate (O=Test,CN=destination) is refused", "until 2002-12-31"],
            at_destination: &["the source refused this side's certificate", "server-cert.pem (O=Test,CN=destination)"],
            own: Some((Role::Destination, &["server-cert.pem", "expired"])),
        },
        Refusal {
            what: "the source's certificate is not valid yet",
            files: &|ca, source, _| source.put("client", &ca.issue(&early)),
            options: USUAL,
            at_source: &["refused this side's certificate", "client-cert.pem"],
            at_destination: &["not valid yet", "valid from 2089-01-01", "check the clocks"],
            own: Some((Role::Source, &["not valid yet", "2089-01-01"])),
        },
        Refusal {
            what: "the destination's certificate is not valid yet",
            files: &|ca, _, destination| destination.put("server", &ca.issue(&server_early)),
            options: USUAL,
            at_source: &["not valid yet", "valid from 2089-01-01", "check the clocks"],
            at_destination: &["refused this side's certificate", "server-cert.pem"],
            own: Some((Role::Destination, &["not valid yet"])),
        },
        Refusal {
            what: "the destination has another name",
            files: &|ca, _, destination| destination.put("server", &ca.issue(&elsewhere)),
            options: USUAL,
            at_source: &[
                "not for the name 'localhost'",
                "but only for other.example, 10.0.0.7: set SaveVMTls.hostname",
            ],
            at_destination: &["the source refused this side's certificate", "not for the name"],
            own: None,
        },
        Refusal {
            what: "the destination's certificate has no name",
            files: &|ca, _, destination| destination.put("server", &ca.issue(&nowhere)),
            options: USUAL,
            at_source: &["not for the name 'localhost'", "no subjectAltName"],
            at_destination: &["the source refused this side's certificate"],
            own: None,
        },
        Refusal {
            what: "the name that is asked for is not the destination's",
            files: SAME,
            options: &|source, _| source.hostname = Some("backup.example".into()),
            at_source: &["not for the name 'backup.example'", "destination.example"],
            at_destination: &["the source refused this side's certificate"],
            own: None,
        },
        Refusal {
            what: "the source's CA is unknown at the destination",
            files: &|_, source, _| {
                let other = Authority::new("Other CA");
                source.put("client", &other.issue(&SOURCE));
            },
            options: USUAL,
            at_source: &["refused this side's certificate", "the CA that signed it is not in the ca-cert.pem there"],
            at_destination: &["no CA of", "ca-cert.pem has signed it", "its issuer is CN=Other CA"],
            own: Some((Role::Source, &["no CA of", "CN=Other CA"])),
        },
        Refusal {
            what: "the destination's CA is unknown at the source",
            files: &|_, source, _| source.write("ca-cert.pem", Authority::new("Other CA").pem()),
            options: USUAL,
            at_source: &["the destination's certificate", "no CA of", "its issuer is CN=Test CA"],
            at_destination: &["refused this side's certificate", "the CA that signed it is not"],
            own: Some((Role::Source, &["no CA of"])),
        },
        Refusal {
            what: "the source's certificate is revoked",
            files: &|ca, source, destination| {
                let issued = ca.issue(&SOURCE);
                source.put("client", &issued);
                destination.write("ca-crl.pem", ca.revoke(&[issued.serial], FUTURE));
            },
            options: USUAL,
            at_source: &["refused this side's certificate", "it is revoked"],
            at_destination: &[
                "the source's certificate (O=Test,CN=source) is refused",
                "ca-crl.pem says that it is revoked",
            ],
            own: None,
        },
        Refusal {
            what: "the destination's certificate is revoked",
            files: &|ca, source, destination| {
                let issued = ca.issue(&DESTINATION);
                destination.put("server", &issued);
                source.write("ca-crl.pem", ca.revoke(&[7, issued.serial], FUTURE));
            },
            options: USUAL,
            at_source: &["ca-crl.pem says that it is revoked"],
            at_destination: &["refused this side's certificate", "it is revoked"],
            own: None,
        },
        Refusal {
            what: "the list of revoked certificates is out of date",
            files: &|ca, _, destination| destination.write("ca-crl.pem", ca.revoke(&[7], PAST)),
            options: USUAL,
            at_source: &["refused this side's certificate"],
            at_destination: &["ca-crl.pem is out of date"],
            own: Some((Role::Destination, &["ca-crl.pem is out of date"])),
        },
        Refusal {
            what: "the source has no certificate",
            files: &|_, source, _| {
                source.remove("client-cert.pem");
                source.remove("client-key.pem");
            },
            options: USUAL,
            at_source: &["the destination wants a certificate", "put client-cert.pem and client-key.pem into"],
            at_destination: &["the source has sent no certificate", "client-cert.pem"],
            own: None,
        },
        Refusal {
            what: "the source's name is not in the list",
            files: SAME,
            options: &|_, destination| {
                destination.allowed_peers = Some(vec!["O=Test,CN=other".into(), "CN=source".into()])
            },
            at_source: &["refused this side's certificate", "not among the allowed ones"],
            at_destination: &["not in SaveVMTls.allowed_peers", "add \"O=Test,CN=source\""],
            own: None,
        },
        Refusal {
            what: "the destination's name is not in the list",
            files: SAME,
            options: &|source, _| source.allowed_peers = Some(Vec::new()),
            at_source: &["not in SaveVMTls.allowed_peers", "add \"O=Test,CN=destination\""],
            at_destination: &["refused this side's certificate", "not among the allowed ones"],
            own: None,
        },
        Refusal {
            what: "the source's certificate is for another purpose",
            files: &|ca, source, _| source.put("client", &ca.issue(&other_purpose)),
            options: USUAL,
            at_source: &["refused this side's certificate"],
            at_destination: &["extended key usage", "clientAuth"],
            own: Some((Role::Source, &["extended key usage"])),
        },
    ];
    table.iter().for_each(check);
}

#[test]
fn bad_file_is_refused_at_the_start_with_its_path() {
    type Own<'a> = (Role, &'a [&'a str]);
    let table: [(&str, FileChange<'_>, Own<'_>); 12] = [
        (
            "no key",
            &|_, source, _| source.remove("client-key.pem"),
            (Role::Source, &["client-key.pem is missing", "client-cert.pem needs it"]),
        ),
        (
            "no certificate",
            &|_, _, destination| destination.remove("server-cert.pem"),
            (Role::Destination, &["server-cert.pem is missing", "server-key.pem needs it"]),
        ),
        (
            "neither",
            &|_, _, destination| {
                destination.remove("server-cert.pem");
                destination.remove("server-key.pem");
            },
            (Role::Destination, &["server-cert.pem is missing", "needs a certificate"]),
        ),
        ("no CA", &|_, source, _| source.remove("ca-cert.pem"), (Role::Source, &["ca-cert.pem is missing"])),
        (
            "another key",
            &|ca, source, _| source.write("client-key.pem", ca.issue(&SOURCE).key),
            (Role::Source, &["client-cert.pem (O=Test,CN=source) does not belong to the private key"]),
        ),
        (
            "an empty certificate",
            &|_, source, _| source.write("client-cert.pem", ""),
            (Role::Source, &["client-cert.pem has no certificate in PEM"]),
        ),
        (
            "a certificate as the key",
            &|ca, source, _| source.write("client-key.pem", ca.pem()),
            (Role::Source, &["client-key.pem has no private key in PEM"]),
        ),
        (
            "a cut key",
            &|_, source, _| source.write("client-key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n"),
            (Role::Source, &["client-key.pem"]),
        ),
        (
            "an encrypted key",
            &|_, source, _| {
                source.write(
                    "client-key.pem",
                    "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
                )
            },
            (Role::Source, &["client-key.pem is encrypted", "openssl pkey"]),
        ),
        (
            "a damaged CA",
            &|_, source, _| {
                source.write("ca-cert.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            },
            (Role::Source, &["ca-cert.pem has an unusable certificate"]),
        ),
        (
            "an empty list",
            &|_, source, _| source.write("ca-crl.pem", "nothing"),
            (Role::Source, &["ca-crl.pem has no revocation list in PEM"]),
        ),
        (
            "a large file",
            &|_, source, _| source.write("ca-cert.pem", vec![b'x'; 5 << 20]),
            (Role::Source, &["ca-cert.pem is larger than"]),
        ),
    ];
    for (what, files, own) in table {
        check(&Refusal { what, files, options: USUAL, at_source: &[], at_destination: &[], own: Some(own) });
    }
    let nowhere = TlsOptions { dir: "/no-such-directory".into(), ..options(&Dir::new()) };
    let error = Credentials::load(&nowhere, Role::Source).err().unwrap();
    assert_eq!(error.errno(), libc::ENOENT);
    assert!(error.message().contains("/no-such-directory/ca-cert.pem is missing"), "{error}");
}
