//! What an edit leaves as it was: every byte outside of it, the mode of the file, the link to it, and
//! the work of everybody else who edits at the same time.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::process::Stdio;

use rustix::buffer::spare_capacity;
use rustix::fs::{XattrFlags, getxattr, removexattr, setxattr};

use super::{listed, record, say, say_with, token};
use crate::harness::{Folder, patgate};

/// What a person might write: remarks everywhere, odd spacing, a list between the two others.
const PERSON: &str = "# Tokens of the staging server. Ask Ann before you change anything.\n\n\
    [[tokens]]   # the laptop\nid    =   'laptop'   # short\n\
    hash=\"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\n\
    \tuser = \"alice\"\t# her own\nscopes = [ \"a\",\n   \"b\",   # both\n]\n# keep until the audit\n\n\n\
    [roles.dev]\nscopes=[ 'a','b' ]\n\n# --- people ---\n\n# the boss\n[[users]]\n  id = \"alice\"\n  roles = ['dev']\n\n\
    [[users]]\nid = \"bob\" # no role yet\n# the end, without a line end";

/// The lines of `after` that are not in `before`, given that all of `before` is in `after`, in its order.
fn added<'t>(before: &str, after: &'t str) -> Vec<&'t str> {
    let mut rest = before.lines().peekable();
    let added = after.lines().filter(|line| rest.next_if_eq(line).is_none()).collect();
    assert_eq!(rest.next(), None, "lost from\n{after}");
    added
}

#[test]
fn everything_outside_an_edit_stays_as_the_person_wrote_it() {
    for (before, end) in
        [(PERSON.to_owned(), "\n"), (PERSON.replace('\n', "\r\n"), "\r\n"), (format!("\u{feff}{PERSON}"), "\n")]
    {
        let folder = Folder::new();
        let path = folder.write("tokens.toml", &before);
        let edit = |line: &str, words: &[&str]| {
            let text = fs::read_to_string(&path).unwrap();
            say(&folder, line, words).went_well();
            let after = fs::read_to_string(&path).unwrap();
            assert_eq!(after.matches('\n').count(), after.matches(end).count(), "other line ends in {after:?}");
            (text, after)
        };
        let (old, new) = edit("token rename laptop …", &["my laptop"]);
        assert_eq!(added(&old, &new), ["name = \"my laptop\""]);
        let (old, new) = edit("token revoke laptop --reason lost", &[]);
        let lines = added(&old, &new);
        assert!(lines.len() == 2 && lines[0].starts_with("revoked_at = ") && lines[1] == "revoked_reason = \"lost\"");
        assert!(new.contains(&format!("\"lost\"{end}# keep until the audit")), "{new}");
        let (old, new) = edit("user suspend bob", &[]);
        assert_eq!(added(&old, &new), ["status = \"suspended\""]);
        let (old, new) = edit("user activate bob", &[]);
        assert_eq!(old.replace("\"suspended\"", "\"active\""), new);
        let (old, new) = edit("token create --user alice --name new", &[]);
        assert_eq!(added(&old, &new).len(), 9, "{new}");
        let (old, new) = edit("user add carol", &[]);
        assert_eq!(added(&old, &new), ["", "[[users]]", "id = \"carol\""]);
        let (old, new) = edit("user remove bob", &[]);
        assert_eq!(added(&new, &old), ["[[users]]", "id = \"bob\" # no role yet", "status = \"active\""]);
    }
}

#[test]
fn a_token_with_a_table_of_its_tools_is_revoked_and_rotated_like_any_other() {
    for tools in ["tools.deny = [\n  'x',\n]", "[tokens.tools]\ndeny = [\n  'x',\n]"] {
        let folder = Folder::new();
        folder.write("tokens.toml", &format!("{}{}", record("a", "alice", tools), record("b", "bob", tools)));
        say(&folder, "token rotate a", &[]).went_well();
        say(&folder, "token revoke b", &[]).went_well();
        say(&folder, "token create --user carol --name new", &[]).went_well();
        let tokens = listed(&folder);
        assert_eq!((tokens.len(), &token(&tokens, "b")["status"]), (4, &"revoked".into()));
        assert!(tokens[..2].iter().all(|token| token["tools"]["deny"][0] == "x"), "{tokens:?}");
        assert!(token(&tokens, "a")["replaced_by"].is_string());
    }
}

