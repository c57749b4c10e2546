//! A JSON-RPC message as MCP has it, read once from the bytes of a body: what it asks for, and nothing
//! that two parsers could read in two ways.
//!
//! A member that decides something may occur once, in one spelling: other parsers take the first of two,
//! or the last, and some take `"Method"` for `"method"`. Such a body is refused, not interpreted.

use std::borrow::Cow;

use super::json::{JsonError, Reader};
use super::params::{Deciding, Params, Reference, read_params, text};

/// How many levels of arrays and objects a message may have.
pub const MAX_DEPTH: usize = 64;
/// How many messages a batch may have.
pub const MAX_BATCH: usize = 100;
/// The longest name, URI or task id in bytes.
pub const MAX_NAME: usize = 8192;
/// How many resources a body may subscribe to: each is judged by itself.
pub const MAX_SUBSCRIPTIONS: usize = 100;
/// How many bytes the URIs of a body may have together: every rule is held against each.
pub const MAX_URIS: usize = 64 * 1024;
/// The longest id of a request in bytes.
const MAX_ID: usize = 256;

/// The member of `_meta` by which a stateless request names its revision of the protocol.
pub const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// Why a body cannot be taken for what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Bytes that are no UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// A mark that some parsers skip and others refuse.
    #[error("it begins with a byte-order mark")]
    ByteOrderMark,
    /// Not JSON, or not in our bounds.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A deciding member more than once.
    #[error("`{0}` occurs twice")]
    Twice(&'static str),
    /// A deciding member that differs in case only.
    #[error("`{0}` is spelt in another case")]
    Respelt(&'static str),
    /// A deciding member that is no plain text.
    #[error("`{0}` is not what it has to be: a plain string without control characters, and not too long")]
    Odd(&'static str),
    /// A call that does not say of what.
    #[error("`{0}` is missing: it says what is called")]
    Missing(&'static str),
    /// Neither a request nor a response, or both.
    #[error("it is neither a request, a notification nor a response of JSON-RPC")]
    NoMessage,
    /// An array of nothing.
    #[error("it is an empty batch")]
    EmptyBatch,
    /// More messages than anybody sends.
    #[error("it is a batch of more than {MAX_BATCH} messages")]
    LargeBatch,
    /// More resources than are judged at once.
    #[error("it subscribes to more than {MAX_SUBSCRIPTIONS} resources")]
    ManySubscriptions,
    /// More of URIs than is judged at once.
    #[error("its URIs have more than {MAX_URIS} bytes together")]
    LongUris,
}

impl Unreadable {
    /// Whether some reader could make something else of the body. Otherwise it is one in which something is wrong, as
    /// everybody sees.
    pub fn is_ambiguous(self) -> bool {
        !matches!(self, Self::Odd(_) | Self::Missing(_))
    }
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It has a method and an id.
    Request,
    /// It has a method and no id.
    Notification,
    /// It answers a request of the other side.
    Response,
}

/// What a message asks for, by the name that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call<'m> {
    /// A tool by its name.
    Tool(&'m str),
    /// A resource by its URI, or a template by its text.
    Resource(&'m str),
    /// A prompt by its name.
    Prompt(&'m str),
    /// Anything else by its method.
    Method(&'m str),
}

/// One message. Everything is borrowed from the body, but for strings with escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'t> {
    /// What it is.
    pub kind: Kind,
    /// The id as it stands in the body.
    pub id: Option<&'t str>,
    /// The method; empty in a response.
    pub method: Cow<'t, str>,
    /// The name, URI or task id that says what the method is to work on.
    pub name: Option<Cow<'t, str>>,
    /// The resources that `subscriptions/listen` wants to hear of, by their URIs.
    pub subscriptions: Vec<Cow<'t, str>>,
    /// The arguments as they stand in the body.
    pub arguments: Option<&'t str>,
    /// The revision of the protocol that it names.
    pub version: Option<Cow<'t, str>>,
    subject: Subject,
}

/// What the name of a message names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Tool,
    Resource,
    Prompt,
    Other,
}

impl Message<'_> {
    /// What it asks for, or the first of several things; a response asks for nothing.
    pub fn call(&self) -> Option<Call<'_>> {
        self.subscribed().next().or_else(|| self.asked())
    }

    /// All that it asks for, which has to be allowed as a whole.
    pub fn calls(&self) -> impl Iterator<Item = Call<'_>> {
        self.asked().into_iter().chain(self.subscribed())
    }

    fn subscribed(&self) -> impl Iterator<Item = Call<'_>> {
        self.subscriptions.iter().map(|uri| Call::Resource(uri))
    }

    fn asked(&self) -> Option<Call<'_>> {
        let name = self.name.as_deref();
        match (self.kind, self.subject, name) {
            (Kind::Response, _, _) => None,
            (_, Subject::Tool, Some(name)) => Some(Call::Tool(name)),
            (_, Subject::Resource, Some(uri)) => Some(Call::Resource(uri)),
            (_, Subject::Prompt, Some(name)) => Some(Call::Prompt(name)),
            _ => Some(Call::Method(&self.method)),
        }
    }

    /// Whether its answer is a list of what can be used.
    pub fn asks_for_list(&self) -> bool {
        matches!(&*self.method, "tools/list" | "resources/list" | "resources/templates/list" | "prompts/list")
    }
}

