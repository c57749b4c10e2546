//! Changing a token file, or a folder of them: under a lock, keeping what people wrote around it, and
//! only to a content that the server's own parser takes.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::buffer::spare_capacity;
use rustix::fs::{XattrFlags, fgetxattr, fremovexattr, fsetxattr, getxattr, listxattr};
use rustix::io::Errno;
use tempfile::NamedTempFile;
use toml::Value;
use toml::value::Datetime;

use super::file::read_list;
use super::page::{Fields, Page, Section};
use crate::document::Problems;
use crate::token::{Prefix, TokenList};
use crate::watch::{self, Content};

/// The file of a folder that takes what is new.
const FRESH: &str = "tokens.toml";

/// Why a file was left as it was.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file is wrong before or would be after the change.
    #[error("{0}")]
    Invalid(#[from] Problems),
    /// What is to be changed is not where the list says that it is.
    #[error("`{0}` is nowhere in the text of the list, so nothing was changed: edit the file by hand")]
    Missing(String),
    /// The system says no.
    #[error("{}: {action}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What could not be done.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// What is to be changed in the files of one list.
#[derive(Debug)]
pub struct Draft<'t> {
    pages: Vec<Page<'t>>,
    /// The page that takes what is new.
    fresh: usize,
}

impl Draft<'_> {
    /// Sets a key of the record that has this id.
    ///
    /// # Errors
    /// There is none.
    pub fn set(&mut self, section: Section, id: &str, key: &str, value: &Value) -> Result<(), EditError> {
        self.page(section, id)?.set(section, id, key, value);
        Ok(())
    }

    /// Adds records.
    pub fn add(&mut self, section: Section, records: &[Fields]) {
        if let Some(page) = self.pages.get_mut(self.fresh) {
            page.add(section, records);
        }
    }

    /// Takes out the record that has this id.
    ///
    /// # Errors
    /// There is none.
    pub fn remove(&mut self, section: Section, id: &str) -> Result<(), EditError> {
        self.page(section, id)?.remove(section, id);
        Ok(())
    }
}

impl<'t> Draft<'t> {
    /// The page with the record that has this id; a list has no two.
    fn page(&mut self, section: Section, id: &str) -> Result<&mut Page<'t>, EditError> {
        let mut pages = self.pages.iter_mut();
        pages.find(|page| page.has(section, id)).ok_or_else(|| EditError::Missing(id.to_owned()))
    }
}

/// A moment as the file has it.
pub fn moment(at: Timestamp) -> Value {
    // RFC 3339 is what TOML date-times are
    at.to_string().parse::<Datetime>().map_or_else(|_| Value::String(at.to_string()), Value::Datetime)
}

/// Applies `change` to the token file, which is made if it does not exist, or to the files of a folder.
/// Other edits wait meanwhile, and a reader sees either the old content of a file or the new one.
/// Returns the list as it is then, too.
///
/// # Errors
/// No file was changed; or, if a folder's second file could not be replaced, the first one was.
pub fn edit<T, E: From<EditError>>(
    path: &Path,
    prefix: &Prefix,
    change: impl FnOnce(&TokenList, &mut Draft<'_>) -> Result<T, E>,
) -> Result<(T, TokenList), E> {
    let (files, fresh) = files(path)?;
    let _locks = lock(&files)?;
    let olds = files.iter().map(|file| read(&file.target)).collect::<Result<Vec<_>, _>>()?;
    let named = |bytes: Vec<Vec<u8>>| -> Content { files.iter().map(|file| file.name.clone()).zip(bytes).collect() };
    let before = named(olds.iter().map(|(_, bytes)| bytes.clone()).collect());
    let list = read_list(&before, prefix).map_err(EditError::from)?;
    let texts = before.iter().map(|(_, bytes)| str::from_utf8(bytes).unwrap_or_default());

    let mut draft = Draft { pages: texts.map(Page::new).collect(), fresh };
    let outcome = change(&list, &mut draft)?;
    let after = named(draft.pages.into_iter().map(|page| page.changed().into_bytes()).collect());
    let list = read_list(&after, prefix).map_err(EditError::from)?;

    for ((file, (old, content)), (_, bytes)) in files.iter().zip(&olds).zip(&after) {
        if bytes != content {
            replace(&file.target, bytes, old.as_ref())?;
        }
    }
    Ok((outcome, list))
}

fn failed(file: &Path, action: &'static str) -> impl FnOnce(io::Error) -> EditError {
    move |source| EditError::Io { file: file.to_owned(), action, source }
}

/// A file by the name that people know it by, and what is to be replaced.
struct Place {
    name: PathBuf,
    target: PathBuf,
}

impl Place {
    /// A link is followed: what it points to is replaced, not the link.
    fn find(name: PathBuf) -> Result<Self, EditError> {
        let target = match fs::canonicalize(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if name.is_symlink() {
                    return Err(failed(&name, "is a link to nothing: make what it points to, or remove it")(error));
                }
                let parent = fs::canonicalize(folder(&name)).map_err(failed(&name, "its folder cannot be found"))?;
                parent.join(name.file_name().unwrap_or_default())
            }
            found => found.map_err(failed(&name, "cannot be found"))?,
        };
        Ok(Self { name, target })
    }
}