#[test]
fn a_list_that_is_written_inline_can_be_edited_as_well() {
    let folder = Folder::new();
    let head = "tokens = [ # all of them\n  { id = \"a\", hash = \"sha256:";
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let before = format!("{head}{hash}\", user = \"alice\" }}, # hers\n]\n");
    folder.write("tokens.toml", &before);
    say(&folder, "token create --user bob --name new", &[]).went_well();
    say(&folder, "token revoke a", &[]).went_well();
    let text = folder.read("tokens.toml");
    assert!(text.starts_with(head) && text.contains("}, # hers\n  { id = \""), "{text}");
    let tokens = listed(&folder);
    assert_eq!((tokens.len(), &token(&tokens, "a")["status"]), (2, &"revoked".into()));
}

#[test]
fn a_file_with_a_mistake_is_left_alone() {
    let folder = Folder::new();
    for text in ["[[tokens]]\nid = \"a\"\n", "not TOML [", "[[tokens]\n", "unknown = 1\n"] {
        folder.write("tokens.toml", text);
        say(&folder, "token create --user a --name n", &[]).refused(2, &["tokens.toml:"]);
        assert_eq!(folder.read("tokens.toml"), text);
    }
    fs::write(folder.path("tokens.toml"), b"# \xff\n").unwrap();
    say(&folder, "token create --user a --name n", &[]).refused(2, &["not UTF-8"]);
    assert_eq!(fs::read(folder.path("tokens.toml")).unwrap(), b"# \xff\n");
}

#[test]
fn a_link_stays_a_link_and_owner_and_mode_stay_what_they_are() {
    let folder = Folder::new();
    fs::create_dir(folder.path("there")).unwrap();
    let target = folder.write("there/real.toml", "# here\n");
    fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("there/real.toml", folder.path("tokens.toml")).unwrap();
    let inode = target.metadata().unwrap().ino();
    folder.token("alice", &[]);
    assert!(folder.path("tokens.toml").is_symlink() && folder.read("there/real.toml").starts_with("# here\n"));
    let after = target.metadata().unwrap();
    assert_eq!(after.mode() & 0o777, 0o640);
    assert_ne!(after.ino(), inode, "it is replaced, not written into");
    let names: Vec<_> = fs::read_dir(folder.path("there")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["real.toml"], "nothing is left beside it");

    // only root can give a file away, and then it must stay with its owner, or the server could not read it
    if chown(&target, Some(12_345), Some(54_321)).is_ok() {
        folder.token("alice", &[]);
        let after = target.metadata().unwrap();
        assert_eq!((after.uid(), after.gid(), after.mode() & 0o777), (12_345, 54_321, 0o640));
    }

    fs::remove_file(&target).unwrap();
    say(&folder, "token create --user a --name n", &[]).refused(1, &["link to nothing"]);
}

