//! What is said of tokens and users in words: not empty, not misspelt, and no token.

use super::{Said, say};
use crate::harness::{Folder, Origin, eventually, get};

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
    let whole = format!("name = \"{token}\"\n");
    let users = format!("[[users]]\nid = \"alice\"\n{whole}email = \"{token}@x\"\n");
    folder.write("tokens.toml", &(text.replace(&format!("{name}\n"), &whole) + &users));
    let mut proxy = folder.serve(&origin.url(), "");
    assert_eq!(proxy.ask(&get(&token, "")).status, 200);
    let shown = format!("mcp_pat_{}_[masked]", &token[8..18]);
    let received = &origin.received()[0];
    assert_eq!((received.values("x-auth-user"), received.values("x-auth-name")), (vec!["alice"], vec![&*shown]));
    assert_eq!(received.values("x-auth-email"), [format!("{shown}@x")]);
    let record = &proxy.audit(1)[0];
    assert_eq!((&record["user"], &record["pat_name"]), (&"alice".into(), &shown.as_str().into()));
    proxy.await_log("a token stands among the names of the list, where it is not shown: revoke it");
    let mut told = format!("{:?}{record}{received:?}", proxy.log());
    let show = format!("token show {}", &token[8..18]);
    for line in ["token list", "token list --json", "user list", "user list --json", &show] {
        told += say(&folder, line, &[]).went_well();
    }
    assert!(told.contains(&shown) && !told.contains(&token[19..]), "{told}");
    // it is shown so, and not written
    say(&folder, "token rotate …", &[&token[8..18]]).went_well();
    assert_eq!(folder.read("tokens.toml").matches(&whole).count(), 3, "{}", folder.read("tokens.toml"));
}

#[test]
fn users_whose_names_look_like_tokens_are_users_each() {
    let (origin, folder) = (Origin::plain(), Folder::new());
    let config = ["--config", "patgate.toml"];
    let path = "mcp_pat_production_tokens.toml";
    folder.configure(&origin.url(), "");
    let text = folder.read("patgate.toml").replace("\"tokens.toml\"", &format!("\"{path}\"\nprefix = \"acme_\""));
    folder.write("patgate.toml", &text);
    let create = |user: &str| {
        let line = "token create --user … --name acme_production_laptop --tokens … --config patgate.toml";
        say(&folder, line, &[user, path]).went_well().to_owned()
    };
    let (admin, reader) = (create("acme_production_admin"), create("acme_production_reader"));
    say(&folder, "user add acme_production_admin --with-existing --config patgate.toml", &[]).went_well();
    let proxy = folder.serve_with(&[], &[]);
    assert_eq!((proxy.ask(&get(&admin, "")).status, proxy.ask(&get(&reader, "")).status), (200, 200));
    let users = origin.received();
    let users: Vec<_> = users.iter().flat_map(|request| request.values("x-auth-user")).collect();
    assert_eq!(users, ["acme_production_admin", "acme_production_reader"]);
    assert_eq!(proxy.audit(2)[1]["pat_name"], "acme_production_laptop");
    let said = Said::of(folder.run(&[&["user", "suspend", "acme_production_admin"][..], &config].concat()));
    assert!(said.code == Some(0) && said.err.contains("user acme_production_admin is suspended"), "{said:?}");
    eventually("the suspension", || (proxy.ask(&get(&admin, "")).status == 401).then_some(()));
    assert_eq!(proxy.ask(&get(&reader, "")).status, 200);
    let rotated = say(&folder, "token rotate … --grace 0s --config patgate.toml", &[&reader[5..15]]);
    let successor = rotated.went_well();
    eventually("the successor", || (proxy.ask(&get(successor, "")).status == 200).then_some(()));
    let text = folder.read(path);
    assert_eq!(
        text.matches("user = \"acme_production_reader\"\nname = \"acme_production_laptop\"\n").count(),
        2,
        "{text}"
    );
}

#[test]
fn a_token_for_a_user_keeps_the_last_good_list() {
    let (origin, folder) = (Origin::plain(), Folder::new());
    let token = folder.token("alice", &[]);
    let good = folder.read("tokens.toml");
    let proxy = folder.serve(&origin.url(), "");
    for (bad, key) in [
        (good.replace("\"alice\"", &format!("\"{token}\"")), "tokens[0].user"),
        (format!("{good}[[users]]\nid = \"alice\"\n[[users]]\nid = \"{token}\"\n"), "users[1].id"),
    ] {
        folder.write("tokens.toml", &bad);
        let message = format!("tokens.toml: {key}: holds a token");
        let ready = eventually("the complaint", || {
            let ready = proxy.health("/readyz");
            ready.body.contains(&message).then_some(ready)
        });
        assert_eq!((ready.status, proxy.ask(&get(&token, "")).status), (200, 200));
        let mut told = ready.body;
        for line in ["check --config patgate.toml", "user list", "token revoke x"] {
            let said = say(&folder, line, &[]);
            said.refused(2, &[&message]);
            told += &said.err;
        }
        assert!(!format!("{told}{:?}", proxy.log()).contains(&token[19..]), "{told}");
        folder.write("tokens.toml", &good);
        eventually("the good list", || (proxy.health("/readyz").body == "ready\n").then_some(()));
    }
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
