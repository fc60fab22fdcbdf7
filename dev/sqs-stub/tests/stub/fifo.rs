//! FIFO queues.

use aws_sdk_sqs::types::MessageSystemAttributeName as Attribute;
use sqs_stub::Event;

use crate::client::{Stub, attribute, bodies, receipts};

#[tokio::test]
async fn a_group_is_locked_while_a_message_of_it_is_in_flight() {
    let stub = Stub::new("q.fifo", &[]);
    stub.server.record(true);
    stub.send_to_group("a", &["a1", "a2", "a3"]).await;
    stub.send_to_group("b", &["b1"]).await;
    let first = stub.receive(0).await;
    // Several of one group in one call, in order.
    assert_eq!(bodies(&first), ["a1", "a2", "a3", "b1"]);
    stub.send_to_group("a", &["a4"]).await;
    assert!(stub.receive(0).await.is_empty());
    stub.delete(&receipts(&first[..2])).await;
    assert!(stub.receive(0).await.is_empty());
    // The last one of the group comes back, and before what was sent after it.
    stub.hide(&first[2], 0).await.unwrap();
    let second = stub.receive(0).await;
    assert_eq!(bodies(&second), ["a3", "a4"]);
    assert_eq!(attribute(&second[0], &Attribute::MessageGroupId), "a");
    let sequence = |i: usize| attribute(&second[i], &Attribute::SequenceNumber).parse::<u64>().unwrap();
    assert!(sequence(0) < sequence(1));
    stub.delete(&receipts(&second)).await;

    let deleted: Vec<_> = stub
        .server
        .take_events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Delete(record) => Some((record.group.unwrap().to_string(), record.sequence)),
            _ => None,
        })
        .collect();
    assert_eq!(deleted, [("a", 1), ("a", 2), ("a", 3), ("a", 5)].map(|(g, n)| (g.to_owned(), n)));
}

#[tokio::test]
async fn a_delete_wakes_who_waits_for_the_group() {
    let stub = Stub::new("q.fifo", &[]);
    stub.send_to_group("a", &["a1"]).await;
    let first = stub.receive(0).await;
    stub.send_to_group("a", &["a2"]).await;
    let delete = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        stub.delete_one(&first[0]).await.unwrap();
    };
    let start = std::time::Instant::now();
    let (second, ()) = tokio::join!(stub.receive(10), delete);
    assert_eq!(bodies(&second), ["a2"]);
    assert!(start.elapsed() < std::time::Duration::from_secs(1));
}

#[tokio::test]
async fn a_deduplication_id_is_taken_once() {
    let stub = Stub::new("q.fifo", &[]);
    stub.send_to_group("a", &["x"]).await;
    stub.send_to_group("a", &["x"]).await;
    assert_eq!(stub.depth(), (1, 0, 0));
    assert_eq!(stub.try_send("no group").await, Err("MissingParameter".to_owned()));
}

#[tokio::test]
async fn filled_in_messages_take_turns_among_groups() {
    let stub = Stub::new("q.fifo", &[]);
    stub.server.fill_groups("q.fifo", 30, 3, |n| n.to_string());
    let first = stub.receive(0).await;
    assert!(first.iter().all(|m| attribute(m, &Attribute::MessageGroupId) == "0"));
    assert_eq!(bodies(&first)[..3], ["0", "3", "6"]);
    assert_eq!(bodies(&stub.receive(0).await)[..2], ["1", "4"]);
}
