//! The manifests: built with kustomize, held to the published schemas, and to each other.

use std::process::Command;

use serde_json::{Value, json};

use super::{assert_is_a_variable, check_configuration, content, content_with, end};
use crate::installed::{node, repository, tool, tools};

/// The oldest version with all that they use (an action that sleeps), and the newest that the schemas know.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];

struct Manifests(Vec<Value>);

impl Manifests {
    fn of(overlay: &str) -> Self {
        let folder = repository().join("config/kubernetes/overlays").join(overlay);
        let text = content(tool("kubectl").arg("kustomize").arg(folder));
        let read = repository().join("tests/tools/read_manifests.py");
        let read = VERSIONS.map(|version| content_with(tool("python").arg(&read).arg(version), &text));
        Self(serde_json::from_str(&read[0]).unwrap())
    }

    fn one(&self, kind: &str) -> &Value {
        let found: Vec<&Value> = self.0.iter().filter(|manifest| manifest["kind"] == kind).collect();
        let [one] = found[..] else { panic!("{} of kind {kind}", found.len()) };
        one
    }

    fn pod(&self) -> &Value {
        &self.one("Deployment")["spec"]["template"]["spec"]
    }

    fn configuration(&self) -> &str {
        self.one("ConfigMap")["data"]["patgate.toml"].as_str().unwrap()
    }
}

fn seconds(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number of seconds"))
}

/// What is true of the proxy wherever it runs.
fn assert_proxy(manifests: &Manifests, proxy: &Value) {
    let variables = proxy["env"].as_array().unwrap();
    assert!(variables.len() >= 3);
    let value = |name: &str| {
        let found = variables.iter().find(|variable| variable["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}"))["value"].as_str().unwrap()
    };
    for variable in variables {
        assert_is_a_variable(variable["name"].as_str().unwrap());
    }

    // the ports are those that it listens on, and the way in
    let port = |name: &str| {
        let ports = proxy["ports"].as_array().unwrap().iter();
        ports.filter(|port| port["name"] == name).map(|port| port["containerPort"].clone()).next().unwrap()
    };
    assert_eq!(value("PATGATE_LISTEN"), format!("0.0.0.0:{}", port("proxy")));
    assert_eq!(value("PATGATE_ADMIN"), format!("0.0.0.0:{}", port("admin")));
    assert_eq!(manifests.one("Service")["spec"]["ports"][0]["targetPort"], port("proxy"));
    let rules = &manifests.one("NetworkPolicy")["spec"]["ingress"];
    assert_eq!(rules[0], json!({ "ports": [{ "protocol": "TCP", "port": port("proxy") }] }));
    assert_eq!((&rules[1]["ports"][0]["port"], rules.as_array().unwrap().len()), (&port("admin"), 2));
    assert!(rules[1]["from"].is_array(), "health and metrics are not for everybody: {rules}");
    for (probe, path) in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        assert_eq!(proxy[probe]["httpGet"], json!({ "path": path, "port": "admin" }), "{probe}");
    }

    // the configuration is where it is looked for, and every mount is read-only and whole
    assert_eq!(value("PATGATE_CONFIG"), "/etc/patgate/config/patgate.toml");
    let mounts = proxy["volumeMounts"].as_array().unwrap();
    assert!(mounts.len() >= 2);
    for mount in mounts {
        assert!(mount["readOnly"] == true && mount["subPath"].is_null(), "{mount}");
    }
    check_configuration(manifests.configuration());
    assert!(proxy["resources"]["limits"]["memory"].is_string() && proxy["resources"]["limits"]["cpu"].is_null());
}

/// The restricted profile of the pod security standards.
fn assert_restricted(pod: &Value) {
    let context = &pod["securityContext"];
    assert_eq!(
        (&context["runAsNonRoot"], &context["seccompProfile"]["type"]),
        (&json!(true), &json!("RuntimeDefault"))
    );
    assert_eq!(pod["automountServiceAccountToken"], false);
    let containers = ["initContainers", "containers"].into_iter().filter_map(|key| pod[key].as_array()).flatten();
    let mut seen = 0;
    for container in containers {
        let restricted = json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] }
        });
        assert_eq!(container["securityContext"], restricted, "{}", container["name"]);
        seen += 1;
    }
    assert!(seen >= 1);
}

fn assert_selected(manifests: &Manifests) {
    let label = json!({ "app.kubernetes.io/name": "mcp" });
    assert_eq!(manifests.one("Deployment")["spec"]["template"]["metadata"]["labels"], label);
    assert_eq!(manifests.one("Service")["spec"]["selector"], label);
    assert_eq!(manifests.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"], label);
    let monitor = manifests.one("PodMonitor");
    assert_eq!(monitor["spec"]["selector"]["matchLabels"], label);
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], "admin");
    tools();
    let check = repository().join("tests/tools/check_pod_monitor.mjs");
    content_with(Command::new(node()).arg(check), &monitor.to_string());
}

#[test]
fn the_sidecar_stands_before_a_server_on_loopback_and_outlives_it() {
    let manifests = Manifests::of("sidecar");
    let pod = manifests.pod();
    let (proxy, server) = (&pod["initContainers"][0], &pod["containers"][0]);
    assert_eq!(proxy["restartPolicy"], "Always", "an init container that ends is no sidecar");
    assert_proxy(&manifests, proxy);
    assert_restricted(pod);
    assert_selected(&manifests);

    let upstream: toml::Table = manifests.configuration().parse().unwrap();
    let (host, port) = (&server["env"][0], &server["env"][1]);
    assert_eq!((&host["value"], &server["ports"]), (&json!("127.0.0.1"), &Value::Null));
    assert_eq!(upstream["upstream"].as_str().unwrap(), format!("http://127.0.0.1:{}", port["value"].as_str().unwrap()));

    let secret = &pod["volumes"][1];
    assert_eq!(secret["secret"]["secretName"], "patgate-tokens");
    assert_eq!(proxy["volumeMounts"][1]["name"], secret["name"]);
    assert_eq!(proxy["volumeMounts"][1]["mountPath"], "/etc/patgate/tokens");

    let pause = seconds(&server["lifecycle"]["preStop"]["sleep"]["seconds"]);
    let grace = seconds(&pod["terminationGracePeriodSeconds"]);
    assert!(grace > pause + end(manifests.configuration()) + 10, "the server needs time of its own, too");
}

#[test]
fn the_gateway_is_never_away_and_asks_a_source() {
    let manifests = Manifests::of("gateway");
    let pod = manifests.pod();
    let proxy = &pod["containers"][0];
    assert_proxy(&manifests, proxy);
    assert_restricted(pod);
    assert_selected(&manifests);
    assert!(manifests.configuration().contains("[tokens.http]"));

    let pause = seconds(&proxy["lifecycle"]["preStop"]["sleep"]["seconds"]);
    let grace = seconds(&pod["terminationGracePeriodSeconds"]);
    assert!(grace > pause + end(manifests.configuration()));
    let deployment = &manifests.one("Deployment")["spec"];
    assert_eq!(
        (&deployment["replicas"], &deployment["strategy"]["rollingUpdate"]["maxUnavailable"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(manifests.one("PodDisruptionBudget")["spec"]["maxUnavailable"], 1);
}
