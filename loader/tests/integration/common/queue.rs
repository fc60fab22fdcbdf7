//! The queue of a world, seen from outside the loader.

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, MessageAttributeValue, QueueAttributeName,
    SendMessageBatchRequestEntry,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use uuid::Uuid;

use super::setting;

/// Maximum messages in one batch call (an SQS limit).
const CALL_SIZE: usize = 10;

/// A queue on the real server.
pub(crate) struct Queue {
    client: Client,
    url: String,
}

/// Number of messages in a queue, by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Depth {
    /// Messages that can be received.
    pub(crate) visible: usize,
    /// Messages that were received, and neither deleted nor given back.
    pub(crate) hidden: usize,
    /// Messages that can't be received yet.
    pub(crate) delayed: usize,
}

impl Depth {
    /// A queue without messages.
    pub(crate) const EMPTY: Self = Self { visible: 0, hidden: 0, delayed: 0 };

    /// Returns a depth of `messages`, all of them visible.
    pub(crate) fn visible(messages: usize) -> Self {
        Self { visible: messages, ..Self::EMPTY }
    }
}

impl Queue {
    /// Creates a queue on the server at `endpoint`.
    pub(crate) async fn create(endpoint: &str, name: &str) -> Self {
        Self::create_in(&setting("AWS_REGION"), endpoint, name).await
    }

    /// Creates a queue in another region of the server at `endpoint`.
    pub(crate) async fn create_in(region: &str, endpoint: &str, name: &str) -> Self {
        Self::create_with(region, endpoint, name, &[]).await
    }

    /// Creates a FIFO queue with content-based deduplication: equal bodies are one message.
    pub(crate) async fn create_fifo(name: &str) -> Self {
        use QueueAttributeName::{ContentBasedDeduplication, FifoQueue};
        let attributes = [FifoQueue, ContentBasedDeduplication].map(|name| (name, "true"));
        Self::create_with(&setting("AWS_REGION"), &setting("AWS_ENDPOINT_URL"), name, &attributes).await
    }

    async fn create_with(
        region: &str,
        endpoint: &str,
        name: &str,
        attributes: &[(QueueAttributeName, &str)],
    ) -> Self {
        let settings = aws_config::defaults(aws_config::BehaviorVersion::v2026_01_12())
            .region(aws_config::Region::new(region.to_owned()))
            .endpoint_url(endpoint);
        let client = Client::new(&settings.load().await);
        let call = attributes.iter().fold(client.create_queue().queue_name(name), |call, (name, value)| {
            call.attributes(name.clone(), *value)
        });
        let url = call.send().await.unwrap().queue_url.unwrap();
        Self { client, url }
    }

    pub(crate) async fn delete(&self) {
        self.client.delete_queue().queue_url(&self.url).send().await.unwrap();
    }

    /// Sends each body as a message and returns the message ids, in the order of the bodies.
    pub(crate) async fn send(&self, bodies: &[String]) -> Vec<Uuid> {
        let calls: Vec<_> = bodies.chunks(CALL_SIZE).map(|ten| self.send_ten(ten)).collect();
        stream::iter(calls).buffered(4).concat().await
    }

    async fn send_ten(&self, bodies: &[String]) -> Vec<Uuid> {
        let entries = bodies.iter().enumerate().map(|(i, body)| {
            SendMessageBatchRequestEntry::builder().id(i.to_string()).message_body(body).build().unwrap()
        });
        let call = self.client.send_message_batch().queue_url(&self.url);
        let answer = call.set_entries(Some(entries.collect())).send().await.unwrap();
        assert!(answer.failed.is_empty(), "SQS refused to take messages");
        let id = |i: usize| answer.successful.iter().find(|sent| sent.id == i.to_string()).unwrap();
        (0..bodies.len()).map(|i| id(i).message_id.parse().unwrap()).collect()
    }

    /// Sends bodies to a message group.
    pub(crate) async fn send_to_group(&self, group: &str, bodies: &[String]) {
        for body in bodies {
            let call = self.client.send_message().queue_url(&self.url);
            call.message_group_id(group).message_body(body).send().await.unwrap();
        }
    }

    /// Makes `dead` the dead-letter queue, for messages that have been received once.
    pub(crate) async fn bury_in(&self, dead: &Self) {
        let call = dead.client.get_queue_attributes().queue_url(&dead.url);
        let answer = call.attribute_names(QueueAttributeName::QueueArn).send().await.unwrap();
        let arn = answer.attributes.unwrap()[&QueueAttributeName::QueueArn].clone();
        let policy = format!("{{\"deadLetterTargetArn\":\"{arn}\",\"maxReceiveCount\":1}}");
        let call = self.client.set_queue_attributes().queue_url(&self.url);
        call.attributes(QueueAttributeName::RedrivePolicy, policy).send().await.unwrap();
    }

    /// Sends a body with message attributes of type String, and returns the message id.
    pub(crate) async fn send_with(&self, body: &str, attributes: &[(&str, &str)]) -> String {
        let mut call = self.client.send_message().queue_url(&self.url).message_body(body);
        for (name, text) in attributes {
            let value = MessageAttributeValue::builder().data_type("String").string_value(*text);
            call = call.message_attributes(*name, value.build().unwrap());
        }
        call.send().await.unwrap().message_id.unwrap()
    }

    /// Returns the number of messages in the queue.
    pub(crate) async fn depth(&self) -> Depth {
        use QueueAttributeName::{
            ApproximateNumberOfMessages as Visible, ApproximateNumberOfMessagesDelayed as Delayed,
            ApproximateNumberOfMessagesNotVisible as Hidden,
        };
        let call = self.client.get_queue_attributes().queue_url(&self.url).attribute_names(Visible);
        let answer = call.attribute_names(Hidden).attribute_names(Delayed).send().await.unwrap();
        let attributes = answer.attributes.unwrap();
        let number = |name| attributes[&name].parse().unwrap();
        Depth { visible: number(Visible), hidden: number(Hidden), delayed: number(Delayed) }
    }

    /// Makes received messages visible at once, as when their visibility timeout ends.
    pub(crate) async fn make_visible(&self, receipts: &[String]) {
        let calls: Vec<_> = receipts.chunks(CALL_SIZE).map(|ten| self.make_ten_visible(ten)).collect();
        stream::iter(calls.into_iter().map(Ok::<_, ()>))
            .try_for_each_concurrent(4, async |call| {
                call.await;
                Ok(())
            })
            .await
            .unwrap();
    }

    async fn make_ten_visible(&self, receipts: &[String]) {
        let entries = receipts.iter().enumerate().map(|(i, receipt)| {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(i.to_string());
            entry.receipt_handle(receipt).visibility_timeout(0).build().unwrap()
        });
        let call = self.client.change_message_visibility_batch().queue_url(&self.url);
        let answer = call.set_entries(Some(entries.collect())).send().await.unwrap();
        assert!(answer.failed.is_empty(), "SQS refused to make messages visible");
    }
}
