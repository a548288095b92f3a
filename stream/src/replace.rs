// SPDX-License-Identifier: LGPL-2.1-or-later
//! Replaces a file by one that is complete and on the disk.
//!
//! The new file has no name until it is complete (`O_TMPFILE`), so that a program that is killed leaves nothing behind. On file
//! systems without such files, and without /proc, it has a hidden name in the target's directory. `commit` syncs the file, gives
//! it the target's name in one step, and syncs the directory. A full disk, a crash or a kill therefore leaves the previous file
//! unchanged. Until then both files take disk space.
//!
//! A file that replaces another one gets the permissions of that one. Links are followed, and stay.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Gives an open file that has no name a name, which must not exist: `linkat()` from the file's link in /proc/self/fd.
pub type Link = fn(BorrowedFd<'_>, &Path) -> io::Result<()>;

/// The permissions of a file that did not exist before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only its owner, because it contains a guest's memory.
    Owner,
    /// Everybody that the process's file mode creation mask permits.
    Mask,
}

/// How a target is written.
pub enum Target {
    /// A new file replaces it, or is created under its name.
    New(Replacement),
    /// In place: it is not a regular file, a mount point, or a link to a missing file.
    InPlace,
    /// It exists, but no new file can be created in its directory.
    Fixed(io::Error),
}

/// A new file that will replace the target. Dropping it without `commit` removes the file.
pub struct Replacement {
    file: File,
    target: PathBuf,
    directory: File,
    /// The file's name between its creation or link and the rename.
    hidden: PathBuf,
    state: State,
    link: Link,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unnamed,
    Hidden,
    Committed,
}

/// Why a file did not become the target, or is not safe on the disk.
#[derive(Debug)]
pub struct CommitError {
    /// What was done, as the begin of a message that continues with the name of the target.
    pub doing: &'static str,
    /// The reason.
    pub error: io::Error,
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if self.state == State::Hidden {
            let _ = fs::remove_file(&self.hidden);
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
            if path.as_os_str().as_bytes().ends_with(b"/") {
                return Err(io::Error::from_raw_os_error(libc::EISDIR));
            }
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(Some(fs::canonicalize(parent)?.join(name)))
        }
    }
}

/// Returns a name in the directory that no other file has.
fn hidden_name(directory: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let time = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos());
    directory.join(format!(".savevm-{}-{}-{time:x}", std::process::id(), COUNT.fetch_add(1, Relaxed)))
}

fn options(access: Access) -> OpenOptions {
    let mode = match access {
        Access::Owner => 0o600,
        Access::Mask => 0o666,
    };
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(mode);
    options
}

/// Opens an unnamed file in the directory. Fails if the file could not be given a name later.
fn open_unnamed(directory: &Path, access: Access) -> io::Result<File> {
    let file = options(access).custom_flags(libc::O_TMPFILE).open(directory)?;
    // The file is named through this link.
    fs::symlink_metadata(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    Ok(file)
}

/// Gives a new file the permissions of the old one.
fn copy_permissions(old: &Metadata, file: &File) -> io::Result<()> {
    file.set_permissions(old.permissions())?;
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
        // Only a privileged process can change the owner. A failure is ignored.
        let _ = std::os::unix::fs::fchown(file, Some(old.uid()), Some(old.gid()));
    }
    Ok(())
}

/// Whether the file is a mount point, which can't be renamed to. Without /proc, only a file of another file system is found.
fn is_mounted(file: &Path, directory: &File) -> bool {
    let mount = |file: &File| {
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
        Some(text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.to_owned())
    };
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(file);
    opened.is_ok_and(|file| mount(&file) != mount(directory))
}

impl Target {
    /// Begins to write the file at `path`. Relative paths are resolved now, so the working directory may change afterwards.
    pub fn begin(path: &Path, access: Access, link: Link) -> io::Result<Self> {
        let Some(target) = resolve(path)? else { return Ok(Self::InPlace) };
        let Some(parent) = target.parent() else { return Ok(Self::InPlace) };
        let old = fs::metadata(&target).ok();
        if old.as_ref().is_some_and(|old| !old.is_file()) {
            return Ok(Self::InPlace);
        }
        let directory = File::open(parent)?;
        if let Some(old) = &old
            && (directory.metadata()?.dev() != old.dev() || is_mounted(&target, &directory))
        {
            return Ok(Self::InPlace);
        }
        let hidden = hidden_name(parent);
        let opened = open_unnamed(parent, access)
            .map(|file| (file, State::Unnamed))
            .or_else(|_| options(access).create_new(true).open(&hidden).map(|file| (file, State::Hidden)));
        let (file, state) = match opened {
            Ok(opened) => opened,
            Err(err)
                if matches!(err.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS)) && old.is_some() =>
            {
                return Ok(Self::Fixed(err));
            }
            Err(err) => return Err(err),
        };
        let new = Replacement { file, target, directory, hidden, state, link };
        if let Some(old) = old {
            copy_permissions(&old, &new.file)?;
        }
        Ok(Self::New(new))
    }
}

