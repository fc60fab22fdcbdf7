//! A parser for the Prometheus text format, stricter than Prometheus itself.

use std::collections::{BTreeMap, BTreeSet};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends a request to the loader's own HTTP server. Returns the status, the head in lower case, and the body.
pub(crate) async fn request(address: &str, method: &str, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

/// Returns the status and the text of `/readyz`.
pub(crate) async fn readyz(address: &str) -> (u16, String) {
    let (status, _, body) = request(address, "GET", "/readyz").await;
    (status, body)
}

/// Labels of a sample.
pub(crate) type Labels = BTreeMap<String, String>;

/// A loader's metrics at one moment.
pub(crate) struct Metrics {
    /// Unparsed text.
    pub(crate) text: String,
    samples: Vec<(String, Labels, f64)>,
}

impl Metrics {
    /// Requests the metrics of the loader at `address`.
    pub(crate) async fn of(address: &str) -> Self {
        let (status, head, body) = request(address, "GET", "/metrics").await;
        assert_eq!(status, 200, "{body}");
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        Self::parse(body)
    }

    /// Parses the text and panics if it's malformed.
    fn parse(text: String) -> Self {
        let (mut samples, mut families) = (Vec::new(), BTreeSet::new());
        let mut described = BTreeSet::new();
        let mut current = (String::new(), String::new());
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').unwrap();
                assert!(!text.is_empty() && described.insert(name.to_owned()), "{line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                let counts = name.ends_with("_total");
                assert_eq!(kind == "counter", counts, "{line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(described.contains(name), "{name} is not described");
                assert!(families.insert(name.to_owned()), "{name} comes in pieces");
                current = (name.to_owned(), kind.to_owned());
            } else {
                let sample = sample(line).unwrap_or_else(|| panic!("no sample: {line}"));
                let rest = sample.0.strip_prefix(&current.0);
                let of_family = match current.1.as_str() {
                    "histogram" => rest.is_some_and(|rest| ["_bucket", "_sum", "_count"].contains(&rest)),
                    _ => rest == Some(""),
                };
                assert!(of_family, "{line} after {current:?}");
                samples.push(sample);
            }
        }
        let distinct: BTreeSet<_> = samples.iter().map(|(name, labels, _)| (name, labels)).collect();
        assert_eq!(distinct.len(), samples.len(), "a sample comes twice");
        let metrics = Self { text, samples };
        metrics.assert_buckets_add_up();
        metrics
    }

    fn assert_buckets_add_up(&self) {
        for (name, labels, count) in &self.samples {
            let Some(family) = name.strip_suffix("_count") else { continue };
            let bucket = format!("{family}_bucket");
            let buckets = self.samples.iter().filter(|(name, l, _)| *name == bucket && is_within(labels, l));
            let values: Vec<f64> = buckets.map(|(_, _, value)| *value).collect();
            assert!(values.len() > 10 && values.is_sorted(), "{family}: {values:?}");
            assert_eq!(values.last(), Some(count), "{family}: the last bucket has all");
        }
    }

    /// Returns the sum of the samples with this name and these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let found = self.samples.iter().filter(|(n, l, _)| n == name && is_within(&labels, l));
        let found: Vec<f64> = found.map(|(_, _, value)| *value).collect();
        assert!(!found.is_empty(), "there is no {name} with {labels:?} in:\n{}", self.text);
        found.iter().sum()
    }

    /// Returns the sum of the samples with this name and these labels, which must be a whole number.
    pub(crate) fn count(&self, name: &str, labels: &[(&str, &str)]) -> usize {
        let sum = self.sum(name, labels).to_string();
        sum.parse().unwrap_or_else(|_| panic!("{name} is {sum}"))
    }

    /// Returns the label names that all samples with this name have; `None` without such a sample.
    pub(crate) fn labels(&self, name: &str) -> Option<BTreeSet<String>> {
        let of_name = self.samples.iter().filter(|(n, ..)| n == name);
        of_name.map(|(_, labels, _)| labels.keys().cloned().collect::<BTreeSet<_>>()).reduce(|a, b| &a | &b)
    }
}

fn is_within(some: &Labels, all: &Labels) -> bool {
    some.iter().all(|(key, value)| all.get(key) == Some(value))
}

/// Parses `name{label="value",…} 1.5`. Escapes in label values aren't supported: queue names and codes need none.
fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (series, ""),
    };
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let mut parsed = Labels::new();
    for pair in labels.split_terminator(',') {
        let (label, value) = pair.split_once('=')?;
        let value = value.strip_prefix('"')?.strip_suffix('"')?;
        if !is_name(label)
            || value.contains(['"', '\\'])
            || parsed.insert(label.into(), value.into()).is_some()
        {
            return None;
        }
    }
    let value = value.parse().ok().filter(|value: &f64| value.is_finite())?;
    is_name(name).then(|| (name.to_owned(), parsed, value))
}
