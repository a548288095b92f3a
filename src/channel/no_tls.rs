// SPDX-License-Identifier: LGPL-2.1-or-later
//! Stands for TLS in a library that was built without the feature `tls`: no credentials exist.

use super::Channel;
use super::security::{Role, TlsOptions};
use crate::error::{Error, Result};
use std::sync::Arc;
use std::time::Duration;

/// There is no value of this type.
pub enum Credentials {}

impl Credentials {
    /// Fails, and says how to build the library with TLS.
    pub fn load(_options: &TlsOptions, _role: Role) -> Result<Self> {
        let text = "TLS is not in this libsavevm: build it with `meson setup -Dtls=enabled`, or with `cargo build \
                    --features tls`; or leave SaveVMParams.tls NULL";
        Err(Error::new(libc::ENOTSUP, text))
    }

    /// Never called.
    pub fn handshake(
        &self,
        _raw: &Arc<dyn Channel>,
        _host: Option<&str>,
        _limit: Duration,
    ) -> Result<Arc<dyn Channel>> {
        match *self {}
    }
}
