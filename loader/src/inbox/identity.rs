//! Identity of the inbox's view. The owner of a schema can put another view in the inbox's place, and that view would
//! get raw events. So the loader stops when the name refers to another view than at the start.

use std::sync::OnceLock;

use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::types::Oid;

use super::error::{DbError, Retry, SETUP};
use crate::error::Error;

/// A view and its owner. Events are written with the owner's privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) view: Oid,
    pub(super) owner: Oid,
}

impl Identity {
    /// Returns a statement that asks which view `literal` refers to now. `literal` is a quoted name with its schema.
    /// The statement reads no search path.
    pub(super) fn query(literal: &str) -> String {
        format!(
            "SELECT c.oid AS view, c.relowner AS owner FROM pg_catalog.pg_class AS c
             WHERE c.oid OPERATOR(pg_catalog.=) CAST(pg_catalog.to_regclass({literal}) AS pg_catalog.oid)"
        )
    }

    /// Finds the answer among answers to other statements. Returns `None` if the name refers to nothing.
    pub(super) fn among(answers: &[SimpleQueryMessage]) -> Option<Self> {
        let oid = |column| number(answers, column)?.try_into().ok();
        Some(Self { view: oid("view")?, owner: oid("owner")? })
    }

    /// Fails if `now` is another view or has another owner. `name` is for the message.
    pub(super) fn check(self, now: Option<Self>, name: &str) -> Result<(), DbError> {
        let change = match now {
            Some(now) if now == self => return Ok(()),
            Some(now) if now.view == self.view => {
                format!("was given another owner (role OID {}, was {})", now.owner, self.owner)
            }
            Some(now) => format!("was replaced by another view (OID {}, was {})", now.view, self.view),
            None => "was dropped or renamed".into(),
        };
        Err(DbError {
            retry: Retry::Never,
            error: Error::Replaced { inbox: name.to_owned(), change },
            code: SETUP.into(),
        })
    }
}

/// The inbox that this process found first. All its connections share it.
#[derive(Default)]
pub(crate) struct KnownInbox(OnceLock<Identity>);

impl KnownInbox {
    /// Fails if `now` differs from the first inbox.
    pub(super) fn check(&self, now: Option<Identity>, name: &str) -> Result<(), DbError> {
        self.0.get().map_or(Ok(()), |first| first.check(now, name))
    }

    /// Remembers the first inbox that is in order. Fails for any other.
    pub(super) fn remember(&self, inbox: Identity, name: &str) -> Result<(), DbError> {
        self.0.get_or_init(|| inbox).check(Some(inbox), name)
    }
}

/// Returns the number in `column`, which only one of the answers has.
pub(super) fn number(answers: &[SimpleQueryMessage], column: &str) -> Option<i64> {
    answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.try_get(column).ok()??.parse().ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_inbox_is_the_only_one() {
        let [first, moved, sold] = [(1, 10), (2, 10), (1, 11)].map(|(view, owner)| Identity { view, owner });
        let known = KnownInbox::default();
        assert!(known.check(None, "i").is_ok() && known.check(Some(moved), "i").is_ok(), "none is known yet");
        assert!(known.remember(first, "i").is_ok() && known.remember(first, "i").is_ok());
        for (now, word) in
            [(Some(moved), "another view"), (Some(sold), "another owner"), (None, "dropped or renamed")]
        {
            let fault = known.check(now, "s.i").unwrap_err();
            assert_eq!((fault.retry, fault.error.exit_code()), (Retry::Never, 6));
            assert!(fault.error.to_string().contains(word), "{}", fault.error);
        }
        assert!(known.remember(moved, "i").is_err());
    }
}
