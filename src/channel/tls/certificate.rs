// SPDX-License-Identifier: LGPL-2.1-or-later
//! What messages and `allowed_peers` need of a certificate: its subject, its issuer and its validity (RFC 5280). rustls
//! verifies certificates; this module only reads them, within bounds, and returns `None` for what it does not understand.

use std::fmt::Write;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The tag of the version, which version 1 does not have.
const VERSION: u8 = 0xa0;

/// The readable part of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Distinguished names, in the order of the certificate and in the form of GnuTLS: "C=GB,O=Example,CN=host".
    pub subject: String,
    pub issuer: String,
    pub not_before: String,
    pub not_after: String,
}

impl Certificate {
    /// Reads a certificate in DER.
    pub fn read(der: &[u8]) -> Option<Self> {
        let mut tbs = Der(Der(Der(der).expect(SEQUENCE)?).expect(SEQUENCE)?);
        if tbs.0.first() == Some(&VERSION) {
            tbs.next()?;
        }
        let (_serial, _algorithm) = (tbs.next()?, tbs.next()?);
        let issuer = distinguished_name(tbs.expect(SEQUENCE)?)?;
        let mut validity = Der(tbs.expect(SEQUENCE)?);
        let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
        let subject = distinguished_name(tbs.expect(SEQUENCE)?)?;
        Some(Self { subject, issuer, not_before, not_after })
    }
}

/// The rest of a DER encoding.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Returns tag and content of the next element.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn expect(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == wanted).map(|(_, content)| content)
    }
}

/// "2026-11-30 14:05:00 UTC".
fn time((tag, content): (u8, &[u8])) -> Option<String> {
    let digits = content.strip_suffix(b"Z").filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    let text = std::str::from_utf8(digits).ok()?;
    let (century, rest) = match (tag, text.len()) {
        // Two digits of a year from 1950 to 2049.
        (UTC_TIME, 12) => (if text < "50" { "20" } else { "19" }, text),
        (GENERALIZED_TIME, 14) => text.split_at(2),
        _ => return None,
    };
    let part = |at: usize| &rest[at..at + 2];
    Some(format!("{century}{}-{}-{} {}:{}:{} UTC", part(0), part(2), part(4), part(6), part(8), part(10)))
}

/// Attribute types with a short name, as GnuTLS prints them, by their OID in DER.
const ATTRIBUTES: [(&[u8], &str); 15] = [
    (b"\x55\x04\x03", "CN"),
    (b"\x55\x04\x04", "surName"),
    (b"\x55\x04\x05", "serialNumber"),
    (b"\x55\x04\x06", "C"),
    (b"\x55\x04\x07", "L"),
    (b"\x55\x04\x08", "ST"),
    (b"\x55\x04\x09", "street"),
    (b"\x55\x04\x0a", "O"),
    (b"\x55\x04\x0b", "OU"),
    (b"\x55\x04\x0c", "title"),
    (b"\x55\x04\x2a", "givenName"),
    (b"\x55\x04\x41", "pseudonym"),
    (b"\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x01", "UID"),
    (b"\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x19", "DC"),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01", "EMAIL"),
];

fn distinguished_name(content: &[u8]) -> Option<String> {
    let mut text = String::new();
    let mut names = Der(content);
    while !names.0.is_empty() {
        let mut attributes = Der(names.expect(SET)?);
        let mut separator = ",";
        while !attributes.0.is_empty() {
            let mut attribute = Der(attributes.expect(SEQUENCE)?);
            let (kind, value) = (attribute.expect(OID)?, attribute.next()?);
            if !text.is_empty() {
                text += separator;
            }
            separator = "+";
            let known = ATTRIBUTES.iter().find(|(oid, _)| *oid == kind);
            match (known, string(value)) {
                (Some((_, name)), Some(value)) => write!(text, "{name}={}", escaped(&value)).ok()?,
                (_, _) => write!(text, "{}=#{}", dotted(kind)?, hex(value)).ok()?,
            }
        }
    }
    Some(text)
}

/// Decodes a directory string. `None`: the type is not one of text.
fn string((tag, content): (u8, &[u8])) -> Option<String> {
    match tag {
        // UTF8String, NumericString, PrintableString, IA5String.
        0x0c | 0x12 | 0x13 | 0x16 => String::from_utf8(content.to_vec()).ok(),
        // TeletexString, taken as Latin-1.
        0x14 => Some(content.iter().map(|byte| char::from(*byte)).collect()),
        // BMPString.
        0x1e if content.len().is_multiple_of(2) => {
            let units = content.chunks_exact(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]]));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        _ => None,
    }
}

/// RFC 4514, section 2.4.
fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut text = String::new();
    for (at, letter) in value.chars().enumerate() {
        let special = matches!(letter, ',' | '+' | '"' | '\\' | '<' | '>' | ';');
        let at_an_end = (letter == ' ' && (at == 0 || at == last)) || (letter == '#' && at == 0);
        if special || at_an_end {
            text.push('\\');
        }
        text.push(letter);
    }
    text
}

fn dotted(oid: &[u8]) -> Option<String> {
    let mut numbers = Vec::new();
    let mut number = 0u64;
    for byte in oid {
        number = number.checked_mul(128)? | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            numbers.push(std::mem::take(&mut number));
        }
    }
    let (first, rest) = numbers.split_first()?;
    let top = (first / 40).min(2);
    Some(rest.iter().fold(format!("{top}.{}", first - 40 * top), |text, number| format!("{text}.{number}")))
}

fn hex((tag, content): (u8, &[u8])) -> String {
    let len = content.len() as u8;
    [tag, len].iter().chain(content).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    fn sample() -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["host".into()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "GB");
        params.distinguished_name.push(DnType::OrganizationName, " Lo,ck \"&\" <Key>;+\\# ");
        params.distinguished_name.push(DnType::CustomDnType(vec![1, 2, 840, 5]), "x");
        params.distinguished_name.push(DnType::CommonName, "#hÖst");
        params.not_before = date_time_ymd(2026, 3, 4);
        params.not_after = date_time_ymd(2051, 12, 31);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn names_and_times_are_read_as_gnutls_prints_them() {
        let read = Certificate::read(&sample()).unwrap();
        assert_eq!(read.subject, "C=GB,O=\\ Lo\\,ck \\\"&\\\" \\<Key\\>\\;\\+\\\\#\\ ,1.2.840.5=#0c0178,CN=\\#hÖst");
        assert_eq!(read.issuer, read.subject);
        assert_eq!(read.not_before, "2026-03-04 00:00:00 UTC");
        assert_eq!(read.not_after, "2051-12-31 00:00:00 UTC");
    }

    #[test]
    fn cut_certificate_is_not_read() {
        let whole = sample();
        for cut in 0..whole.len() {
            assert_eq!(Certificate::read(&whole[..cut]), None, "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn any_change_of_a_certificate_is_survived(at in 0usize..300, byte in any::<u8>()) {
            let mut bytes = sample();
            bytes[at] = byte;
            let _ = Certificate::read(&bytes);
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Certificate::read(&bytes);
        }
    }
}