/// The messages of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body<'t> {
    /// One, or those of a batch.
    pub messages: Vec<Message<'t>>,
    /// Whether they stand in an array, even if it is a single one.
    pub is_batch: bool,
}

impl<'t> Body<'t> {
    /// Reads a whole body.
    ///
    /// # Errors
    /// Why nobody should act on it.
    pub fn read(bytes: &'t [u8]) -> Result<Self, Unreadable> {
        let text = str::from_utf8(bytes).map_err(|_| Unreadable::NotUtf8)?;
        if text.starts_with('\u{feff}') {
            return Err(Unreadable::ByteOrderMark);
        }
        let mut reader = Reader::new(text, MAX_DEPTH);
        let mut messages = Vec::with_capacity(1);
        let (mut subscriptions, mut uris) = (0, 0);
        let mut take = |reader: &mut Reader<'t>| {
            if messages.len() == MAX_BATCH {
                return Err(Unreadable::LargeBatch);
            }
            let message = read_message(reader)?;
            subscriptions += message.subscriptions.len();
            let length = |call| if let Call::Resource(uri) = call { uri.len() } else { 0 };
            uris += message.calls().map(length).sum::<usize>();
            messages.push(message);
            if subscriptions > MAX_SUBSCRIPTIONS {
                return Err(Unreadable::ManySubscriptions);
            }
            if uris > MAX_URIS { Err(Unreadable::LongUris) } else { Ok(()) }
        };
        let is_batch = reader.peek()? == b'[';
        if is_batch {
            reader.items(take)?;
        } else {
            take(&mut reader)?;
        }
        reader.end()?;
        if messages.is_empty() { Err(Unreadable::EmptyBatch) } else { Ok(Self { messages, is_batch }) }
    }
}

// --- One message ----------------------------------------------------------------------------

fn read_message<'t>(reader: &mut Reader<'t>) -> Result<Message<'t>, Unreadable> {
    if reader.peek()? != b'{' {
        return Err(Unreadable::NoMessage);
    }
    let mut deciding = Deciding::of(&["jsonrpc", "id", "method", "params", "result", "error"]);
    let (mut id, mut method, mut params, mut answers) = (None, None, Params::default(), false);
    reader.members(|reader, key| {
        match deciding.take(&key)? {
            "id" => id = Some(read_id(reader)?),
            "method" => method = Some(text(reader, "method")?),
            "params" if reader.peek()? == b'{' => params = read_params(reader)?,
            "result" | "error" => {
                answers = true;
                reader.skip()?;
            }
            _ => reader.skip()?,
        }
        Ok::<_, Unreadable>(())
    })?;
    let Some(method) = method else {
        let response = Message {
            kind: Kind::Response,
            id,
            method: Cow::Borrowed(""),
            name: None,
            subscriptions: Vec::new(),
            arguments: None,
            version: None,
            subject: Subject::Other,
        };
        return if answers { Ok(response) } else { Err(Unreadable::NoMessage) };
    };
    if answers {
        return Err(Unreadable::NoMessage);
    }
    let (subject, name) = subject(&method, &mut params)?;
    let requested = params.version.filter(|_| method == "initialize");
    let subscriptions = if method == "subscriptions/listen" { params.subscriptions } else { Vec::new() };
    Ok(Message {
        kind: if id.is_some() { Kind::Request } else { Kind::Notification },
        id,
        method,
        name,
        subscriptions,
        arguments: params.arguments,
        version: params.meta_version.or(requested),
        subject,
    })
}

/// A string, a number or `null`.
fn read_id<'t>(reader: &mut Reader<'t>) -> Result<&'t str, Unreadable> {
    let raw = reader.raw()?;
    let fits = raw.len() <= MAX_ID && !raw.starts_with(['{', '[', 't', 'f']);
    if fits { Ok(raw) } else { Err(Unreadable::Odd("id")) }
}

/// The methods that work on something with a name.
const NAMING: [&str; 12] = [
    "tools/call",
    "prompts/get",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "completion/complete",
    "tools/list",
    "resources/list",
    "resources/templates/list",
    "prompts/list",
    "subscriptions/listen",
    "initialize",
];

