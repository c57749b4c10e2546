//! The alerts and the dashboard: read by Prometheus' own tool, and held to the metrics that there are.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::{config, content};
use crate::harness::{Folder, Origin};
use crate::installed::{repository, tool};

/// The names of metrics in a text.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("patgate_")).collect()
}

/// The expressions of the dashboard, with its variables filled in.
fn expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&config("dashboards/patgate.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions = targets.map(|target| target["expr"].as_str().unwrap());
    let filled = expressions.map(|text| {
        let text = text.replace("$__rate_interval", "5m").replace("$job", ".*").replace("$instance", ".*");
        assert!(!text.contains('$'), "{text}");
        text
    });
    filled.collect()
}

#[test]
fn prometheus_reads_the_configuration_and_the_alerts_do_what_they_say() {
    let folder = Folder::new();
    for name in ["prometheus.yml", "prometheus-alerts.yml"] {
        folder.write(name, &config(name));
    }
    let cases = fs::read_to_string(repository().join("tests/tools/alerts.test.yml")).unwrap();
    folder.write("alerts.test.yml", &cases);
    content(tool("promtool").args(["check", "config", "prometheus.yml"]).current_dir(folder.path("")));
    content(tool("promtool").args(["test", "rules", "alerts.test.yml"]).current_dir(folder.path("")));

    let alerts = config("prometheus-alerts.yml");
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 7, "{names:?}");
    for name in names {
        // once where it must fire, and once where it must not
        assert!(cases.matches(name).count() >= 2, "{name} is not tried");
    }
}

#[test]
fn prometheus_understands_every_panel_of_the_dashboard() {
    let folder = Folder::new();
    let expressions = expressions();
    assert!(expressions.len() >= 15, "{}", expressions.len());
    let rules: String = (expressions.iter().enumerate())
        .map(|(index, text)| format!("  - {{ record: 'panel_{index}', expr: {} }}\n", Value::from(text.as_str())))
        .collect();
    folder.write("rules.yml", &format!("groups:\n- name: panels\n  rules:\n{rules}"));
    content(tool("promtool").args(["check", "rules", "rules.yml"]).current_dir(folder.path("")));
}

#[test]
fn every_metric_on_the_dashboard_is_told() {
    let (origin, folder) = (Origin::plain(), Folder::new());
    folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let told = proxy.health("/metrics").body;
    let told = metrics(&told);
    let asked = expressions().join("\n");
    let asked = metrics(&asked);
    assert!(asked.len() >= 15, "{asked:?}");
    let unknown: Vec<_> = asked.difference(&told).collect();
    assert!(unknown.is_empty(), "nobody tells {unknown:?}");
}
