//! The dashboard and the alert rules in `deploy/` speak of what a loader shows, and of nothing else: a metric or label
//! that is renamed on one side alone turns these red.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::{Metrics, Proxy, World, eventually, request};
use crate::credentials::with_web_identity;

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");

/// What Prometheus adds to every sample, and the one series that it makes by itself.
const OF_PROMETHEUS: [&str; 2] = ["job", "instance"];
const UP: &str = "up";

/// Words of the language that are no functions: those stand before a bracket.
const WORDS: [&str; 9] = ["and", "or", "unless", "bool", "offset", "inf", "nan", "group_left", "group_right"];
/// Those before a list of labels.
const BEFORE_LABELS: [&str; 5] = ["by", "without", "on", "ignoring", "group_left"];

#[tokio::test]
async fn dashboard_and_alerts_use_what_is_exported() {
    World::run(async |world| {
        // Its credentials expire, which is shown too.
        let sts = Proxy::start().await;
        let (loader, token) = with_web_identity(world, &sts);
        let loader = loader.options("--metrics-address 127.0.0.1:0").start();
        let address = loader.metrics_address().await;
        eventually("readiness", async || request(&address, "GET", "/readyz").await.0 == 200).await;
        let shown = Metrics::of(&address).await;
        let (rules, panels) = (of_rules(), of_dashboard());
        assert!(rules.len() > 10 && panels.len() > 30, "{} rules, {} queries", rules.len(), panels.len());
        let mut used = BTreeSet::new();
        for expression in rules.iter().chain(&panels) {
            used.extend(check(expression, &shown));
        }
        // And nothing that is shown is left out.
        let shown = shown.text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let own = shown.filter(|name| name.starts_with("pg_mask_loader_"));
        let unused: Vec<_> = own.filter(|name| !used.iter().any(|u| u.starts_with(name))).collect();
        assert!(unused.is_empty(), "on no panel and in no rule: {unused:?}");
        loader.stop().await.expect(0);
        fs::remove_file(token).unwrap();
    })
    .await;
}

#[test]
fn alert_rules_fire_when_they_should() {
    let promtool = |arguments: &[&str]| {
        let folder = Path::new(DEPLOY).join("prometheus");
        let Ok(output) = Command::new("promtool").args(arguments).current_dir(folder).output() else {
            // Where Prometheus's own tool is not installed, the test above has to do.
            return;
        };
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    };
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["check", "rules", "pg_mask.rules.yml"]);
    promtool(&["test", "rules", "tests/pg_mask.rules.test.yml"]);
}

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(DEPLOY).join(file)).unwrap()
}

/// The expressions of the rules: what stands behind `expr:`, on that line or indented below it. Each alert must say how
/// bad it is and what to do.
fn of_rules() -> Vec<String> {
    let text = read("prometheus/pg_mask.rules.yml");
    let mut expressions = Vec::new();
    for rule in text.split("- alert:").skip(1) {
        for wanted in ["severity:", "summary:", "description:"] {
            assert!(rule.contains(wanted), "{wanted} is missing in {rule}");
        }
        let (_, rest) = rule.split_once("expr:").unwrap();
        let end =
            ["\n        for:", "\n        labels:"].iter().filter_map(|key| rest.find(key)).min().unwrap();
        expressions.push(rest[..end].trim_start_matches([' ', '>', '-', '|']).to_owned());
    }
    expressions
}

/// Every query of the dashboard: of panels, of variables, of annotations. Each panel must say what it shows.
fn of_dashboard() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("grafana/pg_mask.json")).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        if panel["type"] == "row" {
            continue;
        }
        assert!(!text(&panel["title"]).is_empty() && text(&panel["description"]).ends_with('.'), "{panel}");
        expressions.extend(panel["targets"].as_array().unwrap().iter().map(|target| text(&target["expr"])));
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if let Some(query) = text(&variable["query"]["query"]).strip_prefix("label_values(") {
            let (series, label) = query.strip_suffix(')').unwrap().rsplit_once(',').unwrap();
            expressions.push(format!("count by ({label}) ({series})"));
        }
    }
    let annotations = dashboard["annotations"]["list"].as_array().unwrap();
    expressions.extend(annotations.iter().map(|annotation| text(&annotation["expr"])));
    expressions
}

/// Panics where `expression` has a metric or a label that `shown` has not. The metrics that it has.
fn check(expression: &str, shown: &Metrics) -> Vec<String> {
    let (mut metrics, mut labels) = (Vec::new(), BTreeSet::new());
    let mut lists = Vec::new();
    let mut rest = expression;
    while let Some(begin) =
        rest.find(|c: char| c.is_ascii_alphabetic() || c == '_' || "$\"[{0123456789".contains(c))
    {
        rest = &rest[begin..];
        let end = match rest.as_bytes()[0] {
            b'"' => 2 + rest[1..].find('"').unwrap(),
            b'[' => 1 + rest.find(']').unwrap(),
            // Matchers of no metric.
            b'{' => panic!("a selector without a metric in {expression}"),
            b'$' | b'0'..=b'9' => word(&rest[1..]) + 1,
            _ => word(rest),
        };
        let (token, after) = rest.split_at(end);
        rest = after;
        if !token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            continue;
        }
        if BEFORE_LABELS.contains(&token) && after.trim_start().starts_with('(') {
            let (list, after) = after.trim_start()[1..].split_once(')').unwrap();
            lists.extend(list.split(',').map(|label| label.trim().to_owned()));
            rest = after;
        } else if !WORDS.contains(&token)
            && !["(", "by ", "without "].iter().any(|next| after.trim_start().starts_with(next))
        {
            let known = shown.labels(token).unwrap_or_else(|| {
                assert_eq!(token, UP, "no loader shows {token}, in {expression}");
                BTreeSet::new()
            });
            metrics.push(token.to_owned());
            if let Some(matchers) = after.strip_prefix('{') {
                let (matchers, after) = matchers.split_once('}').unwrap();
                rest = after;
                for matcher in matchers.split(", ") {
                    let label = matcher.split(['=', '!']).next().unwrap();
                    let there = known.contains(label) || OF_PROMETHEUS.contains(&label);
                    assert!(there, "{token} has no label {label}, in {expression}");
                }
            }
            labels.extend(known);
        }
    }
    assert!(!metrics.is_empty(), "no metric in {expression}");
    for label in lists {
        let there = labels.contains(&label) || OF_PROMETHEUS.contains(&label.as_str());
        assert!(there, "nothing has a label {label}, in {expression}");
    }
    metrics
}

/// How long the word is that begins here.
fn word(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}
