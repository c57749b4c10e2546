//! When each token was used last: kept in memory, written rarely beside the token file, read by the
//! token commands. Losing it loses no safety.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tempfile::NamedTempFile;

use crate::access::Directory;

/// Last uses by token id.
pub type LastUses = BTreeMap<String, Timestamp>;

/// The file that goes with a token file, or with a folder of them.
pub fn beside(tokens: &Path) -> PathBuf {
    let mut name = tokens.as_os_str().to_owned();
    name.push(".last-used.json");
    name.into()
}

/// Reads what was written last; nothing was if there is no file.
///
/// # Errors
/// The file cannot be read, or is not one of ours.
pub fn read(path: &Path) -> io::Result<LastUses> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(Into::into),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(LastUses::new()),
        Err(error) => Err(error),
    }
}

/// Tells a directory what was written last.
pub fn restore(directory: &Directory, uses: &LastUses) {
    for grant in directory.grants() {
        if let Some(at) = uses.get(grant.token_id().as_str()) {
            grant.touch(*at);
        }
    }
}

/// What a directory knows now.
pub fn collect(directory: &Directory) -> LastUses {
    directory.grants().filter_map(|grant| Some((grant.token_id().to_string(), grant.last_used()?))).collect()
}

/// Writes the file whole, beside itself and then into place.
///
/// # Errors
/// The folder cannot be written, such as that of a mounted Secret.
pub fn write(path: &Path, uses: &LastUses) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut beside = NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut beside, uses)?;
    beside.write_all(b"\n")?;
    beside.persist(path)?;
    Ok(())
}
