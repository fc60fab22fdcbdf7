//! The database of a run and its inbox, before any connection.

use std::time::Duration;

use super::{DbError, Inbox, KnownInbox};
use crate::check_item::CheckItem;
use libpq_connect::Servers;

/// Database and inbox that events are stored in.
pub(crate) struct Database {
    pub(crate) servers: Servers,
    pub(crate) inbox: String,
    /// The inbox's view at the first connection.
    pub(crate) known: KnownInbox,
    /// Maximum time for storing a batch.
    pub(crate) limit: Duration,
}

impl Database {
    /// Names a database and its inbox, without connecting.
    pub(crate) fn new(servers: Servers, inbox: String, limit: Duration) -> Self {
        Self { servers, inbox, known: KnownInbox::default(), limit }
    }

    /// Connects. The results of the checks go to `check_items`.
    pub(crate) async fn open(&self, check_items: &mut Vec<CheckItem>) -> Result<Inbox, DbError> {
        Inbox::open(self, check_items).await
    }
}
