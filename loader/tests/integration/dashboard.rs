//! The dashboard and the alert rules in `deploy/` use exactly the metrics that a loader exports. Renaming a metric or label
//! on one side only makes these tests fail.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::{Metrics, Proxy, World, eventually, request};
use crate::credentials::with_web_identity;

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");

/// Labels that Prometheus adds to every sample.
const OF_PROMETHEUS: [&str; 2] = ["job", "instance"];
/// The metric that Prometheus makes for each target itself.
const UP: &str = "up";

/// Words of `PromQL` that aren't functions. A function's name stands before a bracket.
const WORDS: [&str; 9] = ["and", "or", "unless", "bool", "offset", "inf", "nan", "group_left", "group_right"];
/// Words before a list of labels.
const BEFORE_LABELS: [&str; 5] = ["by", "without", "on", "ignoring", "group_left"];

#[tokio::test]
async fn dashboard_and_alerts_use_what_is_exported() {
    World::run(async |world| {
        // Uses credentials that expire, because their expiry is a metric too.
        let sts = Proxy::start().await;
        let (loader, token) = with_web_identity(world, &sts);
        let loader = loader.options("--metrics-address 127.0.0.1:0").start();
        let address = loader.metrics_address().await;
        eventually("readiness", async || request(&address, "GET", "/readyz").await.0 == 200).await;
        // Readiness is told just before the pipeline starts, which makes the last metrics.
        let in_flight = "pg_mask_loader_messages_in_flight";
        eventually(in_flight, async || Metrics::of(&address).await.labels(in_flight).is_some()).await;
        let shown = Metrics::of(&address).await;
        let (rules, panels) = (of_rules(), of_dashboard());
        assert!(rules.len() > 10 && panels.len() > 30, "{} rules, {} queries", rules.len(), panels.len());
        let mut used = BTreeSet::new();
        for expression in rules.iter().chain(&panels) {
            used.extend(check(expression, &shown));
        }
        assert_in_reference(&shown);
        // Each of the loader's own metrics must be used.
        let shown = shown.text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let own = shown.filter(|name| name.starts_with("pg_mask_loader_"));
        let unused: Vec<_> = own.filter(|name| !is_used(name, &used)).collect();
        assert!(unused.is_empty(), "on no panel and in no rule: {unused:?}");
        loader.stop().await.expect(0);
        fs::remove_file(token).unwrap();
    })
    .await;
}

/// Whether one of the series of metric `name` is among the `used` ones.
fn is_used(name: &str, used: &BTreeSet<String>) -> bool {
    ["", "_bucket", "_sum", "_count"].iter().any(|suffix| used.contains(&format!("{name}{suffix}")))
}

#[test]
fn a_metric_is_unused_even_if_its_name_begins_a_used_one() {
    let used = BTreeSet::from(["pollers_now".to_owned(), "duration_bucket".to_owned()]);
    assert!(!is_used("pollers", &used));
    assert!(is_used("pollers_now", &used) && is_used("duration", &used));
}

#[test]
fn alert_rules_fire_when_they_should() {
    let promtool = |arguments: &[&str]| {
        let folder = Path::new(DEPLOY).join("prometheus");
        let Ok(output) = Command::new("promtool").args(arguments).current_dir(folder).output() else {
            // Without Prometheus's own tool, only the test above checks the rules.
            return;
        };
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    };
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["check", "rules", "pg_mask.rules.yml"]);
    promtool(&["test", "rules", "tests/pg_mask.rules.test.yml"]);
}

/// Panics unless the reference lists the loader's own metrics, each with its type and labels, and no others.
fn assert_in_reference(shown: &Metrics) {
    const PREFIX: &str = "pg_mask_loader_";
    let page =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/metrics.md")).unwrap();
    let cells = |line: &str| {
        let cells = line.strip_prefix('|')?.strip_suffix('|')?.split('|');
        Some(cells.map(|cell| cell.trim().trim_matches('`').to_owned()).collect::<Vec<_>>())
    };
    let types = ["counter", "gauge", "histogram"];
    let rows: Vec<_> =
        page.lines().filter_map(cells).filter(|row| row.len() == 4 && types.contains(&&*row[1])).collect();
    let documented: BTreeSet<_> = rows.iter().map(|row| format!("{PREFIX}{} {}", row[0], row[1])).collect();
    let types = shown.text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let exported = types.filter(|name| name.starts_with(PREFIX)).map(str::to_owned).collect();
    assert_eq!(documented, exported, "docs/reference/metrics.md and what is exported");
    for row in rows {
        let name = format!("{PREFIX}{}", row[0]);
        let listed: BTreeSet<_> = row[2].split(", ").map(|label| label.trim_matches(['`', ' '])).collect();
        let sample = shown.text.lines().find_map(|line| {
            let rest = line.strip_prefix(&name)?;
            let rest =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| rest.strip_prefix(end)).unwrap_or(rest);
            rest.starts_with(['{', ' ']).then_some(rest)
        });
        let Some(sample) = sample else { continue };
        let labels = sample.strip_prefix('{').and_then(|labels| labels.split_once('}')).unwrap_or_default().0;
        let keys = labels.split(',').filter_map(|label| label.split_once('=')).map(|(key, _)| key);
        let mut keys: BTreeSet<_> = keys.filter(|key| *key != "le").collect();
        if keys.is_empty() {
            keys.insert("");
        }
        assert_eq!(listed, keys, "labels of {name}");
    }
}

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(DEPLOY).join(file)).unwrap()
}

/// Returns the expressions of the rules: the text after `expr:`, on that line or indented below it. Each alert must have a
/// severity, a summary and a description.
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

/// Returns every query of the dashboard: in panels, variables and annotations. Each panel must have a title and a
/// description.
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

/// Returns the metrics in `expression`. Panics if `shown` lacks a metric or a label that it uses.
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
            // A list of matchers without a metric.
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

/// Returns the length of the word at the start of `text`.
fn word(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}
