// SPDX-License-Identifier: LGPL-2.1-or-later
//! The target of a snapshot or of a migration to a file. A regular file is replaced only by a complete one.
//!
//! The stream is written to an unnamed file (`O_TMPFILE`) in the target's directory, or to a hidden file if the file
//! system does not support that. `finish` syncs the file, gives it the target's name in one step, and syncs the
//! directory. A full disk, a crash or a kill therefore leaves the previous file unchanged. Until then both files take
//! disk space.
//!
//! The following targets are written in place: files that are not regular, `file:PATH,offset=N` (other data precedes
//! the offset), a file that is a mount point, and a file in a directory without write permission.

use super::fd::FdChannel;
use super::{Cancel, Channel, Uri, connect};
use crate::error::{self, Error, Result};
use crate::sys::{link_open_file, with_piece};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// The outgoing side of a URI, for a stream that becomes visible only with `finish`.
pub struct Sink {
    channel: Arc<dyn Channel>,
    replacement: Option<Replacement>,
    uri: Uri,
}

impl Sink {
    /// Opens the outgoing side of `uri`. As `connect`, except for regular files.
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

    /// Returns the channel to write to.
    pub fn channel(&self) -> &Arc<dyn Channel> {
        &self.channel
    }

    /// Ends the stream, whose channel is closed. If `saved` is a success, the new file becomes the target. Otherwise
    /// the new file is removed, and the error contains how many bytes were written.
    pub fn finish(self, saved: Result<()>) -> Result<()> {
        let Some(new) = self.replacement else { return saved };
        Self::replace(&new, &self.uri, saved, |_| Ok(()))
    }

    /// As `finish`, with work on the complete file before it becomes the target. `ENOTSUP` if the target is written in
    /// place.
    pub fn finish_file<T>(self, saved: Result<()>, work: impl FnOnce(&File) -> Result<T>) -> Result<T> {
        let Some(new) = self.replacement else {
            let text = format!("{} is not a regular file that can be replaced", self.uri);
            return saved.and(Err(Error::new(libc::ENOTSUP, text)));
        };
        Self::replace(&new, &self.uri, saved, work)
    }

    fn replace<T>(new: &Replacement, uri: &Uri, saved: Result<()>, work: impl FnOnce(&File) -> Result<T>) -> Result<T> {
        let done = saved.and_then(|()| {
            let done = work(&new.file)?;
            new.commit(uri).map(|()| done)
        });
        done.map_err(|error| {
            // A sparse file has fewer blocks than its size shows.
            let written = new.file.metadata().map_or(0, |data| data.len().min(data.blocks() * 512));
            let text = format!("{} ({} were written; {uri} is unchanged)", error.message(), error::size(written));
            if new.is_committed() { error } else { error.with_message(text) }
        })
    }
}

/// Writes a file that is complete or, after a failure or a crash, as it was before.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |err| Error::io(format_args!("writing {}", path.display()), &err);
    let sink = Sink::open(&Uri::File { path: path.to_owned(), offset: 0 }, None, &Cancel::new()?)?;
    let written = with_piece(bytes, |piece| sink.channel.write_all(&mut [piece])).and_then(|()| sink.channel.close());
    sink.finish(written.map_err(failed))
}

/// A new file that will replace the target or be created under its name.
struct Replacement {
    file: File,
    /// The file's name until it becomes the target. Dropping it removes the file.
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

/// Resolves links. Returns the real path, whether or not the file exists, or `None` for a link to a missing file.
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

/// Opens an unnamed file in the directory. Fails if the file could not be given a name later.
fn open_unnamed(directory: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(directory)?;
    // The file is named through this link.
    fs::symlink_metadata(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    Ok(file)
}

impl Replacement {
    /// Begins to replace the file at `path`. Returns `None` if it must be written in place.
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
            OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&hidden)
                .map(|file| (file, true))
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
            // Keeps the permissions of the old file.
            file.set_permissions(old.permissions())?;
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
                // Only a privileged process can change the owner. A failure is ignored.
                let _ = std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()));
            }
        }
        Ok(Some(Self { file, name, target, directory }))
    }

    fn is_committed(&self) -> bool {
        self.name.committed.get()
    }

    /// Makes the file the target, and syncs it to the disk.
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
            // Some file systems cannot sync a directory.
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
    fn complete_file_replaces_the_target_and_keeps_its_mode() {
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
    fn failed_save_leaves_only_the_previous_file() {
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
    fn failed_save_removes_a_hidden_file() {
        let place = place();
        let path = hidden_name(&place);
        fs::write(&path, "half").unwrap();
        drop(Hidden { path, exists: true.into(), committed: false.into() });
        assert!(names(&place).is_empty());
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn link_is_kept_and_refers_to_the_new_file() {
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
    fn special_files_and_offsets_are_written_in_place() {
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
