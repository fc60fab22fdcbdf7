//! A server with a client of it.

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::retry::RetryConfig;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::error::ProvideErrorMetadata;
use aws_sdk_sqs::operation::delete_message_batch::DeleteMessageBatchOutput;
use aws_sdk_sqs::types::{
    DeleteMessageBatchRequestEntry, Message, MessageSystemAttributeName as Attribute,
    SendMessageBatchRequestEntry,
};
use sqs_stub::{Faults, Options, Server};

/// The access key id of [`Stub::client`].
pub(crate) const KEY: &str = "AKIASTUB";

/// A server, a queue and a client that does not try again.
pub(crate) struct Stub {
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) queue: &'static str,
    pub(crate) url: String,
}

impl Stub {
    pub(crate) fn new(queue: &'static str, attributes: &[(&str, &str)]) -> Self {
        let server = Server::start(Options::default()).unwrap();
        let url = server.create_queue(queue, attributes).unwrap();
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new(KEY, "secret", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .endpoint_url(server.url())
            .build();
        Self { server, client: Client::from_conf(config), queue, url }
    }

    pub(crate) fn fill(&self, count: usize) {
        self.server.fill(self.queue, count, |n| format!("body {n}"));
    }

    pub(crate) fn break_by(&self, faults: Faults) {
        self.server.set_faults(faults);
    }

    pub(crate) fn mend(&self) {
        self.break_by(Faults::default());
    }

    /// Visible, hidden and delayed messages.
    pub(crate) fn depth(&self) -> (u64, u64, u64) {
        let depth = self.server.depth(self.queue).unwrap();
        (depth.visible, depth.hidden, depth.delayed)
    }

    /// Receives up to ten messages, waiting for up to `wait` seconds. An error is its code.
    pub(crate) async fn try_receive(&self, wait: i32) -> Result<Vec<Message>, String> {
        self.client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(10)
            .wait_time_seconds(wait)
            .message_system_attribute_names(Attribute::All)
            .send()
            .await
            .map(|answer| answer.messages.unwrap_or_default())
            .map_err(|e| e.code().unwrap_or("no answer").to_owned())
    }

    pub(crate) async fn receive(&self, wait: i32) -> Vec<Message> {
        self.try_receive(wait).await.unwrap()
    }

    /// Sends one message. An error is its code.
    pub(crate) async fn try_send(&self, body: &str) -> Result<(), String> {
        let sent = self.client.send_message().queue_url(&self.url).message_body(body).send().await;
        sent.map(drop).map_err(|e| e.code().unwrap_or("no answer").to_owned())
    }

    pub(crate) async fn send_to_group(&self, group: &str, ids: &[&str]) {
        let entry = |id: &&str| {
            SendMessageBatchRequestEntry::builder()
                .id(*id)
                .message_body(*id)
                .message_group_id(group)
                .message_deduplication_id(*id)
                .build()
                .unwrap()
        };
        let call = self.client.send_message_batch().queue_url(&self.url);
        let answer = call.set_entries(Some(ids.iter().map(entry).collect())).send().await.unwrap();
        assert_eq!((answer.successful.len(), answer.failed.len()), (ids.len(), 0));
    }

    /// Deletes by receipts, in one call.
    pub(crate) async fn delete(&self, receipts: &[&str]) -> DeleteMessageBatchOutput {
        let entry = |(i, receipt): (usize, &&str)| {
            DeleteMessageBatchRequestEntry::builder()
                .id(i.to_string())
                .receipt_handle(*receipt)
                .build()
                .unwrap()
        };
        let entries = receipts.iter().enumerate().map(entry).collect();
        let call = self.client.delete_message_batch().queue_url(&self.url);
        call.set_entries(Some(entries)).send().await.unwrap()
    }

    /// Deletes by one receipt. An error is the code.
    pub(crate) async fn delete_one(&self, message: &Message) -> Result<(), String> {
        let call = self.client.delete_message().queue_url(&self.url).receipt_handle(receipt(message));
        call.send().await.map(drop).map_err(|e| e.code().unwrap_or("no answer").to_owned())
    }

    /// Hides a message for this long.
    pub(crate) async fn hide(&self, message: &Message, seconds: i32) -> Result<(), String> {
        let call = self.client.change_message_visibility().queue_url(&self.url);
        let call = call.receipt_handle(receipt(message)).visibility_timeout(seconds);
        call.send().await.map(drop).map_err(|e| e.code().unwrap_or("no answer").to_owned())
    }
}

pub(crate) fn receipt(message: &Message) -> &str {
    message.receipt_handle().unwrap()
}

pub(crate) fn receipts(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(receipt).collect()
}

pub(crate) fn bodies(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|m| m.body().unwrap()).collect()
}

pub(crate) fn attribute<'a>(message: &'a Message, name: &Attribute) -> &'a str {
    &message.attributes().unwrap()[name]
}
