//! `patgate user add`

use std::collections::BTreeSet;

use clap::Args;
use toml::Value;

use super::UserFacts;
use crate::cli::facts::Status;
use crate::cli::store::{Common, Snapshot};
use crate::cli::{Exit, print};
use crate::source::{Fields, Section};
use crate::token::{email, plain_text, role_name, user_id};

#[derive(Args, Debug)]
pub(in crate::cli) struct Add {
    /// Whom the upstream sees, and what tokens name as their user
    #[arg(value_parser = user_id)]
    id: String,
    /// Her full name
    #[arg(long, value_name = "NAME", value_parser = plain_text)]
    name: Option<String>,
    /// Her address
    #[arg(long, value_name = "ADDRESS", value_parser = email)]
    email: Option<String>,
    /// The organisation she belongs to
    #[arg(long, value_name = "ORG", value_parser = plain_text)]
    org: Option<String>,
    /// A role of hers; may be given several times
    #[arg(long = "role", value_name = "ROLE", value_parser = role_name)]
    roles: Vec<String>,
    /// List the users of all other tokens, too, if she is the first one
    #[arg(long)]
    with_existing: bool,
    #[command(flatten)]
    common: Common,
}

impl Add {
    pub(super) fn run(self) -> Result<(), Exit> {
        let store = self.common.open()?;
        let (name, email, org) = (self.name.as_ref(), self.email.as_ref(), self.org.as_ref());
        let given = [("the id", Some(&self.id)), ("--name", name), ("--email", email), ("--org", org)];
        store.refuse_tokens(given)?;
        let (others, after) = store.edit(|before, draft| {
            if before.list.users.iter().flatten().any(|user| *user.id == *self.id) {
                return Err(Exit::failure(format!("user `{}` is listed already", self.id)));
            }
            let others = locked_out(before, &self.id);
            if !others.is_empty() && !self.with_existing {
                let names = others.iter().copied().collect::<Vec<_>>().join(", ");
                return Err(Exit::failure(format!(
                    "the list has no users yet, and with a first one the tokens of these would be dead: {names}\n\
                     add --with-existing to list them as well"
                )));
            }
            let bare = others.iter().map(|id| vec![("id", Value::String((*id).to_owned()))]);
            let records: Vec<Fields> = [self.fields()].into_iter().chain(bare).collect();
            draft.add(Section::Users, &records);
            Ok(others.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>())
        })?;
        let user = UserFacts::of(&after, &self.id);
        let works = user.active_tokens;
        print::remark(format_args!(
            "user {} is in {}; tokens of hers that work: {works}",
            self.id,
            store.file.display()
        ));
        if !others.is_empty() {
            print::remark(format_args!("listed as well, for they have tokens: {}", others.join(", ")));
        }
        self.remark_on_rights(&after);
        if self.common.json { print::json(&user) } else { Ok(()) }
    }

    fn fields(&self) -> Fields {
        let text = |text: &String| Value::String(text.clone());
        let roles = (!self.roles.is_empty()).then(|| Value::Array(self.roles.iter().map(text).collect()));
        let fields = [
            ("id", Some(text(&self.id))),
            ("email", self.email.as_ref().map(text)),
            ("name", self.name.as_ref().map(text)),
            ("org", self.org.as_ref().map(text)),
            ("roles", roles),
        ];
        fields.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }

    /// Rights come from roles as soon as the list has roles; what that means here should not surprise.
    fn remark_on_rights(&self, after: &Snapshot<'_>) {
        let Some(roles) = &after.list.roles else { return };
        for role in self.roles.iter().filter(|role| !roles.contains_key(role.as_str())) {
            print::remark(format_args!("note: the list has no [roles.{role}], so this role grants nothing"));
        }
        if self.roles.is_empty() {
            print::remark(format_args!("note: {} has no role, and so no scopes", self.id));
        }
    }
}

/// The users whose tokens work now and would not once the list has a user.
fn locked_out<'s>(before: &'s Snapshot<'_>, id: &str) -> BTreeSet<&'s str> {
    if before.list.users.is_some() {
        return BTreeSet::new();
    }
    let tokens = before.tokens();
    let alive = tokens.iter().filter(|facts| matches!(facts.status, Status::Active | Status::NotYetValid));
    let others: BTreeSet<&str> = alive.map(|facts| facts.user).filter(|user| *user != id).collect();
    before.list.tokens.iter().map(|record| &*record.user).filter(|user| others.contains(user)).collect()
}
