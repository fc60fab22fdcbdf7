//! The problems of the inbox, from the extension's function `inbox_problems`. Only the extension knows what an inbox is.

use tokio_postgres::Error;
use tokio_postgres::types::{Oid, Type};

use super::catalog::Catalog;
use crate::check_item::{CheckItem, Status};

/// Item for a problem of a kind that this loader doesn't know.
pub(super) const OTHER: &str = "inbox.problems";

/// The kinds of problems, and what it means that there is none.
const KINDS: [(&str, &str, &str); 8] = [
    ("definition", "inbox.definition", "the inbox is as its owner attached it"),
    ("owner", "inbox.owner", "events are written with the rights of a role that is no superuser"),
    ("additions", "inbox.additions", "the inbox has no triggers but its own, and no rules"),
    ("unique_index", "inbox.unique_index", "the target finds a message again by a unique index"),
    ("logged", "inbox.logged", "what is stored or rejected survives a crash of the server"),
    ("schema", "inbox.schema", "only the inbox's owner and superusers can put another view in its place"),
    ("references", "inbox.references", "no table of another role refers to the inbox's tables"),
    ("paths", "inbox.paths", "functions run for each row under a search path that nobody else can change"),
];

/// Asks for the problems of the inbox by `query`, and returns an item for each kind.
pub(super) async fn of_inbox(
    catalog: &Catalog<'_>,
    query: &str,
    inbox: Oid,
) -> Result<Vec<CheckItem>, Error> {
    let mut problems = Vec::new();
    for row in catalog.query(query, &[(&inbox, Type::OID)]).await? {
        let [kind, level, problem, hint]: [String; 4] =
            [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?];
        let status = match level.as_str() {
            "error" => Status::Failed,
            "unknown" => Status::Skipped,
            _ => Status::Warning,
        };
        let item = KINDS.iter().find(|(known, ..)| *known == kind).map_or(OTHER, |(_, item, _)| item);
        problems.push(CheckItem { item, status, message: format!("{problem}. {hint}") });
    }
    let of_kind = |(_, item, fine): (&str, &'static str, &str)| {
        let found = problems.iter().position(|problem| problem.item == item);
        found.map_or_else(|| CheckItem::ok(item, fine), |found| problems.swap_remove(found))
    };
    let mut items: Vec<CheckItem> = KINDS.map(of_kind).into();
    items.extend(problems);
    Ok(items)
}
