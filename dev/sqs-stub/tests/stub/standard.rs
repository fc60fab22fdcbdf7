//! Standard queues without faults.

use std::time::{Duration, Instant};

use aws_sdk_sqs::error::ProvideErrorMetadata;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, MessageSystemAttributeName as Attribute, QueueAttributeName,
};

use crate::client::{Stub, attribute, bodies, receipts};

const REFUSED: &str = "ReceiptHandleIsInvalid";

#[tokio::test]
async fn messages_are_sent_received_and_deleted() {
    let stub = Stub::new("q", &[]);
    let body = "{\"a\":\"\\\"\u{e9}\u{1f600}\\n\"}\n";
    stub.try_send(body).await.unwrap();
    stub.fill(2);
    let messages = stub.receive(0).await;
    assert_eq!(bodies(&messages), [body, "body 0", "body 1"]);
    assert_eq!(attribute(&messages[0], &Attribute::ApproximateReceiveCount), "1");
    assert!(attribute(&messages[0], &Attribute::SentTimestamp).parse::<u64>().unwrap() > 1_700_000_000_000);
    assert_eq!(stub.depth(), (0, 3, 0));
    let answer = stub.delete(&receipts(&messages)).await;
    assert_eq!((answer.successful.len(), answer.failed.len()), (3, 0));
    assert_eq!(stub.depth(), (0, 0, 0));
    // Once more: it is done.
    assert_eq!(stub.delete_one(&messages[0]).await, Ok(()));
    let counters = stub.server.counters();
    assert_eq!((counters.sent, counters.received, counters.deleted, counters.most_in_flight), (3, 3, 3, 3));
    assert_eq!((counters.calls["ReceiveMessage"], counters.stale_deletes), (1, 0));
}

#[tokio::test]
async fn a_message_comes_back_when_its_visibility_ends_and_the_old_receipt_is_refused() {
    let stub = Stub::new("q", &[("VisibilityTimeout", "1")]);
    stub.fill(1);
    let first = stub.receive(0).await;
    let start = Instant::now();
    assert!(stub.receive(0).await.is_empty());
    let second = stub.receive(5).await;
    assert!(start.elapsed() > Duration::from_millis(800) && start.elapsed() < Duration::from_secs(2));
    assert_eq!(attribute(&second[0], &Attribute::ApproximateReceiveCount), "2");
    assert_eq!(first[0].message_id(), second[0].message_id());
    let answer = stub.delete(&receipts(&[first[0].clone(), second[0].clone()])).await;
    assert_eq!(answer.successful[0].id(), "1");
    assert_eq!((answer.failed[0].id(), answer.failed[0].code()), ("0", REFUSED));
    assert!(answer.failed[0].sender_fault());
    // Of a deleted message only the last receipt is good.
    assert_eq!(stub.delete_one(&second[0]).await, Ok(()));
    assert_eq!(stub.delete_one(&first[0]).await, Err(REFUSED.to_owned()));
    let counters = stub.server.counters();
    assert_eq!((counters.redelivered, counters.stale_deletes, counters.deleted), (1, 2, 1));
}

#[tokio::test]
async fn a_late_receipt_is_good_if_that_is_asked_for() {
    let stub = Stub::new("q", &[("VisibilityTimeout", "0")]);
    stub.fill(1);
    let late = stub.receive(0).await;
    assert_eq!(stub.delete_one(&late[0]).await, Err(REFUSED.to_owned()));
    stub.break_by(sqs_stub::Faults { late_receipts: true, ..Default::default() });
    assert_eq!(stub.delete_one(&late[0]).await, Ok(()));
    assert_eq!(stub.depth(), (0, 0, 0));
}

#[tokio::test]
async fn visibility_is_changed() {
    let stub = Stub::new("q", &[("VisibilityTimeout", "1")]);
    stub.fill(2);
    let messages = stub.receive(0).await;
    stub.hide(&messages[0], 60).await.unwrap();
    let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
        .id("0")
        .receipt_handle(messages[1].receipt_handle().unwrap())
        .visibility_timeout(0)
        .build()
        .unwrap();
    let call = stub.client.change_message_visibility_batch().queue_url(&stub.url).entries(entry);
    assert_eq!(call.send().await.unwrap().successful.len(), 1);
    assert_eq!(bodies(&stub.receive(0).await), ["body 1"]);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(stub.depth(), (1, 1, 0));
    assert_eq!(stub.delete_one(&messages[0]).await, Ok(()));
}