impl Replacement {
    /// Returns the new file, which is open for reading and writing.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether the file is the target now, even if `commit` failed afterwards.
    pub fn is_committed(&self) -> bool {
        self.state == State::Committed
    }

    /// Makes the file the target, and syncs it to the disk.
    pub fn commit(&mut self) -> Result<(), CommitError> {
        let failed = |doing| move |error| CommitError { doing, error };
        self.file.sync_all().map_err(failed("syncing"))?;
        if self.state == State::Unnamed {
            (self.link)(self.file.as_fd(), &self.hidden).map_err(failed("naming"))?;
            self.state = State::Hidden;
        }
        fs::rename(&self.hidden, &self.target).map_err(failed("renaming the new file to"))?;
        self.state = State::Committed;
        match self.directory.sync_all() {
            // Some file systems cannot sync a directory.
            Err(err) if err.raw_os_error() != Some(libc::EINVAL) => Err(failed("syncing the directory of")(err)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// A directory that the test removes.
    fn place() -> PathBuf {
        let path = std::env::temp_dir().join(hidden_name(Path::new("")));
        fs::create_dir(&path).unwrap();
        path
    }

    /// Begins a file with a hidden name, as on a file system without unnamed files: there is no link.
    fn begin_hidden(path: &Path) -> Replacement {
        let no_link: Link = |_, _| Err(io::ErrorKind::Unsupported.into());
        let Target::New(mut new) = Target::begin(path, Access::Owner, no_link).unwrap() else {
            panic!("{}", path.display())
        };
        new.file = options(Access::Owner).create_new(true).open(&new.hidden).unwrap();
        new.state = State::Hidden;
        new
    }

    fn names(place: &Path) -> Vec<String> {
        let entries = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn file_with_a_hidden_name_becomes_the_target_or_is_removed() {
        let place = place();
        let path = place.join("file");
        let mut new = begin_hidden(&path);
        new.file().write_all(b"first").unwrap();
        assert!(!path.exists() && !new.is_committed());
        new.commit().unwrap();
        assert!(new.is_committed());
        drop(new);
        begin_hidden(&path).file().write_all(b"half").unwrap();
        assert_eq!((fs::read(&path).unwrap(), names(&place)), (b"first".to_vec(), vec!["file".to_owned()]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn failed_commit_names_the_step_and_leaves_nothing() {
        let place = place();
        let path = place.join("directory");
        let mut new = begin_hidden(&path);
        fs::create_dir(&path).unwrap();
        let failed = new.commit().unwrap_err();
        assert_eq!(failed.doing, "renaming the new file to", "{failed:?}");
        assert!(!new.is_committed());
        drop(new);
        assert_eq!(names(&place), ["directory"]);
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn targets_that_are_no_files_are_written_in_place() {
        let place = place();
        let no_link: Link = |_, _| Err(io::ErrorKind::Unsupported.into());
        let begin = |path: &Path| Target::begin(path, Access::Owner, no_link);
        symlink("missing", place.join("link")).unwrap();
        for path in [Path::new("/dev/null"), &place, &place.join("link"), Path::new("/")] {
            assert!(matches!(begin(path), Ok(Target::InPlace)), "{}", path.display());
        }
        for (path, code) in [
            (place.join("new/"), libc::EISDIR),
            (place.join("none/new"), libc::ENOENT),
            (place.join("n".repeat(300)), libc::ENAMETOOLONG),
            (PathBuf::new(), libc::ENOENT),
        ] {
            let error = begin(&path).err().unwrap_or_else(|| panic!("{}", path.display()));
            assert_eq!(error.raw_os_error(), Some(code), "{}", path.display());
        }
        fs::remove_dir_all(place).unwrap();
    }
}
