// SPDX-License-Identifier: LGPL-2.1-or-later
//! The target of a snapshot or of a migration to a file. A regular file is replaced only by a complete one.
//!
//! `replace` has the rule. A full disk, a crash or a kill leaves the previous file unchanged.
//!
//! The following targets are written in place: files that are not regular, `file:PATH,offset=N` (other data precedes
//! the offset), a file that is a mount point, and a file in a directory without write permission.

use super::fd::FdChannel;
use super::{Cancel, Channel, Uri, connect};
use crate::error::{self, Error, Result};
use crate::replace::{Access, Replacement, Target};
use crate::sys::{link_open_file, with_piece};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
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
                begin(path).map_err(|err| Error::io(format_args!("creating {uri}"), &err))?
            }
            _ => None,
        };
        let channel: Arc<dyn Channel> = match &replacement {
            Some(new) => {
                let copy = new.file().try_clone().map_err(|err| Error::io(format_args!("creating {uri}"), &err))?;
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
        Self::replace(new, &self.uri, saved, |_| Ok(()))
    }

    /// As `finish`, with work on the complete file before it becomes the target. `ENOTSUP` if the target is written in
    /// place.
    pub fn finish_file<T>(self, saved: Result<()>, work: impl FnOnce(&File) -> Result<T>) -> Result<T> {
        let Some(new) = self.replacement else {
            let text = format!("{} is not a regular file that can be replaced", self.uri);
            return saved.and(Err(Error::new(libc::ENOTSUP, text)));
        };
        Self::replace(new, &self.uri, saved, work)
    }

    fn replace<T>(
        mut new: Replacement,
        uri: &Uri,
        saved: Result<()>,
        work: impl FnOnce(&File) -> Result<T>,
    ) -> Result<T> {
        let done = saved.and_then(|()| {
            let done = work(new.file())?;
            let committed = new.commit();
            committed.map(|()| done).map_err(|failed| Error::io(format_args!("{} {uri}", failed.doing), &failed.error))
        });
        done.map_err(|error| {
            // A sparse file has fewer blocks than its size shows.
            let written = new.file().metadata().map_or(0, |data| data.len().min(data.blocks() * 512));
            let text = format!("{} ({} were written; {uri} is unchanged)", error.message(), error::size(written));
            if new.is_committed() { error } else { error.with_message(text) }
        })
    }
}

/// Fails if the file at `path` can only be written in place, where a failure would destroy it.
pub fn check_replaceable(path: &Path) -> Result<()> {
    let refused = |why: &str| format!("{} is not written in place: {why}; save to another directory", path.display());
    match Target::begin(path, Access::Owner, link_open_file) {
        Ok(Target::Fixed(err)) => Err(Error::io(refused("no new file can be created in its directory"), &err)),
        Ok(Target::InPlace) if path.is_file() => Err(Error::new(libc::ENOTSUP, refused("it is a mount point"))),
        // What else is wrong is found when the file is opened.
        _ => Ok(()),
    }
}

/// Begins to replace the file at `path`. Returns `None` if it must be written in place.
fn begin(path: &Path) -> io::Result<Option<Replacement>> {
    match Target::begin(path, Access::Owner, link_open_file)? {
        Target::New(new) => Ok(Some(new)),
        Target::InPlace => Ok(None),
        Target::Fixed(err) => {
            log::warn!("{} is written in place, since its directory can't be written to: {err}", path.display());
            Ok(None)
        }
    }
}

/// Writes a file that is complete or, after a failure or a crash, as it was before.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |err| Error::io(format_args!("writing {}", path.display()), &err);
    let sink = Sink::open(&Uri::File { path: path.to_owned(), offset: 0 }, None, &Cancel::new()?)?;
    let written = with_piece(bytes, |piece| sink.channel.write_all(&mut [piece])).and_then(|()| sink.channel.close());
    sink.finish(written.map_err(failed))
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

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
            assert!(begin(Path::new(text)).unwrap().is_none(), "{text}");
        }
        let place = place();
        let path = place.join("image");
        fs::write(&path, "head").unwrap();
        let uri = Uri::File { path: path.clone(), offset: 4 };
        let sink = Sink::open(&uri, None, &Cancel::new().unwrap()).unwrap();
        write(&**sink.channel(), b"tail").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"headtail");
        assert_eq!(begin(Path::new("/no-such-directory/x")).err().unwrap().kind(), io::ErrorKind::NotFound);
        fs::remove_dir_all(place).unwrap();
    }
}
