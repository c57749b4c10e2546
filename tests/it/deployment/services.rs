//! The compose file and the units of systemd.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use super::{assert_is_a_variable, check_configuration, config, content, end};
use crate::harness::Folder;
use crate::installed::{repository, tool, tools};

/// The exposure that docs/operations.md tells of, on systemd's scale from 0 to 10.
const EXPOSURE: f64 = 1.1;

#[test]
fn compose_reads_the_file_and_its_values_are_real() {
    let mut compose = tool("docker-compose");
    compose.env("MCP_SERVER_IMAGE", "registry.example.com/mcp-server:1.0").current_dir(repository());
    let text = content(compose.args(["-f", "config/compose.yaml", "config", "--format", "json"]));
    let file: Value = serde_json::from_str(&text).unwrap();
    let (proxy, server) = (&file["services"]["patgate"], &file["services"]["server"]);
    assert_eq!(server["network_mode"], "service:patgate");
    assert!(server["ports"].is_null() && proxy["read_only"] == true && proxy["cap_drop"][0] == "ALL");
    assert_eq!(proxy["volumes"][0]["target"], "/etc/patgate/tokens");
    for port in proxy["ports"].as_array().unwrap() {
        assert_eq!(port["host_ip"], "127.0.0.1");
    }

    let configuration = file["configs"]["patgate"]["content"].as_str().unwrap();
    check_configuration(configuration);
    let grace = proxy["stop_grace_period"].as_str().unwrap().trim_end_matches('s').parse::<u64>().unwrap();
    assert!(grace > end(configuration));
    let upstream =
        format!("http://{}:{}", server["environment"]["HOST"], server["environment"]["PORT"]).replace('"', "");
    assert!(configuration.contains(&upstream), "{upstream}");
}

/// A folder with the units, which name a program that is there.
fn units() -> (Folder, Vec<String>) {
    let folder = Folder::new();
    let mut names = Vec::new();
    for entry in fs::read_dir(repository().join("config/systemd")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let unit = config(&format!("systemd/{name}"));
        folder.write(&name, &unit.replace("/usr/local/bin/patgate", env!("CARGO_BIN_EXE_patgate")));
        names.push(name);
    }
    (folder, names)
}

fn systemd_analyze(arguments: &[&str], folder: &Folder) -> String {
    tools();
    content(Command::new("systemd-analyze").args(arguments).current_dir(folder.path("")))
}

#[test]
fn systemd_reads_the_units_and_finds_them_hardened() {
    let (folder, names) = units();
    assert!(names.contains(&"patgate.service".to_owned()));
    for name in &names {
        let file = folder.path(name);
        systemd_analyze(&["verify", "--man=no", file.to_str().unwrap()], &folder);
    }
    let service = folder.path("patgate.service");
    let security = systemd_analyze(&["security", "--offline=true", "--no-pager", service.to_str().unwrap()], &folder);
    let verdict = security.lines().find_map(|line| line.split_once("Overall exposure level for patgate.service: "));
    let level: f64 = verdict.unwrap().1.split(' ').next().unwrap().parse().unwrap();
    assert!(level <= EXPOSURE, "{level}");
}

/// The command of the unit, with the credential where systemd would put it.
#[test]
fn the_unit_starts_what_there_is() {
    let unit = config("systemd/patgate.service");
    let folder = Folder::new();
    folder.token("alice", &[]);
    folder.configure("http://127.0.0.1:3000", "");
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/patgate ")).unwrap();
    let credentials = folder.path("").display().to_string();
    let command = command.replace("%d/", &credentials).replace("/etc/patgate/", &credentials);
    let arguments: Vec<&str> = command.split(' ').collect();
    assert_eq!(arguments[0], "serve");
    fs::set_permissions(folder.path("tokens.toml"), fs::Permissions::from_mode(0o400)).unwrap();
    let check = folder.run(&[&["check"], &arguments[1..]].concat());
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let stop = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
    // the configuration that is installed with it sets nothing of its own
    let defaults = config("patgate.toml").replace("# drain = ", "drain = ");
    assert!(stop.trim_end_matches('s').parse::<u64>().unwrap() > end(&defaults), "{stop}");
    assert_is_a_variable("PATGATE_CONFIG");
}
