//! `[audit]`: where the log goes, when a file of it is set aside, and what happens if it cannot be written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::bounds::{bytes, in_memory};
use super::units::{days, duration};
use crate::audit::{Arguments, Destination, OnLoss, Params, Rotation};
use crate::document::Table;
use crate::proxy::TapParams;
use crate::token::Prefix;

/// A file is not set aside before it has so many bytes: more are written at once.
const SMALLEST: u64 = 64 * 1024;

/// The names that secrets usually have among arguments.
const MASKED: [&str; 8] =
    ["password", "passwd", "secret", "token", "api_key", "apikey", "authorization", "credentials"];

/// Why nothing can be written to such a file.
fn unusable(path: &Path) -> Option<String> {
    let Some(folder) = path.parent() else {
        return Some("empty: name a file, or write \"-\" for standard output".to_owned());
    };
    let gone = !folder.as_os_str().is_empty()
        && folder.metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    gone.then(|| format!("there is no folder {}: make it, or name a file elsewhere", folder.display()))
}

/// Reads the table: the settings of the log, and what is read in bodies for it. Paths are relative to `base`.
pub(super) fn read(root: &Table<'_>, base: &Path, prefix: Prefix) -> (Params, TapParams) {
    let table = root.table("audit");
    let table = table.as_ref();
    let destination = match table.and_then(|table| table.string("path")) {
        None | Some("-") => Destination::Stdout,
        Some(path) => {
            let path = if path.is_empty() { PathBuf::new() } else { base.join(path) };
            if let Some((table, why)) = table.zip(unusable(&path)) {
                table.problem("path", why);
            }
            Destination::File(path)
        }
    };
    let number = |key| {
        let number = table.and_then(|table| table.number(key, 1..=10_000_000));
        number.and_then(|number| usize::try_from(number).ok())
    };
    let queue = number("queue").unwrap_or(65_536);
    let keep = number("keep");
    let age =
        table.and_then(|table| table.parsed("rotate_age", days)).map(|age| Duration::try_from(age).unwrap_or_default());
    let large = |key| table.and_then(|table| bytes(table, key, SMALLEST));
    let rotate_size = large("rotate_size");
    let on_loss = table.and_then(|table| {
        table.parsed("on_loss", |text| match text {
            "count" => Ok(OnLoss::Count),
            "refuse" => Ok(OnLoss::Refuse),
            _ => Err(format!("`{text}` is no such choice: write \"count\" or \"refuse\"")),
        })
    });
    let patience = table.and_then(|table| table.parsed("patience", duration)).unwrap_or(Duration::from_secs(2));
    let chain = table.and_then(|table| table.truth("chain")).unwrap_or(false);
    let rotation = Rotation { size: rotate_size, age, keep };
    let size = |key, default| table.and_then(|table| bytes(table, key, 0)).map_or(default, in_memory);
    let truth = |key| table.and_then(|table| table.truth(key)).unwrap_or(false);
    let limit = size("arguments_limit", 4096);
    let mask = table.and_then(|table| table.strings("mask_keys")).unwrap_or(MASKED.to_vec());
    let tap = TapParams {
        limit: size("inspect", 64 * 1024),
        arguments: Arguments {
            text: truth("arguments").then_some(limit),
            mask: mask.into_iter().map(Into::into).collect(),
            sha256: truth("arguments_sha256"),
        },
    };
    if let Some(table) = table {
        table.done();
    }
    let log = Params {
        destination,
        queue,
        on_loss: on_loss.unwrap_or_default(),
        patience,
        rotation,
        chain,
        prefix,
        by_token: false,
        spans: None,
    };
    (log, tap)
}
