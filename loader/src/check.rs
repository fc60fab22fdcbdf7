//! `loader check`: everything that a run needs, looked at item by item, before one is begun.

use std::fmt;

use serde_json::json;

use crate::cli::Check;
use crate::config::Config;
use crate::error::Error;
use crate::finding::{Finding, Status};
use crate::print;
use crate::queue::Queue;
use crate::writer::Database;

/// Looks at both sides, also where the first is in no order. Prints what was found; fails where a run would.
pub(crate) async fn run(check: &Check) -> Result<(), Error> {
    let config = &check.config;
    let mut findings = vec![config.store_within_visibility()];
    let database = look(database(config, &mut findings).await, "database.connection", &mut findings);
    let queues = look(queues(config, &mut findings).await, "queue.reachable", &mut findings);
    let report = Report { findings };
    if check.json {
        print(&report.json());
    } else {
        print(&report);
    }
    match (database.err().or(queues.err()), report.count(Status::Failed)) {
        (Some(error), _) => Err(error),
        (None, 0) => Ok(()),
        (None, _) => Err(report.error()),
    }
}

/// Makes sure that an error is among the findings.
fn look(outcome: Result<(), Error>, item: &'static str, findings: &mut Vec<Finding>) -> Result<(), Error> {
    outcome.inspect_err(|error| {
        let text = error.to_string();
        // It says which side it is of, as do items.
        let told = findings.iter().any(|f| f.status == Status::Failed && text.contains(&f.message));
        if !told {
            findings.push(Finding::failed(item, text));
        }
    })
}

async fn database(config: &Config, findings: &mut Vec<Finding>) -> Result<(), Error> {
    let database = Database::of(&config.target, config.store_timeout())?;
    let mut sink = database.open(findings).await?;
    findings.extend(sink.glance(&database.servers).await);
    findings.extend(sink.examine().await);
    sink.close().await;
    Ok(())
}

async fn queues(config: &Config, findings: &mut Vec<Finding>) -> Result<(), Error> {
    let (queues, _) = Queue::open_all(config, findings).await?;
    for queue in queues.iter() {
        findings.extend(queue.check().await);
    }
    Ok(())
}

/// All that was found. Its `Display` is for people.
struct Report {
    findings: Vec<Finding>,
}

impl Report {
    fn count(&self, status: Status) -> usize {
        self.findings.iter().filter(|finding| finding.status == status).count()
    }

    /// The first that failed, as a run would end.
    fn error(&self) -> Error {
        let failed = self.findings.iter().find(|finding| finding.status == Status::Failed);
        let (item, message) = failed.map_or(("", String::new()), |f| (f.item, f.message.clone()));
        match item.split('.').next() {
            Some("queue" | "iam" | "aws") => Error::Queue(message),
            _ => Error::Database(message),
        }
    }

    fn json(&self) -> String {
        let items: Vec<_> = self
            .findings
            .iter()
            .map(|f| json!({"item": f.item, "status": f.status.to_string(), "message": f.message}))
            .collect();
        json!({
            "ready": self.count(Status::Failed) == 0,
            "failed": self.count(Status::Failed),
            "warnings": self.count(Status::Warning),
            "items": items,
        })
        .to_string()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{:<8} {:<33} {}", finding.status, finding.item, finding.message)?;
        }
        let (failed, warnings) = (self.count(Status::Failed), self.count(Status::Warning));
        let plural = if warnings == 1 { "" } else { "s" };
        write!(f, "check: {} items, {failed} failed, {warnings} warning{plural}", self.findings.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_documented() {
        let findings = vec![
            Finding::ok("queue.reachable", "queue q: 0 messages"),
            Finding::warning("queue.redrive_policy", "there is none"),
            Finding::failed("inbox.insert", "GRANT it"),
        ];
        let report = Report { findings };
        assert_eq!(
            report.to_string(),
            "ok       queue.reachable                   queue q: 0 messages\n\
             warning  queue.redrive_policy              there is none\n\
             failed   inbox.insert                      GRANT it\n\
             check: 3 items, 1 failed, 1 warning"
        );
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!((&json["ready"], &json["warnings"]), (&false.into(), &1.into()));
        assert_eq!(json["items"][2]["item"], "inbox.insert");
        assert_eq!(report.error().exit_code(), 4);
    }
}
