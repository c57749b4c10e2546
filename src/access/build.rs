//! Building a directory's table from a list: everything that can be worked out before a request comes.

use std::collections::HashMap;
use std::sync::Arc;

use super::directory::Policy;
use super::grant::{Grant, Standing, Tried};
use super::identity::{Rights, Subject};
use super::permit::Permit;
use crate::token::{BuildDigestHasher, Role, Scope, Status, TokenDigest, TokenHash, TokenList, TokenRecord, User};

/// All tokens of a list: those that can be looked up, and those that have to be tried.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) tokens: HashMap<TokenDigest, Arc<Grant>, BuildDigestHasher>,
    pub(super) bcrypt: HashMap<Box<str>, Arc<[Arc<Grant>]>>,
}

impl Table {
    /// What the list says now about the token that a permit was given for.
    pub(super) fn current(&self, permit: &Permit) -> Option<&Arc<Grant>> {
        match &permit.grant().tried {
            None => self.tokens.get(permit.digest()),
            Some(tried) => {
                let candidates = self.bcrypt.get(&tried.prefix)?;
                candidates.iter().find(|grant| grant.bcrypt() == Some(&tried.hash))
            }
        }
    }

    /// All tokens, with the digests of those that can be looked up.
    pub(super) fn grants(&self) -> impl Iterator<Item = (Option<&TokenDigest>, &Arc<Grant>)> {
        let tried = self.bcrypt.values().flat_map(|grants| grants.iter()).map(|grant| (None, grant));
        self.tokens.iter().map(|(digest, grant)| (Some(digest), grant)).chain(tried)
    }
}

/// The one token of a list that was fetched for its digest; none if the list holds anything else.
pub fn fetched(list: &TokenList, policy: &Policy, digest: &TokenDigest) -> Option<Arc<Grant>> {
    let [_] = list.tokens.as_slice() else { return None };
    table(list, policy).tokens.remove(digest)
}

pub(super) fn table(list: &TokenList, policy: &Policy) -> Table {
    let mut builder = Builder::new(list, policy);
    let mut table = Table::default();
    table.tokens.reserve(list.tokens.len());
    let mut bcrypt = HashMap::<Box<str>, Vec<Arc<Grant>>>::new();
    for record in &list.tokens {
        let grant = Arc::new(builder.grant(record));
        match &record.hash {
            TokenHash::Sha256(digest) => {
                table.tokens.insert(*digest, grant);
            }
            TokenHash::Bcrypt(_) => {
                let prefix = record.prefix.clone().unwrap_or_default();
                bcrypt.entry(prefix).or_default().push(grant);
            }
        }
    }
    table.bcrypt = bcrypt.into_iter().map(|(prefix, grants)| (prefix, grants.into())).collect();
    table
}

/// A user, as all of her tokens share her.
struct Holder<'l> {
    subject: Arc<Subject>,
    standing: Standing,
    /// What her roles grant; `None` where roles grant nothing because the list has none.
    scopes: Option<Vec<&'l Scope>>,
}

struct Builder<'l> {
    list: &'l TokenList,
    policy: &'l Policy,
    listed: HashMap<&'l str, &'l User>,
    holders: HashMap<&'l str, Holder<'l>>,
    rights: HashMap<Vec<&'l Scope>, Arc<Rights>>,
}

impl<'l> Builder<'l> {
    fn new(list: &'l TokenList, policy: &'l Policy) -> Self {
        let listed = list.users.iter().flatten().map(|user| (&*user.id, user)).collect();
        Self { list, policy, listed, holders: HashMap::new(), rights: HashMap::new() }
    }

    fn grant(&mut self, record: &'l TokenRecord) -> Grant {
        let holder = match self.holders.get(&*record.user) {
            Some(holder) => holder,
            None => {
                let holder = self.holder(&record.user);
                self.holders.entry(&record.user).or_insert(holder)
            }
        };
        let policy = self.policy;
        let scopes = effective_scopes(record.scopes.as_deref(), holder.scopes.as_deref());
        let rights = self.rights.entry(scopes).or_insert_with_key(|scopes| Arc::new(Rights::new(scopes, policy)));
        let tried = match (&record.hash, &record.prefix) {
            (TokenHash::Bcrypt(hash), Some(prefix)) => {
                Some(Box::new(Tried { prefix: prefix.clone(), hash: hash.clone() }))
            }
            _ => None,
        };
        let in_policy = self.policy.allows_lifetime(record.created_at, record.expires_at);
        let standing = if in_policy { holder.standing } else { Standing::Overlong };
        // a life that is counted from its first day begins with it, whatever day that is
        let counted = self.policy.max_lifetime.and(record.created_at);
        let not_before = record.not_before.max(counted);
        let name = record.name.as_deref().map(|name| policy.prefix.mask_whole(name).into());
        Grant::new(record, name, Arc::clone(&holder.subject), Arc::clone(rights), tried, not_before, standing)
    }

    fn holder(&self, id: &'l str) -> Holder<'l> {
        let names = &self.policy.identity;
        let Some(user) = self.listed.get(id) else {
            let standing = if self.list.users.is_some() { Standing::Unlisted } else { Standing::Active };
            return Holder { subject: Arc::new(Subject::bare(id, names)), standing, scopes: None };
        };
        let standing = match user.status {
            Status::Active => Standing::Active,
            Status::Suspended => Standing::Suspended,
        };
        let scopes = self.list.roles.as_ref().map(|roles| granted(user, roles));
        Holder { subject: Arc::new(Subject::listed(user, self.policy)), standing, scopes }
    }
}

/// All that a user's roles grant, each scope once, in the order of the list.
fn granted<'l>(user: &User, roles: &'l HashMap<Box<str>, Role>) -> Vec<&'l Scope> {
    let mut scopes = Vec::new();
    for role in user.roles.iter().filter_map(|name| roles.get(name)) {
        for scope in &role.scopes {
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
    }
    scopes
}

/// A token's scopes only narrow its user's; without any of its own it has all of hers.
fn effective_scopes<'l>(own: Option<&'l [Scope]>, users: Option<&[&'l Scope]>) -> Vec<&'l Scope> {
    match (own, users) {
        (None, None) => Vec::new(),
        (None, Some(users)) => users.to_vec(),
        (Some(own), None) => own.iter().collect(),
        (Some(own), Some(users)) => own.iter().filter(|scope| users.contains(scope)).collect(),
    }
}