/// The files of the list, and which of them takes what is new.
fn files(path: &Path) -> Result<(Vec<Place>, usize), EditError> {
    let mut names = watch::files(path)?;
    let mut fresh = 0;
    if path.is_dir() {
        let name = path.join(FRESH);
        fresh = names.iter().position(|found| *found == name).unwrap_or(names.len());
        if fresh == names.len() {
            names.push(name);
        }
    }
    Ok((names.into_iter().map(Place::find).collect::<Result<_, _>>()?, fresh))
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Locks the folders, for the files themselves are replaced; all in one order, so that no two edits wait
/// for each other. The locks end when the handles are dropped.
fn lock(files: &[Place]) -> Result<Vec<File>, EditError> {
    let folders: BTreeSet<PathBuf> = files.iter().map(|file| folder(&file.target).to_owned()).collect();
    let lock = |folder: &PathBuf| {
        let handle = File::open(folder).map_err(failed(folder, "this folder cannot be opened"))?;
        handle.lock().map_err(failed(folder, "this folder cannot be locked against other edits"))?;
        Ok(handle)
    };
    folders.iter().map(lock).collect()
}

/// A file that does not exist is empty.
fn read(file: &Path) -> Result<(Option<Metadata>, Vec<u8>), EditError> {
    match fs::read(file) {
        Ok(bytes) => Ok((Some(fs::metadata(file).map_err(failed(file, "cannot be read"))?), bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((None, Vec::new())),
        Err(error) => Err(failed(file, "cannot be read")(error)),
    }
}

/// Writes beside the file, syncs and renames. Owner, mode and access control list stay as they are, or the
/// server could lose the right to read it; a new file is its maker's alone.
fn replace(file: &Path, bytes: &[u8], old: Option<&Metadata>) -> Result<(), EditError> {
    let folder = folder(file);
    let cannot_write = "the new content cannot be written";
    let mut beside = NamedTempFile::new_in(folder).map_err(failed(folder, "this folder cannot be written"))?;
    beside.write_all(bytes).map_err(failed(file, cannot_write))?;
    if let Some(old) = old {
        let new = beside.as_file().metadata().map_err(failed(file, cannot_write))?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            fchown(beside.as_file(), Some(old.uid()), Some(old.gid()))
                .map_err(failed(file, "its owner cannot be kept: run this as its owner"))?;
        }
        // first, for a mode may say that nobody writes them
        keep_attributes(file, beside.as_file())
            .map_err(failed(file, "its access control list and other attributes cannot be kept"))?;
        beside.as_file().set_permissions(old.permissions()).map_err(failed(file, cannot_write))?;
    }
    beside.as_file().sync_all().map_err(failed(file, cannot_write))?;
    beside.persist(file).map_err(|error| failed(file, "cannot be replaced")(error.error))?;
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(failed(folder, "is replaced, but its folder cannot be synced"))
}

/// Copies what the system keeps with a file besides owner and mode.
fn keep_attributes(old: &Path, new: &File) -> io::Result<()> {
    const ACL: &[u8] = b"system.posix_acl_access";
    /// The kernel allows no longer value, and no longer list of names.
    const LONGEST: usize = 64 * 1024;

    let mut names = Vec::with_capacity(LONGEST);
    match listxattr(old, spare_capacity(&mut names)) {
        // the filesystem has none
        Err(Errno::NOTSUP) => return Ok(()),
        listed => drop(listed?),
    }
    let kept = |name: &&[u8]| *name == ACL || *name == b"security.selinux" || name.starts_with(b"user.");
    for name in names.split(|byte| *byte == 0).filter(kept) {
        let (mut value, mut there) = (Vec::with_capacity(LONGEST), Vec::with_capacity(LONGEST));
        getxattr(old, name, spare_capacity(&mut value))?;
        // a label that is right already may not be ours to set
        if fgetxattr(new, name, spare_capacity(&mut there)).is_err() || there != value {
            fsetxattr(new, name, &value, XattrFlags::empty())?;
        }
    }
    // nor may anybody read it by a list that the folder gives to what is new in it
    if !names.split(|byte| *byte == 0).any(|name| name == ACL) {
        match fremovexattr(new, ACL) {
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            removed => removed?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_called_changed_that_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens.toml");
        let text = "[[users]]\nid = \"alice\"\n";
        fs::write(&file, text).unwrap();
        let changed = |change: fn(&mut Draft<'_>) -> Result<(), EditError>| {
            edit(&file, &Prefix::default(), |_, draft| change(draft)).map(drop)
        };
        let value = Value::String("x".to_owned());
        let refused = edit(&file, &Prefix::default(), |_, draft| draft.set(Section::Users, "bob", "name", &value));
        assert!(matches!(refused, Err(EditError::Missing(id)) if id == "bob"));
        for refused in [
            changed(|draft| draft.remove(Section::Users, "bob")),
            changed(|draft| draft.remove(Section::Tokens, "alice")),
        ] {
            assert!(matches!(refused, Err(EditError::Missing(_))), "{refused:?}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
        changed(|draft| draft.remove(Section::Users, "alice")).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "users = []\n");
    }
}
