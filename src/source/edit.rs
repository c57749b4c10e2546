//! Changing a token file: under a lock, keeping what people wrote around it, and only to a content
//! that the server's own parser takes.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use toml_edit::DocumentMut;

use crate::document::{Problem, Problems};
use crate::token::TokenList;

/// Why a file was left as it was.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file is wrong before or would be after the change.
    #[error("{0}")]
    Invalid(#[from] Problems),
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

/// Applies `change` to the token file, which is made if it does not exist. Other edits wait meanwhile,
/// and a reader sees either the old content or the new one.
///
/// # Errors
/// The file was left as it was.
pub fn edit<T>(
    path: &Path,
    change: impl FnOnce(&TokenList, &mut DocumentMut) -> Result<T, Problems>,
) -> Result<T, EditError> {
    // a link is followed: what it points to is replaced, not the link
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let failed = |action| move |source| EditError::Io { file: path.clone(), action, source };
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // the lock is the folder's: the file itself is replaced under it
    let lock = File::open(folder).map_err(failed("its folder cannot be opened"))?;
    lock.lock().map_err(failed("cannot be locked against other edits"))?;

    let (text, permissions) = match fs::read_to_string(path) {
        Ok(text) => (text, fs::metadata(path).map_err(failed("cannot be read"))?.permissions()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), Permissions::from_mode(0o600)),
        Err(error) => return Err(failed("cannot be read")(error)),
    };
    let list = TokenList::parse(path, &text)?;
    let mut document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| Problems::from(Problem::in_file(path, error.message())))?;
    let outcome = change(&list, &mut document)?;
    let text = document.to_string();
    TokenList::parse(path, &text)?;

    let mut beside = NamedTempFile::new_in(folder).map_err(failed("its folder cannot be written"))?;
    let written = beside
        .write_all(text.as_bytes())
        .and_then(|()| beside.as_file().set_permissions(permissions))
        .and_then(|()| beside.as_file().sync_all());
    written.map_err(failed("the new content cannot be written"))?;
    beside.persist(path).map_err(|error| failed("cannot be replaced")(error.error))?;
    lock.sync_all().map_err(failed("its folder cannot be synced"))?;
    Ok(outcome)
}
