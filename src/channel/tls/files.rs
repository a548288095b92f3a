// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads the certificates and keys of a directory, with QEMU's file names (`crypto/tlscredsx509.c`).

use super::certificate::Certificate;
use crate::channel::Role;
use crate::error::{Error, Result};
use crate::sys::open_at_once;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Largest file that is read, in bytes.
const FILE_MAX: u64 = 4 << 20;

/// The certificate and the key of this side.
pub struct Own {
    pub path: PathBuf,
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Own {
    /// Returns the path of the certificate with its subject, for messages.
    pub fn text(&self) -> String {
        let subject = self.chain.first().and_then(|der| Certificate::read(der)).map(|read| read.subject);
        format!("{} ({})", self.path.display(), subject.unwrap_or_else(|| "an unreadable subject".to_owned()))
    }
}

/// What the directory has for one side.
pub struct Files {
    pub ca_path: PathBuf,
    pub ca: Vec<CertificateDer<'static>>,
    pub crl_path: PathBuf,
    pub crls: Vec<CertificateRevocationListDer<'static>>,
    /// `None`: a source without a certificate.
    pub own: Option<Own>,
}

impl Files {
    /// Reads what the side `role` needs.
    pub fn read(dir: &Path, role: Role) -> Result<Self> {
        let ca_path = dir.join("ca-cert.pem");
        let crl_path = dir.join("ca-crl.pem");
        let ca = required(&ca_path, "it has the certificates of the CA that signed the peer's certificate")?;
        let crls = optional(&crl_path)?.map(|text| items(&crl_path, &text, "revocation list")).transpose()?;
        let name = if role == Role::Source { "client" } else { "server" };
        let (path, key_path) = (dir.join(format!("{name}-cert.pem")), dir.join(format!("{name}-key.pem")));
        Ok(Self {
            ca: items(&ca_path, &ca, "certificate")?,
            ca_path,
            crls: crls.unwrap_or_default(),
            crl_path,
            own: own(path, key_path, role)?,
        })
    }
}

fn own(path: PathBuf, key_path: PathBuf, role: Role) -> Result<Option<Own>> {
    let (cert, key) = (optional(&path)?, optional(&key_path)?);
    let missing = |absent: &Path, present: &Path| {
        let text = format!("TLS: {} is missing, and {} needs it", absent.display(), present.display());
        Error::new(libc::ENOENT, text)
    };
    match (cert, key) {
        (Some(cert), Some(key)) => {
            let chain = items(&path, &cert, "certificate")?;
            let key = PrivateKeyDer::from_pem_slice(&key).map_err(|err| bad_key(&key_path, &key, &err))?;
            Ok(Some(Own { path, chain, key }))
        }
        (Some(_), None) => Err(missing(&key_path, &path)),
        (None, Some(_)) => Err(missing(&path, &key_path)),
        (None, None) if role == Role::Source => Ok(None),
        (None, None) => {
            let why = "a destination that uses TLS needs a certificate";
            Err(Error::new(libc::ENOENT, format!("TLS: {} is missing: {why}", path.display())))
        }
    }
}

fn bad_key(path: &Path, text: &[u8], err: &pem::Error) -> Error {
    let path = path.display();
    let encrypted = [&b"ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"];
    if encrypted.iter().any(|mark| text.windows(mark.len()).any(|part| part == *mark)) {
        let remedy = "decrypt it, for example with `openssl pkey`, and protect the file by its mode";
        return Error::invalid(format!("TLS: {path} is encrypted, which is not supported: {remedy}"));
    }
    match err {
        pem::Error::NoItemsFound => Error::invalid(format!("TLS: {path} has no private key in PEM")),
        err => Error::invalid(format!("TLS: {path} can't be read as a private key in PEM: {err}")),
    }
}

/// Reads all items of one kind. There must be at least one.
fn items<T: PemObject>(path: &Path, text: &[u8], what: &str) -> Result<Vec<T>> {
    let path = path.display();
    let read: std::result::Result<Vec<T>, _> = T::pem_slice_iter(text).collect();
    let read = read.map_err(|err| Error::invalid(format!("TLS: {path} can't be read as PEM: {err}")))?;
    match read.is_empty() {
        true => Err(Error::invalid(format!("TLS: {path} has no {what} in PEM"))),
        false => Ok(read),
    }
}

fn required(path: &Path, why: &str) -> Result<Vec<u8>> {
    let missing = || Error::new(libc::ENOENT, format!("TLS: {} is missing: {why}", path.display()));
    optional(path)?.ok_or_else(missing)
}

/// Reads a file that may be absent.
fn optional(path: &Path) -> Result<Option<Vec<u8>>> {
    let failed = |err| Error::io(format_args!("TLS: reading {}", path.display()), &err);
    let file = match open_at_once(path) {
        Ok(file) => file,
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(failed(err)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(Error::invalid(format!("TLS: {} is larger than {FILE_MAX} bytes", path.display())));
    }
    Ok(Some(bytes))
}
