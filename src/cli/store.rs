//! The token list as the commands see it: read whole, judged as the server would, changed under a lock.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};

use super::facts::{Facts, Status};
use super::{Exit, print};
use crate::access::{DenyList, Directory, Generation, Policy};
use crate::config::{Overrides, TokenSettings};
use crate::document::nearest;
use crate::source::last_used::{self, LastUses};
use crate::source::{self, Draft, EditError};
use crate::token::{Checksum, HOLDS_A_TOKEN, Prefix, TokenDigest, TokenHash, TokenList, User};

/// What every command about tokens and users can be told.
#[derive(Args, Debug)]
pub(super) struct Common {
    /// The token file, or a folder of them [default: the configuration's, or tokens.toml]
    #[arg(long, value_name = "FILE", env = "PATGATE_TOKENS")]
    tokens: Option<String>,
    /// The configuration file, for what it says under [tokens]
    #[arg(long, value_name = "FILE", env = "PATGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    pub(super) json: bool,
}

/// A token list in its files.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) file: PathBuf,
    pub(super) policy: Arc<Policy>,
    denied: Arc<DenyList>,
    /// None if nothing is known of any.
    uses: Option<LastUses>,
}

impl Common {
    /// Finds the list. A broken deny list is no reason not to revoke a token, so it is only remarked on.
    pub(super) fn open(&self) -> Result<Store, Exit> {
        let (mut store, deny_list) = self.find()?;
        match deny_list.map(|path| source::read_deny_list(&path)).transpose() {
            Ok(denied) => store.denied = denied.unwrap_or_default().into(),
            Err(problems) => print::remark(format_args!("warning: the deny list does not count here: {problems}")),
        }
        Ok(store)
    }

    /// Finds the list for a command that must know whether a token is denied.
    pub(super) fn open_strictly(&self) -> Result<Store, Exit> {
        let (mut store, deny_list) = self.find()?;
        store.denied = deny_list.map(|path| source::read_deny_list(&path)).transpose()?.unwrap_or_default().into();
        Ok(store)
    }

    fn find(&self) -> Result<(Store, Option<PathBuf>), Exit> {
        let overrides = Overrides { tokens: self.tokens.clone(), config: self.config.clone(), ..Overrides::default() };
        let TokenSettings { file, deny_list, last_used, policy } = TokenSettings::load(&overrides)?;
        // a server that has let nobody in has written none
        let read = |path: &Path| last_used::read(path).map(Option::unwrap_or_default);
        let uses = last_used.as_deref().map(read).transpose().unwrap_or_else(|error| {
            print::remark(format_args!("warning: the last uses of tokens cannot be read: {error}"));
            None
        });
        let store = Store { file, policy: Arc::new(policy), denied: Arc::default(), uses };
        Ok((store, deny_list))
    }
}

impl Store {
    /// Refuses texts, each by the name of its argument, in which a token stands: they would be kept and shown.
    pub(super) fn refuse_tokens<'t>(
        &self,
        texts: impl IntoIterator<Item = (&'static str, Option<&'t String>)>,
    ) -> Result<(), Exit> {
        let prefixes = [&self.policy.prefix, &Prefix::default()];
        let mut texts = texts.into_iter().filter_map(|(argument, text)| Some((argument, text?)));
        match texts.find(|(_, text)| prefixes.iter().any(|prefix| prefix.is_in(text))) {
            Some((argument, _)) => Err(Exit::usage(format!("{argument} {HOLDS_A_TOKEN}"))),
            None => Ok(()),
        }
    }

    /// What the list says now.
    pub(super) fn read(&self) -> Result<Snapshot<'_>, Exit> {
        Ok(self.snapshot(source::read_list(&self.file, &self.policy.prefix)?))
    }

    /// Changes the list by what `change` does to its text, given what it says; returns what it says then.
    pub(super) fn edit<T>(
        &self,
        change: impl FnOnce(&Snapshot<'_>, &mut Draft<'_>) -> Result<T, Exit>,
    ) -> Result<(T, Snapshot<'_>), Exit> {
        let change = |list: &TokenList, draft: &mut Draft<'_>| change(&self.snapshot(list.clone()), draft);
        let (outcome, list) = source::edit(&self.file, &self.policy.prefix, change)?;
        Ok((outcome, self.snapshot(list)))
    }

    fn snapshot(&self, list: TokenList) -> Snapshot<'_> {
        let directory = Directory::new(&list, &self.policy, Generation::default(), "");
        let directory = directory.with_denied(&self.denied, Generation::default());
        Snapshot { store: self, list, directory, now: Timestamp::now() }
    }
}

