// SPDX-License-Identifier: LGPL-2.1-or-later
//! The name and the instance ids of a new device, as QEMU 7.2 chooses them.

use super::entry::{Compat, INSTANCE_ID_ANY, Registration, Rules};
use super::index::Index;
use super::name::Name;
use crate::error::{Error, Result};
use crate::wire::limits::IDSTR_MAX;
use std::borrow::Cow;

/// Returns the name with the path of its object before it, and whether it was cut at 255 bytes, as QEMU cuts it.
pub(super) fn full_name<'a>(path: Option<&[u8]>, name: &'a [u8]) -> (Cow<'a, [u8]>, bool) {
    let full = path.map_or(Cow::Borrowed(name), |path| Cow::Owned([path, b"/", name].concat()));
    match full {
        _ if full.len() <= IDSTR_MAX => (full, false),
        Cow::Borrowed(name) => (Cow::Borrowed(&name[..IDSTR_MAX]), true),
        Cow::Owned(mut full) => {
            full.truncate(IDSTR_MAX);
            (Cow::Owned(full), true)
        }
    }
}

/// What a new device will be found by.
pub(super) struct Identity<'a> {
    pub idstr: Cow<'a, [u8]>,
    pub instance_id: u32,
    pub compat: Option<Compat>,
}

/// Chooses the name of a new device, its instance id and its older name. A cut name and a second (idstr, instance) are
/// errors if `rules` say so, else warnings. With `rules.unique`, the older name and the alias of another device count as well.
pub(super) fn identify<'a, H>(
    index: &Index,
    new: &'a Registration<H>,
    rules: Rules,
    warnings: &mut Vec<String>,
) -> Result<Identity<'a>> {
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let mut warn = |errno, text: String| {
        if rules.strict {
            Err(Error::new(errno, text))
        } else {
            warnings.push(text);
            Ok(())
        }
    };
    if new.name.is_empty() {
        // A reader takes an empty name for damage.
        return Err(Error::invalid("a device has no name, and its section could not be loaded; give it a name"));
    }
    let path = new.path.as_deref();
    if let Some(path) = path.filter(|path| path.len() >= IDSTR_MAX) {
        return Err(Error::new(libc::EPERM, format!("Path too long for VMState ({})", text(path))));
    }
    let (idstr, cut) = full_name(path, &new.name);
    if cut {
        warn(libc::ENAMETOOLONG, format!("the name '{}' was cut at {IDSTR_MAX} bytes", text(&idstr)))?;
    }
    let any = new.instance_id == INSTANCE_ID_ANY;
    let compat = path.map(|_| {
        let (name, _) = full_name(None, &new.name);
        let next = || index.holders(&name).map_or(0, |holders| holders.next_compat_instance(&index.order));
        Compat { idstr: Name::from(&*name), instance_id: if any { next() } else { new.instance_id as i32 } }
    });
    let holders = index.holders(&idstr);
    let instance_id = match holders {
        _ if !any && compat.is_none() => new.instance_id,
        Some(holders) => holders.next_instance(&index.order),
        None => 0,
    };
    if compat.is_some() && instance_id != 0 {
        return Err(Error::new(libc::EEXIST, format!("the object has registered '{}' before", text(&idstr))));
    }
    if instance_id == INSTANCE_ID_ANY {
        return Err(Error::new(libc::ENOSPC, format!("no instance id is left for '{}'", text(&idstr))));
    }
    if let Some(other) = rules.unique.then(|| index.find(&idstr, instance_id)).flatten() {
        // QEMU 8.2 looks for the device that a stream would reach by this name and instance.
        let (here, there) = (text(&idstr), text(&other.idstr));
        let error = if (&here, instance_id) == (&there, other.instance_id) {
            format!("'{here}' instance {instance_id} is registered already")
        } else {
            format!("'{here}' instance {instance_id} is already '{there}' instance {} in a stream", other.instance_id)
        };
        return Err(Error::new(libc::EEXIST, error));
    }
    if holders.is_some_and(|holders| holders.has_instance(instance_id, &index.order)) {
        warn(libc::EEXIST, format!("'{}' instance {instance_id} is registered twice", text(&idstr)))?;
    }
    Ok(Identity { idstr, instance_id, compat })
}