#[test]
fn an_access_control_list_and_attributes_stay_with_the_file() {
    const ACL: &str = "system.posix_acl_access";
    let folder = Folder::new();
    let path = folder.write("tokens.toml", "# here\n");
    let attribute = |name: &str| {
        let mut value = Vec::with_capacity(1000);
        getxattr(&path, name, spare_capacity(&mut value)).ok().map(|_| value)
    };
    // on a filesystem that has neither, which some in memory are, this shows only that an edit succeeds
    let _ = setxattr(&path, "user.note", b"Ann's", XattrFlags::empty());
    // as the kernel has it: a tag, rights and an id each; user 12345 may read
    let entries = [(1, 6, u32::MAX), (2, 4, 12_345), (4, 0, u32::MAX), (0x10, 4, u32::MAX), (0x20, 0, u32::MAX)];
    let entry = |(tag, rights, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let list = [2_u32.to_le_bytes().to_vec(), entries.map(entry).concat()].concat();
    let has_list = setxattr(&path, ACL, &list, XattrFlags::empty()).is_ok();
    let before = (attribute("user.note"), attribute(ACL), path.metadata().unwrap().mode());
    folder.token("alice", &[]);
    assert_eq!((attribute("user.note"), attribute(ACL), path.metadata().unwrap().mode()), before);

    // what a folder gives to new files is not for one that had it not
    if has_list {
        setxattr(folder.path(""), "system.posix_acl_default", &list, XattrFlags::empty()).unwrap();
        removexattr(&path, ACL).unwrap();
        folder.token("alice", &[]);
        assert_eq!(attribute(ACL), None);
    }
}

#[test]
fn a_folder_of_files_is_edited_where_the_record_is() {
    let folder = Folder::new();
    fs::create_dir(folder.path("tokens.d")).unwrap();
    let a = format!("# team a\n{}\n[[users]]\nid = \"alice\"\n", record("a", "alice", ""));
    let b = format!("# team b\n{}\n[[users]]\nid = \"bob\"\n", record("b", "bob", ""));
    folder.write("tokens.d/a.toml", &a);
    folder.write("tokens.d/b.toml", &b);
    let say = |line: &str| say(&folder, &format!("{line} --tokens tokens.d"), &[]);

    say("token revoke b").went_well();
    assert_eq!((folder.read("tokens.d/a.toml"), added(&b, &folder.read("tokens.d/b.toml")).len()), (a.clone(), 1));
    say("token create --user alice --name new").went_well();
    assert!(folder.read("tokens.d/tokens.toml").starts_with("[[tokens]]\n") && folder.read("tokens.d/a.toml") == a);
    say("user suspend bob").went_well();
    assert!(folder.read("tokens.d/b.toml").contains("status = \"suspended\""));
    assert_eq!(say("token list --json").json().as_array().unwrap().len(), 3);
    // what is in one file cannot be added to another
    say("user add alice").refused(1, &["listed already"]);
    say_with(&folder, "secret-of-a", "token import --user alice --name n --tokens tokens.d", &[])
        .refused(1, &["already"]);
}

#[test]
fn many_edits_at_once_lose_nothing() {
    let folder = Folder::new();
    let records: String = (0..18).map(|number| record(&format!("t{number}"), "alice", "# its own remark")).collect();
    folder.write(
        "tokens.toml",
        &format!("# the head\n{records}\n[[users]]\nid = \"alice\"\n\n[[users]]\nid = \"bob\"\n"),
    );
    let before = folder.read("tokens.toml");
    let mut running = Vec::new();
    for number in 0..30 {
        let (line, input) = match number {
            0..6 => (format!("token create --user alice --name made{number}"), String::new()),
            6..12 => (format!("token revoke t{number}"), String::new()),
            12..16 => (format!("token rotate t{number}"), String::new()),
            16..20 => (format!("token rename t{} renamed{number}", number - 16), String::new()),
            20..25 => (format!("token import --user alice --name n --id import{number}"), format!("opaque-{number}")),
            25..29 => (format!("user add user{number}"), String::new()),
            _ => ("user suspend bob".to_owned(), String::new()),
        };
        let mut command = patgate();
        command.current_dir(folder.path("")).args(line.split(' ')).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        running.push((line, child));
    }
    for (line, child) in running {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    let tokens = listed(&folder);
    assert_eq!(tokens.len(), 18 + 6 + 4 + 5);
    for number in 0..6 {
        assert!(tokens.iter().any(|token| token["name"] == format!("made{number}")));
    }
    for number in 6..12 {
        assert_eq!(token(&tokens, &format!("t{number}"))["status"], "revoked");
    }
    for number in 12..16 {
        let successor = token(&tokens, &format!("t{number}"))["replaced_by"].as_str().unwrap();
        assert_eq!(token(&tokens, successor)["status"], "active");
    }
    for number in 16..20 {
        assert_eq!(token(&tokens, &format!("t{}", number - 16))["name"], format!("renamed{number}"));
    }
    for number in 20..25 {
        assert_eq!(token(&tokens, &format!("import{number}"))["status"], "active");
    }
    let users = say(&folder, "user list --json", &[]).json();
    assert_eq!((users.as_array().unwrap().len(), &users[1]["status"]), (6, &"suspended".into()));
    assert!(!added(&before, &folder.read("tokens.toml")).is_empty());
}
