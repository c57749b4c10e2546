//! The members of a message that decide, each of which may occur once and in one spelling.

use std::borrow::Cow;

use super::json::Reader;
use super::message::{MAX_NAME, MAX_SUBSCRIPTIONS, META_VERSION, Unreadable};

/// The deciding members of one object, and which of them have been seen.
pub(super) struct Deciding<const N: usize> {
    names: &'static [&'static str; N],
    seen: [bool; N],
}

impl<const N: usize> Deciding<N> {
    pub(super) fn of(names: &'static [&'static str; N]) -> Self {
        Self { names, seen: [false; N] }
    }

    /// The name if `key` is one that decides; it must be the first of its kind and rightly spelt.
    pub(super) fn take(&mut self, key: &str) -> Result<&'static str, Unreadable> {
        for (name, seen) in self.names.iter().zip(&mut self.seen) {
            if key == *name {
                return if std::mem::replace(seen, true) { Err(Unreadable::Twice(name)) } else { Ok(name) };
            }
        }
        match self.names.iter().find(|name| is_same_folded(key, name)) {
            Some(name) => Err(Unreadable::Respelt(name)),
            None => Ok(""),
        }
    }
}

/// Whether two names are the same for a parser that does not heed case. Two letters outside of ASCII
/// fold into it.
fn is_same_folded(key: &str, name: &str) -> bool {
    if key.is_ascii() {
        return key.eq_ignore_ascii_case(name);
    }
    let fold = |letter| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        letter => letter,
    };
    key.chars()
        .map(|letter| fold(letter).to_ascii_lowercase())
        .eq(name.chars().map(|letter| letter.to_ascii_lowercase()))
}

/// The members of `params` that decide.
#[derive(Default)]
pub(super) struct Params<'t> {
    pub(super) name: Option<Cow<'t, str>>,
    pub(super) uri: Option<Cow<'t, str>>,
    pub(super) task: Option<Cow<'t, str>>,
    pub(super) reference: Option<Reference<'t>>,
    pub(super) subscriptions: Vec<Cow<'t, str>>,
    pub(super) arguments: Option<&'t str>,
    pub(super) version: Option<Cow<'t, str>>,
    pub(super) meta_version: Option<Cow<'t, str>>,
}

/// What `completion/complete` is about.
pub(super) struct Reference<'t> {
    pub(super) kind: Cow<'t, str>,
    pub(super) name: Option<Cow<'t, str>>,
    pub(super) uri: Option<Cow<'t, str>>,
}

/// Reads `params`, which are an object.
pub(super) fn read_params<'t>(reader: &mut Reader<'t>) -> Result<Params<'t>, Unreadable> {
    let mut deciding =
        Deciding::of(&["name", "uri", "taskId", "ref", "notifications", "arguments", "protocolVersion", "_meta"]);
    let mut params = Params::default();
    reader.members(|reader, key| {
        match deciding.take(&key)? {
            "name" => params.name = Some(text(reader, "name")?),
            "uri" => params.uri = Some(text(reader, "uri")?),
            "taskId" => params.task = Some(text(reader, "taskId")?),
            "ref" if reader.peek()? == b'{' => params.reference = Some(read_reference(reader)?),
            "notifications" => params.subscriptions = read_subscriptions(reader)?,
            "arguments" => params.arguments = Some(reader.raw()?),
            "protocolVersion" if reader.peek()? == b'"' => params.version = Some(text(reader, "protocolVersion")?),
            "_meta" if reader.peek()? == b'{' => params.meta_version = read_meta(reader)?,
            _ => reader.skip()?,
        }
        Ok::<_, Unreadable>(())
    })?;
    Ok(params)
}

fn read_meta<'t>(reader: &mut Reader<'t>) -> Result<Option<Cow<'t, str>>, Unreadable> {
    let mut deciding = Deciding::of(&[META_VERSION]);
    let mut version = None;
    reader.members(|reader, key| {
        if deciding.take(&key)?.is_empty() {
            reader.skip()?;
        } else {
            version = Some(text(reader, META_VERSION)?);
        }
        Ok::<_, Unreadable>(())
    })?;
    Ok(version)
}

fn read_reference<'t>(reader: &mut Reader<'t>) -> Result<Reference<'t>, Unreadable> {
    let mut deciding = Deciding::of(&["type", "name", "uri"]);
    let mut reference = Reference { kind: Cow::Borrowed(""), name: None, uri: None };
    reader.members(|reader, key| {
        match deciding.take(&key)? {
            "type" => reference.kind = text(reader, "type")?,
            "name" => reference.name = Some(text(reader, "name")?),
            "uri" => reference.uri = Some(text(reader, "uri")?),
            _ => reader.skip()?,
        }
        Ok::<_, Unreadable>(())
    })?;
    Ok(reference)
}

/// What `subscriptions/listen` wants to hear of. All but the resources is told by `true` or `false`.
fn read_subscriptions<'t>(reader: &mut Reader<'t>) -> Result<Vec<Cow<'t, str>>, Unreadable> {
    const URIS: &str = "resourceSubscriptions";
    if reader.peek()? != b'{' {
        return Err(Unreadable::Odd("notifications"));
    }
    // the second is how some libraries spell the first inside, and take it from outside as well
    let mut deciding = Deciding::of(&[URIS, "resource_subscriptions"]);
    let mut uris = Vec::new();
    reader.members(|reader, key| match deciding.take(&key)? {
        "" => Ok::<_, Unreadable>(reader.skip()?),
        URIS if reader.peek()? == b'[' => reader.items(|reader| {
            uris.push(text(reader, URIS)?);
            if uris.len() > MAX_SUBSCRIPTIONS { Err(Unreadable::ManySubscriptions) } else { Ok(()) }
        }),
        URIS => Err(Unreadable::Odd(URIS)),
        _ => Err(Unreadable::Respelt(URIS)),
    })?;
    Ok(uris)
}

/// A deciding string. One with control characters could be cut or trimmed on its way to who acts on it.
pub(super) fn text<'t>(reader: &mut Reader<'t>, what: &'static str) -> Result<Cow<'t, str>, Unreadable> {
    if reader.peek()? != b'"' {
        return Err(Unreadable::Odd(what));
    }
    let text = reader.string()?;
    let fits = text.len() <= MAX_NAME && !text.chars().any(char::is_control);
    if fits { Ok(text) } else { Err(Unreadable::Odd(what)) }
}