/// What the method works on.
fn subject<'t>(method: &str, params: &mut Params<'t>) -> Result<(Subject, Option<Cow<'t, str>>), Unreadable> {
    let named = |name: Option<Cow<'t, str>>, what| name.ok_or(Unreadable::Missing(what)).map(Some);
    Ok(match method {
        "tools/call" => (Subject::Tool, named(params.name.take(), "name")?),
        "prompts/get" => (Subject::Prompt, named(params.name.take(), "name")?),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
            (Subject::Resource, named(params.uri.take(), "uri")?)
        }
        "completion/complete" => match params.reference.take() {
            Some(Reference { kind, name, .. }) if kind == "ref/prompt" => (Subject::Prompt, named(name, "ref.name")?),
            Some(Reference { kind, uri, .. }) if kind == "ref/resource" => (Subject::Resource, named(uri, "ref.uri")?),
            _ => return Err(Unreadable::Missing("ref")),
        },
        _ if method.starts_with("tasks/") => (Subject::Other, params.task.take()),
        _ => {
            let plain = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_graphic());
            if !plain || NAMING.iter().any(|name| method.eq_ignore_ascii_case(name) && method != *name) {
                return Err(Unreadable::Odd("method"));
            }
            (Subject::Other, None)
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    include!("../../tests/corpus/evasions.rs");

    fn one(text: &str) -> Message<'_> {
        let mut body = Body::read(text.as_bytes()).unwrap_or_else(|why| panic!("{why}: {text}"));
        assert_eq!(body.messages.len(), 1);
        body.messages.remove(0)
    }

    #[test]
    fn what_a_message_asks_for() {
        for (text, call) in [
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}"#, Call::Tool("echo")),
            (r#"{"params":{"name":"\u0065cho"},"method":"tools\/call"}"#, Call::Tool("echo")),
            (r#"{"id":1,"method":"prompts/get","params":{"name":"greet"}}"#, Call::Prompt("greet")),
            (r#"{"id":1,"method":"resources/read","params":{"uri":"file:///a"}}"#, Call::Resource("file:///a")),
            (r#"{"id":1,"method":"resources/subscribe","params":{"uri":"a:b"}}"#, Call::Resource("a:b")),
            (r#"{"id":1,"method":"tasks/get","params":{"taskId":"t"}}"#, Call::Method("tasks/get")),
            (
                r#"{"id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"p"}}}"#,
                Call::Prompt("p"),
            ),
            (
                r#"{"id":1,"method":"completion/complete","params":{"ref":{"type":"ref/resource","uri":"a:{b}"}}}"#,
                Call::Resource("a:{b}"),
            ),
            (r#"{"id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#, Call::Method("initialize")),
            (r#"{"method":"notifications/initialized"}"#, Call::Method("notifications/initialized")),
            (r#"{"id":1,"method":"subscriptions/listen"}"#, Call::Method("subscriptions/listen")),
            (
                r#"{"id":1,"params":{"notifications":{"resourceSubscriptions":["a:b"]}},"method":"subscriptions/listen"}"#,
                Call::Resource("a:b"),
            ),
            (
                r#"{"id":1,"method":"x","params":{"notifications":{"resourceSubscriptions":["a:b"]}}}"#,
                Call::Method("x"),
            ),
            (r#"{"id":1,"method":"x","params":[1]}"#, Call::Method("x")),
            (r#"{"id":1,"method":"x","params":null}"#, Call::Method("x")),
        ] {
            assert_eq!(one(text).call(), Some(call), "{text}");
        }
        assert_eq!(one(r#"{"jsonrpc":"2.0","id":1,"result":{"method":"tools/call"}}"#).call(), None);
    }

    #[test]
    fn every_resource_that_is_subscribed_to_is_asked_for() {
        let message = one(r#"{"id":1,"method":"subscriptions/listen","params":{"notifications":
            {"toolsListChanged":true,"taskIds":["t"],"resourceSubscriptions":["a:b","c:\u0064"]}}}"#);
        let calls: Vec<_> = message.calls().collect();
        let expected = [Call::Method("subscriptions/listen"), Call::Resource("a:b"), Call::Resource("c:d")];
        assert_eq!(calls, expected);
        let read = one(r#"{"id":1,"method":"resources/read","params":{"uri":"a:b"}}"#);
        assert_eq!(read.calls().collect::<Vec<_>>(), [Call::Resource("a:b")]);
        assert_eq!(one(r#"{"id":1,"result":{}}"#).calls().count(), 0);
    }

    #[test]
    fn the_rest_of_a_message_is_told_as_it_stands() {
        let text = r#" {"id": "a\"b" ,"method":"tools/call","params":{"arguments": { "x" : 1.0 },"name":"t",
            "_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}} "#;
        let message = one(text);
        assert_eq!((message.kind, message.id), (Kind::Request, Some(r#""a\"b""#)));
        assert_eq!(message.arguments, Some(r#"{ "x" : 1.0 }"#));
        assert_eq!(message.version.as_deref(), Some("2026-07-28"));
        let initialize = one(r#"{"id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#);
        assert_eq!(initialize.version.as_deref(), Some("2025-06-18"));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        assert!(EVASIONS.len() > 70);
        for (body, word) in EVASIONS {
            let shown = String::from_utf8_lossy(body);
            let why = Body::read(body).expect_err(&shown).to_string();
            assert!(why.contains(word), "{shown}: {why}");
        }
        let nested = |depth| format!(r#"{{"id":1,"method":"x","params":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(Body::read(nested(MAX_DEPTH - 1).as_bytes()).is_ok());
        assert_eq!(Body::read(nested(MAX_DEPTH).as_bytes()), Err(JsonError::TooDeep.into()));
        let batch = |count: usize| format!("[{}]", vec![r#"{"method":"ping"}"#; count].join(","));
        assert!(Body::read(batch(MAX_BATCH).as_bytes()).is_ok());
        assert_eq!(Body::read(batch(MAX_BATCH + 1).as_bytes()), Err(Unreadable::LargeBatch));
        let listen = |count: usize| {
            let uris = vec![r#""a:b""#; count].join(",");
            format!(
                r#"{{"method":"subscriptions/listen","params":{{"notifications":{{"resourceSubscriptions":[{uris}]}}}}}}"#
            )
        };
        assert!(Body::read(listen(MAX_SUBSCRIPTIONS).as_bytes()).is_ok());
        assert_eq!(Body::read(listen(MAX_SUBSCRIPTIONS + 1).as_bytes()), Err(Unreadable::ManySubscriptions));
        let two = |count| format!("[{},{}]", listen(MAX_SUBSCRIPTIONS), listen(count));
        assert!(Body::read(two(0).as_bytes()).is_ok());
        assert_eq!(Body::read(two(1).as_bytes()), Err(Unreadable::ManySubscriptions));
        let long = |uri: &str, rest: usize| {
            let uris = vec![format!("\"{uri}\""); MAX_URIS / uri.len()].join(",");
            let read = format!(r#"{{"method":"resources/read","params":{{"uri":"{}"}}}}"#, "r".repeat(rest));
            let params = format!(r#"{{"notifications":{{"resourceSubscriptions":[{uris}]}}}}"#);
            format!(r#"[{read},{{"method":"subscriptions/listen","params":{params}}}]"#)
        };
        assert!(Body::read(long(&"u".repeat(1024), 0).as_bytes()).is_ok());
        assert_eq!(Body::read(long(&"u".repeat(1024), 1).as_bytes()), Err(Unreadable::LongUris));
        let named = |length| format!(r#"{{"method":"tools/call","params":{{"name":"{}"}}}}"#, "n".repeat(length));
        assert!(Body::read(named(MAX_NAME).as_bytes()).is_ok());
        assert_eq!(Body::read(named(MAX_NAME + 1).as_bytes()), Err(Unreadable::Odd("name")));
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_serde_json_reads(
            name in "[ -~é😀]{0,20}", method in "tools/call|prompts/get", id in any::<i64>(), pretty in any::<bool>(),
        ) {
            let value = serde_json::json!({
                "id": id, "method": method, "params": {"name": name, "arguments": {"name": "other", "method": 1}},
            });
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let message = one(&text);
            prop_assert_eq!(message.name.as_deref(), Some(&*name));
            prop_assert_eq!(&*message.method, &*method);
            prop_assert_eq!(message.id.unwrap(), id.to_string());
        }

        #[test]
        fn subscriptions_are_what_serde_json_reads(
            uris in proptest::collection::vec("[ -~é😀]{0,20}", 0..8), pretty in any::<bool>(),
        ) {
            let value = serde_json::json!({
                "method": "subscriptions/listen",
                "params": {"notifications": {"promptsListChanged": false, "resourceSubscriptions": uris}},
            });
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            prop_assert_eq!(one(&text).subscriptions, uris);
        }

        #[test]
        fn any_bytes_are_read_without_panic_and_only_json_is_taken(
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just("{".to_owned()), Just("}".to_owned()), Just("[".to_owned()), Just("]".to_owned()),
                    Just(",".to_owned()), Just(":".to_owned()), Just("\"id\"".to_owned()), Just("\"method\"".to_owned()),
                    Just("\"params\"".to_owned()), Just("\"name\"".to_owned()), Just("\"tools/call\"".to_owned()),
                    Just("1".to_owned()), Just(r#""\u006dethod":"ping""#.to_owned()), Just("\"method\":\"ping\"".to_owned()),
                ],
                0..16,
            ),
        ) {
            let text = pieces.concat();
            if Body::read(text.as_bytes()).is_ok() {
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
            }
        }

        #[test]
        fn bytes_of_any_kind_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Body::read(&bytes);
        }
    }
}