/// The list at one moment, and what the server would say to each token.
#[derive(Debug)]
pub(super) struct Snapshot<'s> {
    store: &'s Store,
    pub(super) list: TokenList,
    pub(super) directory: Directory,
    pub(super) now: Timestamp,
}

impl Snapshot<'_> {
    /// Words of the list as they are shown.
    pub(super) fn shown<'t>(&self, text: Option<&'t str>) -> Option<Cow<'t, str>> {
        text.map(|text| self.store.policy.prefix.mask_whole(text))
    }

    /// Every token, in the order of the list.
    pub(super) fn tokens(&self) -> Vec<Facts<'_>> {
        let judged = self.directory.judged(self.now).map(|(grant, reason)| (grant.token_id(), (grant, reason)));
        let judged: HashMap<_, _> = judged.collect();
        let facts = self.list.tokens.iter().filter_map(|record| {
            let (grant, reason) = judged.get(&record.id)?;
            let Store { uses, policy, .. } = self.store;
            Some(Facts::new(record, grant, Status::from(*reason), uses.as_ref(), &policy.prefix))
        });
        facts.collect()
    }

    /// The token that has this id.
    pub(super) fn token(&self, id: &str) -> Result<Facts<'_>, Exit> {
        self.tokens().into_iter().find(|facts| facts.id == id).ok_or_else(|| self.no_token(id))
    }

    fn no_token(&self, id: &str) -> Exit {
        let prefix = &self.store.policy.prefix;
        let hash = TokenHash::Sha256(TokenDigest::of(id));
        let listed = self.list.tokens.iter().find(|record| record.hash == hash).map(|record| record.id.clone());
        if listed.is_some() || prefix.check(id) != Checksum::Foreign {
            // not repeated, for here it stands in one place already where it should not
            let known = listed.or_else(|| prefix.id_in(id)).map(|id| format!(" ({id})")).unwrap_or_default();
            return Exit::usage(format!(
                "this is a token where its id{known} belongs: it may now be in the history of your shell, so revoke it"
            ));
        }
        let ids: Vec<&str> = self.list.tokens.iter().map(|record| record.id.as_str()).collect();
        Exit::failure(format!("no token `{id}` in {}{}", self.store.file.display(), meant(id, &ids)))
    }

    /// The user who has this id.
    pub(super) fn user(&self, id: &str) -> Result<&User, Exit> {
        let file = self.store.file.display();
        let Some(users) = &self.list.users else {
            return Err(Exit::failure(format!(
                "{file} lists no users, so every token's user is taken as it stands: \
                 list her first by `patgate user add {id}`"
            )));
        };
        users.iter().find(|user| *user.id == *id).ok_or_else(|| {
            let ids: Vec<&str> = users.iter().map(|user| &*user.id).collect();
            Exit::failure(format!("no user `{id}` in {file}{}", meant(id, &ids)))
        })
    }
}

fn meant(id: &str, ids: &[&str]) -> String {
    nearest(id, ids).map(|near| format!(": did you mean `{near}`?")).unwrap_or_default()
}

/// The second that runs, so that what is written as of now holds at once.
pub(super) fn this_second() -> Timestamp {
    let now = Timestamp::now();
    now.round(TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Trunc)).unwrap_or(now)
}

impl From<EditError> for Exit {
    fn from(error: EditError) -> Self {
        match error {
            EditError::Invalid(problems) => problems.into(),
            EditError::Missing(_) | EditError::Io { .. } => Self::failure(error),
        }
    }
}
