// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where a snapshot is saved to. A regular file is replaced only by a whole one.
//!
//! The stream goes to a file without a name (`O_TMPFILE`) in the directory of the target, or to a hidden one where the file
//! system has no such files. `finish` syncs it, gives it the target's name in one step, and syncs the directory. So a full
//! disk, a crash or a kill leaves the previous file as it was. Until then both files take room.
//!
//! These are written in place: everything that is not a regular file, `file:PATH,offset=N` (what is before the offset
//! belongs to somebody else), a file that is a mount point of its own, and a file in a directory that can't be written to.

use super::fd::FdChannel;
use super::{Cancel, Channel, Uri, connect};
use crate::error::{Error, Result};
use crate::sys::link_open_file;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// The outgoing side of a URI, for a stream that is whole only when `finish` says so.
pub struct Sink {
    channel: Arc<dyn Channel>,
    replacement: Option<Replacement>,
    uri: Uri,
}

impl Sink {
    /// Opens the outgoing side of `uri`, as `connect` does, but for a regular file.
    pub fn open(uri: &Uri, limit: Option<Duration>, cancel: &Cancel) -> Result<Self> {
        let replacement = match uri {
            Uri::File { path, offset: 0 } => {
                Replacement::begin(path).map_err(|err| Error::io(format_args!("creating {uri}"), &err))?
            }
            _ => None,
        };
        let channel: Arc<dyn Channel> = match &replacement {
            Some(new) => {
                let copy = new.file.try_clone().map_err(|err| Error::io(format_args!("creating {uri}"), &err))?;
                Arc::new(FdChannel::new(copy.into(), true)?.named(uri))
            }
            None => connect(uri, limit, cancel)?,
        };
        Ok(Self { channel, replacement, uri: uri.clone() })
    }

    /// The channel to write to.
    pub fn channel(&self) -> &Arc<dyn Channel> {
        &self.channel
    }

    /// Ends the stream, whose channel is closed. A file becomes the target if it was `saved`, else it is removed, and the
    /// error says how much of it was written.
    pub fn finish(self, saved: Result<()>) -> Result<()> {
        let Some(new) = self.replacement else { return saved };
        saved.and_then(|()| new.commit(&self.uri)).map_err(|error| {
            let written = new.file.metadata().map_or(0, |data| data.len());
            let text = format!("{} ({written} bytes were written; {} is as before)", error.message(), self.uri);
            if new.is_committed() { error } else { error.with_message(text) }
        })
    }
}

/// A file that is to replace another one, or to be the first of its name.
struct Replacement {
    file: File,
    /// The file's name until it is the target; removed with this.
    name: Hidden,
    target: PathBuf,
    directory: File,
}

/// A hidden name in a directory. Dropping it removes the file of that name, if there is one.
struct Hidden {
    path: PathBuf,
    exists: std::cell::Cell<bool>,
    committed: std::cell::Cell<bool>,
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if self.exists.get() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The file that a path leads to, and whether there is one. `None`: a link that leads nowhere.
fn resolve(path: &Path) -> io::Result<Option<PathBuf>> {
    match fs::canonicalize(path) {
        Ok(real) => Ok(Some(real)),
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        Err(_) if fs::symlink_metadata(path).is_ok() => Ok(None),
        Err(err) => {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(err) };
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(Some(fs::canonicalize(parent)?.join(name)))
        }
    }
}

fn hidden_name(directory: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let time = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos());
    directory.join(format!(".savevm-{}-{}-{time:x}", std::process::id(), COUNT.fetch_add(1, Relaxed)))
}

