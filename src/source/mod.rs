//! Where the token list comes from, and how a change of it becomes the directory that requests ask.

mod edit;
mod file;

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};

pub use edit::{EditError, edit};
pub use file::{FileSource, Params};

use crate::access::Directory;

/// What a source keeps up to date and everybody else reads.
#[derive(Clone, Debug)]
pub struct Published {
    /// Who may do what.
    pub directory: Arc<ArcSwap<Directory>>,
    /// What is wrong with the source, while the last good list is in use.
    pub trouble: Arc<ArcSwapOption<String>>,
}
