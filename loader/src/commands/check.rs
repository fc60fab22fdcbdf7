//! `loader check`: checks each item that a run needs, before a run begins.

use std::fmt;

use serde_json::json;

use super::print;
use crate::check_item::{CheckItem, Status};
use crate::config::Config;
use crate::error::Error;
use crate::sqs::Queue;

/// `loader check`.
// No Debug: see `Config`.
#[derive(clap::Args)]
pub(crate) struct Check {
    /// Print the items as one JSON object
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) config: Config,
}

/// Checks both sides, even if the first one fails. Prints the items, and fails where a run would.
pub(crate) async fn run(check: &Check) -> Result<(), Error> {
    let config = &check.config;
    let mut check_items = vec![config.store_within_visibility()];
    let database =
        add_failure(database(config, &mut check_items).await, "database.connection", &mut check_items);
    let queues = add_failure(queues(config, &mut check_items).await, "queue.reachable", &mut check_items);
    let report = Report { check_items };
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

/// Adds an error to `check_items`, unless it is there already.
fn add_failure(
    outcome: Result<(), Error>,
    item: &'static str,
    check_items: &mut Vec<CheckItem>,
) -> Result<(), Error> {
    outcome.inspect_err(|error| {
        let text = error.to_string();
        // The error's text may put the side (SQS or `PostgreSQL`) before the item's message.
        let is_listed = check_items.iter().any(|f| f.status == Status::Failed && text.contains(&f.message));
        if !is_listed {
            check_items.push(CheckItem::failed(item, text));
        }
    })
}

async fn database(config: &Config, check_items: &mut Vec<CheckItem>) -> Result<(), Error> {
    let database = config.target.database(config.store_timeout())?;
    let mut inbox = database.open(check_items).await?;
    check_items.extend(inbox.check_at_start(&database.servers).await);
    check_items.extend(inbox.check_rights_and_trial().await);
    inbox.close().await;
    Ok(())
}

async fn queues(config: &Config, check_items: &mut Vec<CheckItem>) -> Result<(), Error> {
    let (queues, _) = Queue::open_all(config.queues()?, check_items).await?;
    for queue in queues.iter() {
        check_items.extend(queue.check().await);
    }
    Ok(())
}

/// All items that were checked. Its `Display` is for people.
struct Report {
    check_items: Vec<CheckItem>,
}

impl Report {
    fn count(&self, status: Status) -> usize {
        self.check_items.iter().filter(|check_item| check_item.status == status).count()
    }

    /// Returns the first failure as an error, as a run would end.
    fn error(&self) -> Error {
        let failed = self.check_items.iter().find(|check_item| check_item.status == Status::Failed);
        let (item, message) = failed.map_or(("", String::new()), |f| (f.item, f.line()));
        match item.split('.').next() {
            Some("queue" | "iam" | "aws") => Error::Queue(message),
            _ => Error::Database(message),
        }
    }

    fn json(&self) -> String {
        let items: Vec<_> = self
            .check_items
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
        for check_item in &self.check_items {
            writeln!(f, "{:<8} {:<33} {}", check_item.status, check_item.item, check_item.line())?;
        }
        let (failed, warnings) = (self.count(Status::Failed), self.count(Status::Warning));
        let plural = if warnings == 1 { "" } else { "s" };
        write!(f, "check: {} items, {failed} failed, {warnings} warning{plural}", self.check_items.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_documented() {
        let check_items = vec![
            CheckItem::ok("queue.reachable", "queue q: 0 messages"),
            CheckItem::warning("queue.redrive_policy", "there is none\nok"),
            CheckItem::failed("inbox.insert", "GRANT it"),
        ];
        let report = Report { check_items };
        assert_eq!(
            report.to_string(),
            "ok       queue.reachable                   queue q: 0 messages\n\
             warning  queue.redrive_policy              there is none\\u{a}ok\n\
             failed   inbox.insert                      GRANT it\n\
             check: 3 items, 1 failed, 1 warning"
        );
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!((&json["ready"], &json["warnings"]), (&false.into(), &1.into()));
        assert_eq!(json["items"][2]["item"], "inbox.insert");
        assert_eq!(report.error().exit_code(), 4);
    }
}