/// Opens a file without a name in the directory. An error if it could not be given one later.
fn open_unnamed(directory: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(directory)?;
    // It gets its name through this link.
    fs::symlink_metadata(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    Ok(file)
}

impl Replacement {
    /// Begins to replace the file at `path`. `None` if it has to be written in place.
    fn begin(path: &Path) -> io::Result<Option<Self>> {
        let Some(target) = resolve(path)? else { return Ok(None) };
        let Some(parent) = target.parent() else { return Ok(None) };
        let directory = File::open(parent)?;
        let old = fs::metadata(&target).ok();
        if old
            .as_ref()
            .is_some_and(|old| !old.is_file() || directory.metadata().map_or(true, |dir| dir.dev() != old.dev()))
        {
            return Ok(None);
        }
        let hidden = hidden_name(parent);
        let opened = open_unnamed(parent).map(|file| (file, false)).or_else(|_| {
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&hidden).map(|file| (file, true))
        });
        let (file, exists) = match opened {
            Ok(opened) => opened,
            Err(err)
                if matches!(err.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS)) && old.is_some() =>
            {
                log::warn!("{} is written in place, since its directory can't be written to: {err}", target.display());
                return Ok(None);
            }
            Err(err) => return Err(err),
        };
        let name = Hidden { path: hidden, exists: exists.into(), committed: false.into() };
        if let Some(old) = old {
            // Who may read the old file may read the new one.
            file.set_permissions(old.permissions())?;
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
                // Only a privileged process can; it is no reason to fail.
                let _ = std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()));
            }
        }
        Ok(Some(Self { file, name, target, directory }))
    }

    fn is_committed(&self) -> bool {
        self.name.committed.get()
    }

    /// Makes the file the target, on the disk as well.
    fn commit(&self, uri: &Uri) -> Result<()> {
        let failed = |what: &str, err: io::Error| Error::io(format_args!("{what} {uri}"), &err);
        self.file.sync_all().map_err(|err| failed("syncing", err))?;
        if !self.name.exists.get() {
            link_open_file(self.file.as_fd(), &self.name.path).map_err(|err| failed("naming", err))?;
            self.name.exists.set(true);
        }
        fs::rename(&self.name.path, &self.target).map_err(|err| failed("renaming the new file to", err))?;
        self.name.exists.set(false);
        self.name.committed.set(true);
        match self.directory.sync_all() {
            // Some file systems can't sync a directory.
            Err(err) if err.raw_os_error() != Some(libc::EINVAL) => Err(failed("syncing the directory of", err)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn place() -> PathBuf {
        let path = scratch_path("sink");
        fs::create_dir(&path).unwrap();
        path
    }

    fn open(path: &Path) -> Sink {
        let uri = Uri::File { path: path.into(), offset: 0 };
        Sink::open(&uri, None, &Cancel::new().unwrap()).unwrap()
    }

    fn save(path: &Path, bytes: &[u8], saved: Result<()>) -> Result<()> {
        let sink = open(path);
        write(&**sink.channel(), bytes).unwrap();
        sink.channel().close().unwrap();
        sink.finish(saved)
    }

    fn names(place: &Path) -> Vec<String> {
        let entries = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_when_it_is_whole_and_keeps_its_mode() {
        let place = place();
        let path = place.join("snapshot");
        save(&path, b"first", Ok(())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        save(&path, b"second", Ok(())).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(names(&place), ["snapshot"]);
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn a_failure_leaves_the_previous_file_and_nothing_else() {
        let place = place();
        let path = place.join("snapshot");
        save(&path, b"first", Ok(())).unwrap();
        let error = save(&path, b"half", Err(Error::new(libc::ENOSPC, "no room"))).unwrap_err();
        assert_eq!(error.errno(), libc::ENOSPC);
        assert!(error.message().starts_with("no room (4 bytes were written; file:"), "{error}");
        drop(open(&path));
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(names(&place), ["snapshot"]);
        let nothing = place.join("nothing");
        save(&nothing, b"half", Err(Error::invalid("x"))).unwrap_err();
        assert_eq!(names(&place), ["snapshot"]);
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn a_named_file_is_removed_too() {
        let place = place();
        let path = hidden_name(&place);
        fs::write(&path, "half").unwrap();
        drop(Hidden { path, exists: true.into(), committed: false.into() });
        assert!(names(&place).is_empty());
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn a_link_stays_and_leads_to_the_new_file() {
        let place = place();
        let (path, link) = (place.join("snapshot"), place.join("link"));
        save(&path, b"first", Ok(())).unwrap();
        symlink("snapshot", &link).unwrap();
        save(&link, b"second", Ok(())).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn what_is_no_regular_file_and_what_has_an_offset_is_written_in_place() {
        for text in ["/dev/null", "/dev/full"] {
            assert!(Replacement::begin(Path::new(text)).unwrap().is_none(), "{text}");
        }
        let place = place();
        let path = place.join("image");
        fs::write(&path, "head").unwrap();
        let uri = Uri::File { path: path.clone(), offset: 4 };
        let sink = Sink::open(&uri, None, &Cancel::new().unwrap()).unwrap();
        write(&**sink.channel(), b"tail").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"headtail");
        assert_eq!(
            Replacement::begin(Path::new("/no-such-directory/x")).err().unwrap().kind(),
            io::ErrorKind::NotFound
        );
        fs::remove_dir_all(place).unwrap();
    }
}
