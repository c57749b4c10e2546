//! The names of files that were set aside, ours and those of logrotate, in the order of their time.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `20261122T080000.123456Z`: sorts as text by time, and has nothing that a shell would mind.
const STAMP: &str = "%Y%m%dT%H%M%S%.6fZ";

/// The place of a file among its siblings: all of logrotate's numbers first, the highest being the
/// oldest, then whatever has a date in its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Number(std::cmp::Reverse<u64>),
    Date(String),
    Stamp(String),
}

/// The files that were once this one, the oldest first; compressed ones, too, unless they are copies.
pub fn siblings(path: &Path) -> Vec<PathBuf> {
    all(path).into_iter().filter_map(|(_, files)| files.into_iter().next()).collect()
}

/// The same with the copies: a compressor may leave the file that it read, or be at work.
pub(super) fn copies(path: &Path) -> Vec<Vec<PathBuf>> {
    all(path).into_iter().map(|(_, files)| files).collect()
}

/// All places with the files that stand there: that which is not compressed is the first.
fn all(path: &Path) -> Vec<(Place, Vec<PathBuf>)> {
    let (Some(folder), Some(name)) = (folder(path), path.file_name().and_then(OsStr::to_str)) else {
        return Vec::new();
    };
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut found = BTreeMap::<_, Vec<_>>::new();
    for file in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
        let Some(place) = file.strip_prefix(name).and_then(place) else { continue };
        found.entry((place, plain(&file).to_owned())).or_default().push(file);
    }
    let places = found.into_iter().map(|((place, _), mut files)| {
        files.sort();
        // the path as the operator wrote it, so that messages are short
        (place, files.into_iter().map(|file| path.with_file_name(file)).collect())
    });
    places.collect()
}

/// The name that a file had before it was compressed.
fn plain(name: &str) -> &str {
    [".gz", ".zst"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

fn folder(path: &Path) -> Option<&Path> {
    let folder = path.parent()?;
    Some(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
}

/// Reads what follows the file's own name.
fn place(rest: &str) -> Option<Place> {
    let stamp = plain(rest).strip_prefix(['.', '-'])?;
    let digits = stamp.bytes().filter(u8::is_ascii_digit).count();
    let shape = stamp.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'T' | b'.' | b'Z' | b'-'));
    match digits {
        20 if shape && stamp.len() == 23 => Some(Place::Stamp(stamp.to_owned())),
        8.. if shape => Some(Place::Date(stamp.to_owned())),
        1.. if digits == stamp.len() => stamp.parse().ok().map(|number| Place::Number(std::cmp::Reverse(number))),
        _ => None,
    }
}

/// A name for the file that is set aside now. It sorts behind all others, even if the clock was set back.
pub(super) fn aside(path: &Path, now: Timestamp) -> PathBuf {
    let latest = all(path).into_iter().rev().find_map(|(place, _)| match place {
        Place::Stamp(stamp) => {
            jiff::civil::DateTime::strptime(STAMP, &stamp).ok()?.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp())
        }
        _ => None,
    });
    let next = latest.and_then(|latest| latest.checked_add(std::time::Duration::from_micros(1)).ok());
    let at = next.map_or(now, |next| next.max(now));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", at.strftime(STAMP)));
    path.with_file_name(name)
}

/// Of the files that we set aside, those beyond the latest `keep`, with their copies.
pub(super) fn beyond(path: &Path, keep: usize) -> Vec<PathBuf> {
    let mut ours: Vec<_> = all(path).into_iter().filter(|(place, _)| matches!(place, Place::Stamp(_))).collect();
    ours.truncate(ours.len().saturating_sub(keep));
    ours.into_iter().flat_map(|(_, files)| files).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_come_in_the_order_of_their_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let in_order = [
            "audit.jsonl.10.gz",
            "audit.jsonl.2.gz",
            "audit.jsonl.1",
            "audit.jsonl-20261121.gz",
            "audit.jsonl-20261122",
            "audit.jsonl.20261122T080000.123456Z.zst",
            "audit.jsonl.20261122T080000.123457Z",
        ];
        let others =
            ["audit.jsonl", "audit.jsonl.bak", "audit.jsonl2", "other.jsonl.1", "audit.jsonl.", "audit.jsonl.gz"];
        for name in in_order.iter().chain(&others) {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = siblings(&path);
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, in_order);
        let set_back: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
        assert_eq!(aside(&path, set_back), folder.path().join("audit.jsonl.20261122T080000.123458Z"));
        let later: Timestamp = "2026-11-23T01:02:03.4Z".parse().unwrap();
        assert_eq!(aside(&path, later), folder.path().join("audit.jsonl.20261123T010203.400000Z"));
        assert_eq!(beyond(&path, 1), [folder.path().join(in_order[5])]);
    }

    #[test]
    fn a_file_and_its_compressed_copies_are_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let [first, second] = ["log.20261122T080000.123456Z", "log.20261122T080000.123457Z"];
        let copies = [format!("{first}.gz"), format!("{first}.zst"), format!("{second}.zst")];
        let paths = |names: &[&str]| names.iter().map(|name| folder.path().join(name)).collect::<Vec<_>>();
        let all = paths(&[first, &copies[0], &copies[1], second, &copies[2]]);
        for path in &all {
            fs::write(path, "").unwrap();
        }
        assert_eq!(siblings(&path), paths(&[first, second]));
        assert_eq!(super::copies(&path), [&all[..3], &all[3..]]);
        assert_eq!((beyond(&path, 2), beyond(&path, 1)), (Vec::new(), all[..3].to_vec()));
        // another's way to write the same day is another file
        fs::write(folder.path().join("log-20261122"), "").unwrap();
        fs::write(folder.path().join("log.20261122"), "").unwrap();
        assert_eq!(siblings(&path).len(), 4);
    }
}
