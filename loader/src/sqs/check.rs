//! Checks of the actions that IAM must allow, tried so that nothing happens to a message. `loader check` also checks
//! the service's clock.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_sqs::config::interceptors::BeforeDeserializationInterceptorContextRef as Answered;
use aws_sdk_sqs::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_sqs::error::BoxError;
use aws_sdk_sqs::primitives::{DateTime, DateTimeFormat};

use super::{Answer, Depth, Queue, SqsError};
use crate::check_item::CheckItem;
use crate::clock::{compare_clocks, now};
use crate::error::Error;
use crate::leases::ledger::{Lease, LeaseId};
use crate::telemetry::trace::MessageSpan;

/// A receipt that no message has.
const NO_RECEIPT: &str = "pg_mask-check";

impl Queue {
    /// Tries every action of a run, and compares clocks.
    pub(crate) async fn check(&self) -> Vec<CheckItem> {
        let mut check_items = vec![self.clock().await, self.receiving().await];
        check_items.extend(self.try_actions().await.into_iter().map(|(item, tried)| match tried {
            Ok(()) => CheckItem::ok(item, format!("queue {}: allowed", self.name)),
            Err(failure) => CheckItem::failed(item, format!("queue {}: {failure}", self.name)),
        }));
        check_items
    }

    /// Fails unless messages can be deleted and hidden. A loader that only stores would fill the dead-letter queue.
    pub(crate) async fn require_actions(&self) -> Result<(), Error> {
        let tried = self.try_actions().await.into_iter().try_for_each(|(_, tried)| tried);
        tried.map_err(|failure| self.explain(&failure))
    }

    /// Tries to delete and to hide with a receipt that no message has.
    async fn try_actions(&self) -> [(&'static str, Result<(), SqsError>); 2] {
        let nothing = [Arc::new(Lease {
            id: LeaseId::NONE,
            queue: self.number,
            message_id: String::new(),
            receipt: NO_RECEIPT.to_owned(),
            group: None,
            trace: MessageSpan::default(),
            received: tokio::time::Instant::now(),
        })];
        // Only an allowed caller gets a refused receipt as the answer.
        let allowed = |tried: Result<Vec<Answer>, SqsError>| match tried {
            Err(failure) if !failure.is_about_receipt() => Err(failure),
            _ => Ok(()),
        };
        [
            ("iam.delete_message", allowed(self.delete(&nothing).await)),
            ("iam.change_message_visibility", allowed(self.hide(&nothing, 0).await)),
        ]
    }

    /// Tries to receive only if there is nothing to receive, because a receive counts towards the dead-letter queue. A
    /// message that arrives all the same is left visible.
    async fn receiving(&self) -> CheckItem {
        const ITEM: &str = "iam.receive_message";
        match self.depth().await {
            Ok(Depth { visible: 0, .. }) => {}
            Ok(_) => {
                return CheckItem::skipped(
                    ITEM,
                    format!(
                        "queue {}: not tried, since messages wait, and each receive counts towards the dead-letter queue: \
                         --dry-run tries it",
                        self.name
                    ),
                );
            }
            Err(failure) => return CheckItem::failed(ITEM, format!("queue {}: {failure}", self.name)),
        }
        let call = self.service.client().receive_message().queue_url(&*self.url).visibility_timeout(0);
        match self.checked("ReceiveMessage", call.send().await).await {
            Ok(_) => CheckItem::ok(ITEM, format!("queue {}: allowed", self.name)),
            Err(failure) => CheckItem::failed(ITEM, format!("queue {}: {failure}", self.name)),
        }
    }

    /// Compares the service's clock with this machine's. The service's answers give it to the second.
    async fn clock(&self) -> CheckItem {
        const ITEM: &str = "queue.clock";
        let date = Date::default();
        let call = self.service.client().get_queue_attributes().queue_url(&*self.url);
        let call = call.customize().interceptor(date.clone());
        let before = now();
        if let Err(failure) = self.checked("GetQueueAttributes", call.send().await).await {
            return CheckItem::failed(ITEM, format!("queue {}: {failure}", self.name));
        }
        match date.seconds() {
            Some(theirs) => compare_clocks(ITEM, "SQS", theirs, before - 1.0, now()),
            None => CheckItem::skipped(ITEM, format!("queue {}: the service does not say", self.name)),
        }
    }
}

/// Takes the `Date` from an answer.
#[derive(Clone, Default)]
struct Date(Arc<Mutex<Option<String>>>);

impl Date {
    fn seconds(&self) -> Option<f64> {
        let date = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(DateTime::from_str(date.as_deref()?, DateTimeFormat::HttpDate).ok()?.as_secs_f64())
    }
}

impl fmt::Debug for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Intercept for Date {
    fn name(&self) -> &'static str {
        "Date"
    }

    fn read_before_deserialization(
        &self,
        context: &Answered<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date").map(str::to_owned);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date;
        Ok(())
    }
}