#[tokio::test]
async fn a_message_received_too_often_goes_to_the_dead_letter_queue() {
    let policy = r#"{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead","maxReceiveCount":2}"#;
    let stub = Stub::new("q", &[("VisibilityTimeout", "0"), ("RedrivePolicy", policy)]);
    stub.server.create_queue("dead", &[]).unwrap();
    stub.fill(1);
    for _ in 0..2 {
        assert_eq!(stub.receive(0).await.len(), 1);
    }
    assert!(stub.receive(0).await.is_empty());
    assert_eq!(stub.depth(), (0, 0, 0));
    assert_eq!(stub.server.depth("dead").unwrap().visible, 1);
    assert_eq!(stub.server.counters().dead, 1);
}

#[tokio::test]
async fn a_long_poll_wakes_at_once() {
    let stub = Stub::new("q", &[]);
    let start = Instant::now();
    let send = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        stub.try_send("x").await.unwrap();
    };
    let (messages, ()) = tokio::join!(stub.receive(10), send);
    assert_eq!(messages.len(), 1);
    assert!(start.elapsed() >= Duration::from_millis(200) && start.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_long_poll_sees_what_another_receiver_lets_go() {
    let stub = Stub::new("q", &[("VisibilityTimeout", "1")]);
    let start = Instant::now();
    let send = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stub.try_send("x").await.unwrap();
    };
    // One gets it at once, the other when its visibility has ended.
    let (a, b, ()) = tokio::join!(stub.receive(10), stub.receive(10), send);
    assert_eq!((a.len(), b.len()), (1, 1));
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_call_takes_at_least_the_delay_and_its_messages_are_hidden_meanwhile() {
    let stub = Stub::new("q", &[]);
    stub.fill(1);
    stub.server.set_delay(Duration::from_millis(200));
    let start = Instant::now();
    let look = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(stub.depth(), (0, 1, 0));
    };
    let (messages, ()) = tokio::join!(stub.receive(0), look);
    assert_eq!(messages.len(), 1);
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn a_message_sent_with_a_delay_is_held_back() {
    let stub = Stub::new("q", &[]);
    let call = stub.client.send_message().queue_url(&stub.url).message_body("x").delay_seconds(1);
    call.send().await.unwrap();
    assert_eq!(stub.depth(), (0, 0, 1));
    assert!(stub.receive(0).await.is_empty());
    assert_eq!(stub.receive(5).await.len(), 1);
}

#[tokio::test]
async fn batches_are_checked() {
    let stub = Stub::new("q", &[]);
    let entry = |id: usize| {
        aws_sdk_sqs::types::DeleteMessageBatchRequestEntry::builder()
            .id(id.to_string())
            .receipt_handle("x")
            .build()
            .unwrap()
    };
    for (ids, code) in [
        ((0..11).collect::<Vec<_>>(), "TooManyEntriesInBatchRequest"),
        (vec![1, 1], "BatchEntryIdsNotDistinct"),
    ] {
        let call = stub.client.delete_message_batch().queue_url(&stub.url);
        let error = call.set_entries(Some(ids.into_iter().map(entry).collect())).send().await.unwrap_err();
        assert!(error.code().unwrap().ends_with(code), "{error:?}");
    }
}

#[tokio::test]
async fn queues_are_made_found_described_and_deleted() {
    let stub = Stub::new("q", &[("VisibilityTimeout", "7")]);
    let create = |seconds| {
        let call = stub.client.create_queue().queue_name("q");
        call.attributes(QueueAttributeName::VisibilityTimeout, seconds).send()
    };
    assert_eq!(create("7").await.unwrap().queue_url(), Some(&*stub.url));
    assert!(create("8").await.unwrap_err().into_service_error().is_queue_name_exists());
    let found = stub.client.get_queue_url().queue_name("q").send().await.unwrap();
    assert_eq!(found.queue_url(), Some(&*stub.url));
    stub.fill(3);
    let all = stub.client.get_queue_attributes().queue_url(&stub.url);
    let all = all.attribute_names(QueueAttributeName::All).send().await.unwrap().attributes.unwrap();
    assert_eq!(all[&QueueAttributeName::ApproximateNumberOfMessages], "3");
    assert_eq!(all[&QueueAttributeName::QueueArn], "arn:aws:sqs:us-east-1:000000000000:q");
    assert_eq!(all[&QueueAttributeName::VisibilityTimeout], "7");
    stub.client.purge_queue().queue_url(&stub.url).send().await.unwrap();
    assert_eq!(stub.depth(), (0, 0, 0));
    stub.client.delete_queue().queue_url(&stub.url).send().await.unwrap();
    let gone = stub.client.get_queue_url().queue_name("q").send().await.unwrap_err();
    assert!(gone.into_service_error().is_queue_does_not_exist());
}
