// SPDX-License-Identifier: LGPL-2.1-or-later
//! Makes certificates for tests: a CA, certificates that it signs, lists of revoked ones, and directories as users have
//! them. Used by the tests of `channel::tls` and of the driver.
#![allow(dead_code, reason = "each of them uses a part")]

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A year that is over, and one that will not come soon.
pub const PAST: i32 = 2001;
pub const FUTURE: i32 = 2090;

/// What a certificate says.
#[derive(Clone, Copy, Debug)]
pub struct Spec<'a> {
    /// The CN; the O is "Test".
    pub name: &'a str,
    /// Names and addresses of the host.
    pub hosts: &'a [&'a str],
    /// First and last year.
    pub years: (i32, i32),
    /// May be a destination, may be a source.
    pub purposes: (bool, bool),
}

/// A usual destination.
pub const DESTINATION: Spec<'static> = Spec {
    name: "destination",
    hosts: &["destination.example", "localhost", "127.0.0.1"],
    years: (PAST, FUTURE),
    purposes: (true, false),
};

/// A usual source.
pub const SOURCE: Spec<'static> = Spec { name: "source", hosts: &[], years: (PAST, FUTURE), purposes: (false, true) };

/// A certificate with its key, in PEM.
pub struct Issued {
    pub cert: String,
    pub key: String,
    pub serial: u64,
}

/// A CA.
pub struct Authority {
    cert: Certificate,
    key: KeyPair,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        Self { cert: params.self_signed(&key).unwrap(), key }
    }

    pub fn pem(&self) -> String {
        self.cert.pem()
    }

    /// Signs a certificate.
    pub fn issue(&self, spec: &Spec) -> Issued {
        static SERIAL: AtomicU64 = AtomicU64::new(1000);
        let hosts: Vec<_> = spec.hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Test");
        params.distinguished_name.push(DnType::CommonName, spec.name);
        params.not_before = date_time_ymd(spec.years.0, 1, 1);
        params.not_after = date_time_ymd(spec.years.1, 12, 31);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if spec.purposes.0 {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if spec.purposes.1 {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        let serial = SERIAL.fetch_add(1, Relaxed);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.cert, &self.key).unwrap();
        Issued { cert: cert.pem(), key: key.serialize_pem(), serial }
    }

    /// A list of revoked certificates that is valid until the end of a year.
    pub fn revoke(&self, serials: &[u64], until: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(PAST, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(PAST, 1, 1),
            next_update: date_time_ymd(until, 12, 31),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.cert, &self.key).unwrap().pem().unwrap()
    }
}

/// A directory with certificates. Dropping it removes it.
pub struct Dir(PathBuf);

impl Dir {
    /// An empty directory.
    pub fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("savevm-tls-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// A directory with all that either side needs.
    pub fn standard(authority: &Authority) -> Self {
        let dir = Self::new();
        dir.write("ca-cert.pem", authority.pem());
        dir.put("server", &authority.issue(&DESTINATION));
        dir.put("client", &authority.issue(&SOURCE));
        dir
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.0.join(name), text).unwrap();
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.0.join(name)).unwrap();
    }

    /// Writes a certificate with its key; `side` is "server" or "client".
    pub fn put(&self, side: &str, issued: &Issued) {
        self.write(&format!("{side}-cert.pem"), &issued.cert);
        self.write(&format!("{side}-key.pem"), &issued.key);
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
