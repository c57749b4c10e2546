//! What is said of tokens and users in words: not empty, not misspelt, and no token.

use super::{Said, say};
use crate::harness::{Folder, Origin, get};

#[test]
fn a_token_is_not_taken_for_words_about_it() {
    let folder = Folder::new();
    folder.write("patgate.toml", "[tokens]\nprefix = \"acme_\"\nfile = \"tokens.toml\"\n");
    let minted = say(&folder, "token create --user alice --name laptop --config patgate.toml", &[]);
    let minted = minted.went_well().to_owned();
    let token = minted.as_str();
    let id = &token[5..15];
    let before = folder.read("tokens.toml");
    let config = "--config patgate.toml";
    for (line, words, argument) in [
        ("token create --user bob --name …", &[token][..], "--name"),
        ("token create --name x --user …", &[token], "--user"),
        (
            "token import --user bob --hash sha256:0000000000000000000000000000000000000000000000000000000000000000 \
          --name x --id …",
            &[token],
            "--id",
        ),
        ("token rename … …", &[id, token], "the name"),
        ("token revoke … --reason …", &[id, token], "--reason"),
        ("user add …", &[token], "the id"),
        ("user add bob --org …", &[token], "--org"),
    ] {
        let said = say(&folder, &format!("{line} {config}"), words);
        said.refused(2, &[&format!("{argument} holds a token: "), "revoke it"]);
        assert!(!said.err.contains(&token[16..]), "{said:?}");
    }
    assert_eq!(folder.read("tokens.toml"), before, "nothing is written");
}

#[test]
fn a_token_in_a_place_of_something_else_is_not_repeated() {
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    for arguments in [
        &["token", "list"][..],
        &["token", "create", "--user", "bob", "--name", "x"],
        &["user", "list"],
        &["check", "--upstream", "http://127.0.0.1:9"],
    ] {
        let said = Said::of(folder.run_with(arguments, &[("PATGATE_TOKENS", &token)]));
        said.refused(2, &["PATGATE_TOKENS", "holds a token"]);
        assert!(!said.err.contains(&token[19..]), "{said:?}");
        assert!(!folder.path(&token).exists());
    }
    let url = format!("http://127.0.0.1:8080/mcp?token={token}");
    for (line, words) in [
        ("snippet --client curl --url …", &[url.as_str()][..]),
        ("user suspend …", &[&token]),
        ("token show …", &[&token]),
        ("check --upstream http://127.0.0.1:9 --listen …", &[&token]),
    ] {
        let said = say(&folder, line, words);
        said.refused(said.code.unwrap().max(1), &[]);
        assert!(!said.err.contains(&token[19..]), "{said:?}");
    }
}

#[test]
fn a_token_among_the_words_of_a_list_is_shown_to_nobody() {
    let (origin, folder) = (Origin::plain(), Folder::new());
    let token = folder.token("alice", &[]);
    let text = folder.read("tokens.toml");
    let name = text.lines().find(|line| line.starts_with("name = ")).unwrap();
    let named = text.replace(name, &format!("name = \"{token}\"")).replace("\"alice\"", &format!("\"{token}\""));
    folder.write("tokens.toml", &(named + &format!("[[users]]\nid = \"{token}\"\nemail = \"{token}@x\"\n")));
    let mut proxy = folder.serve(&origin.url(), "");
    assert_eq!(proxy.ask(&get(&token, "")).status, 200);
    let shown = format!("mcp_pat_{}_[masked]", &token[8..18]);
    assert_eq!(origin.received()[0].values("x-auth-user"), [shown.as_str()]);
    let record = &proxy.audit(1)[0];
    assert_eq!((&record["user"], &record["pat_name"]), (&shown.as_str().into(), &shown.as_str().into()));
    proxy.await_log("a token stands among the names of the list, where it is not shown: revoke it");
    let mut told = format!("{:?}{record}{:?}", proxy.log(), origin.received());
    for line in ["token list", "token list --json", "user list", "user list --json"] {
        told += say(&folder, line, &[]).went_well();
    }
    assert!(told.contains(&shown) && !told.contains(&token[19..]), "{told}");
}

#[test]
fn a_name_is_not_empty_and_an_address_has_an_at() {
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    say(&folder, "token create --user bob --name …", &[""]).refused(2, &["--name", "empty: say what it is for"]);
    say(&folder, "token rename … …", &[&token[8..18], ""]).refused(2, &["empty: say what it is for"]);
    for wrong in ["alice", "@example.com", "alice@", ""] {
        say(&folder, "user add alice --email …", &[wrong]).refused(2, &["--email", "alice@example.com"]);
    }
}

#[test]
fn a_scope_that_nothing_knows_of_is_remarked_on() {
    let folder = Folder::new();
    let create = |more: &str| say(&folder, &format!("token create --user alice --name x {more}"), &[]);
    let remarked = |said: &Said, scope: &str| said.err.contains(&format!("has the scope `{scope}`"));
    assert!(!remarked(&create("--scope nope"), "nope"), "any scope may be what the upstream asks for");
    folder.write("c.toml", "[policy]\n[scopes.\"mcp:read\"]\ntools = [\"get_*\"]\n[tokens]\nfile = \"tokens.toml\"\n");
    let said = create("--scope nope --scope mcp:read --config c.toml");
    assert!(remarked(&said, "nope") && !remarked(&said, "mcp:read"), "{said:?}");
    let text = folder.read("tokens.toml");
    folder.write("tokens.toml", &format!("{text}[roles.dev]\nscopes = [\"mcp:write\"]\n"));
    let said = create("--scope nope --scope mcp:write");
    assert!(remarked(&said, "nope") && !remarked(&said, "mcp:write"), "{said:?}");
}
