//! `patgate user …`: who may hold tokens, in the token file.

mod add;
mod list;
mod remove;
mod status;

use std::borrow::Cow;

use clap::Subcommand;
use serde::Serialize;

use super::Exit;
use super::facts;
use super::store::Snapshot;
use crate::token::Status;

/// What can be done with users.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List a user, so that tokens can stand for her
    ///
    /// Once a user is listed, a token of anybody who is not is dead. So when the first user is added and
    /// tokens of others are in use, this is refused and names them, unless --with-existing lists them, too.
    Add(add::Add),
    /// List all users and how they stand
    List(list::List),
    /// Suspend a user: none of her tokens works until she is activated
    Suspend(status::Change),
    /// Activate a user who was suspended
    Activate(status::Change),
    /// Take a user out of the list and revoke her tokens
    ///
    /// Her tokens are revoked in the same change, so that they stay dead if somebody is listed by the same
    /// id later. To stop them for a while, suspend her instead.
    Remove(remove::Remove),
}

pub(super) fn run(command: Command) -> Result<(), Exit> {
    match command {
        Command::Add(add) => add.run(),
        Command::List(list) => list.run(),
        Command::Suspend(change) => change.run(Status::Suspended),
        Command::Activate(change) => change.run(Status::Active),
        Command::Remove(remove) => remove.run(),
    }
}

/// One user. The names of the fields are those of the JSON.
#[derive(Debug, Serialize)]
pub(super) struct UserFacts<'s> {
    pub(super) id: &'s str,
    pub(super) name: Option<Cow<'s, str>>,
    pub(super) email: Option<Cow<'s, str>>,
    pub(super) org: Option<&'s str>,
    pub(super) roles: Vec<&'s str>,
    /// `active`, `suspended`, or `unknown` to a list that has users.
    pub(super) status: &'static str,
    /// Whether the list has her; otherwise she is known by her tokens only.
    pub(super) listed: bool,
    pub(super) tokens: usize,
    pub(super) active_tokens: usize,
}

impl<'s> UserFacts<'s> {
    /// A user of the list, or one whom only tokens name.
    pub(super) fn of(snapshot: &'s Snapshot<'_>, id: &'s str) -> Self {
        let tokens = snapshot.tokens();
        let own = tokens.iter().filter(|facts| facts.user == id);
        let active_tokens = own.clone().filter(|facts| facts.status == facts::Status::Active).count();
        Self::new(snapshot, id, own.count(), active_tokens)
    }

    fn new(snapshot: &'s Snapshot<'_>, id: &'s str, tokens: usize, active_tokens: usize) -> Self {
        let users = snapshot.list.users.as_ref();
        let user = users.and_then(|users| users.iter().find(|user| *user.id == *id));
        Self {
            id,
            name: snapshot.shown(user.and_then(|user| user.name.as_deref())),
            email: snapshot.shown(user.and_then(|user| user.email.as_deref())),
            org: user.and_then(|user| user.org.as_deref()),
            roles: user.map(|user| user.roles.iter().map(|role| &**role).collect()).unwrap_or_default(),
            status: match user.map(|user| user.status) {
                Some(Status::Suspended) => "suspended",
                None if users.is_some() => "unknown",
                Some(Status::Active) | None => "active",
            },
            listed: user.is_some(),
            tokens,
            active_tokens,
        }
    }

    /// The status for people.
    pub(super) fn words(&self) -> String {
        if self.listed { self.status.to_owned() } else { format!("{} (not listed)", self.status) }
    }
}
