//! Each fault does what it says.

use std::time::Duration;

use aws_sdk_sqs::types::ChangeMessageVisibilityBatchRequestEntry;
use sqs_stub::Faults;

use crate::client::{KEY, Stub, bodies, receipts};

fn err<T>(code: &str) -> Result<T, String> {
    Err(code.to_owned())
}

#[tokio::test]
async fn a_call_that_is_throttled_or_fails_is_not_performed() {
    let stub = Stub::new("q", &[]);
    stub.break_by(Faults { throttle: 1.0, ..Faults::default() });
    assert_eq!(stub.try_send("x").await, err("RequestThrottled"));
    stub.break_by(Faults { server_error: 1.0, ..Faults::default() });
    let code = stub.try_send("x").await.unwrap_err();
    assert!(["InternalError", "ServiceUnavailable"].contains(&&*code), "{code}");
    assert_eq!(stub.depth(), (0, 0, 0));
    let counters = stub.server.counters();
    assert_eq!((counters.faults["throttle"], counters.faults["server_error"]), (1, 1));
    assert_eq!(counters.calls["SendMessage"], 2);
}

#[tokio::test]
async fn a_call_whose_answer_is_lost_is_performed() {
    let stub = Stub::new("q", &[]);
    stub.fill(1);
    stub.break_by(Faults { lost_answer: 1.0, ..Faults::default() });
    assert_eq!(stub.try_receive(0).await, err("no answer"));
    assert_eq!(stub.try_send("x").await, err("no answer"));
    assert_eq!(stub.depth(), (1, 1, 0));
    assert_eq!(stub.server.counters().faults["lost_answer"], 2);
}

#[tokio::test]
async fn a_call_that_hangs_may_have_been_performed() {
    let stub = Stub::new("q", &[]);
    stub.break_by(Faults { hang: 1.0, seed: Some(1), ..Faults::default() });
    for _ in 0..20 {
        let call = stub.try_send("x");
        assert!(tokio::time::timeout(Duration::from_millis(50), call).await.is_err(), "it was answered");
    }
    let sent = stub.depth().0;
    assert!(sent > 2 && sent < 18, "{sent} of 20 were performed");
}

#[tokio::test]
async fn entries_of_a_batch_fail_by_themselves() {
    let stub = Stub::new("q", &[]);
    stub.fill(10);
    let messages = stub.receive(0).await;
    stub.break_by(Faults { partial_extend: 0.5, partial_delete: 0.5, seed: Some(3), ..Faults::default() });

    let entry = |(i, receipt): (usize, &str)| {
        let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(i.to_string());
        entry.receipt_handle(receipt).visibility_timeout(100).build().unwrap()
    };
    let entries = receipts(&messages).into_iter().enumerate().map(entry).collect();
    let call = stub.client.change_message_visibility_batch().queue_url(&stub.url);
    let extended = call.set_entries(Some(entries)).send().await.unwrap();
    assert_eq!(extended.successful.len() + extended.failed.len(), 10);
    assert!(!extended.successful.is_empty() && !extended.failed.is_empty());

    let deleted = stub.delete(&receipts(&messages)).await;
    assert!(!deleted.successful.is_empty());
    assert_eq!((deleted.failed[0].code(), deleted.failed[0].sender_fault()), ("InternalError", false));
    assert_eq!(stub.depth(), (0, deleted.failed.len() as u64, 0));
    let counters = stub.server.counters();
    assert_eq!(counters.faults["partial_delete"], deleted.failed.len() as u64);
    assert_eq!(counters.faults["partial_extend"], extended.failed.len() as u64);
}

#[tokio::test]
async fn a_duplicate_is_handed_out_twice_and_both_receipts_are_good() {
    let stub = Stub::new("q", &[]);
    stub.fill(3);
    stub.break_by(Faults { duplicate: 1.0, ..Faults::default() });
    let first = stub.receive(0).await;
    let second = stub.receive(0).await;
    assert_eq!(bodies(&first), ["body 0", "body 1", "body 2"]);
    assert_eq!(bodies(&first), bodies(&second));
    assert!(receipts(&first).iter().all(|receipt| !receipts(&second).contains(receipt)));
    assert!(stub.receive(0).await.is_empty());
    assert_eq!(stub.delete_one(&first[0]).await, Ok(()));
    assert_eq!(stub.delete_one(&second[0]).await, Ok(()));
    assert_eq!(stub.delete_one(&second[1]).await, Ok(()));
    assert_eq!(stub.delete_one(&first[1]).await, Ok(()));
    assert_eq!(stub.depth(), (0, 1, 0));
    assert_eq!(stub.server.counters().deleted, 2);
}

#[tokio::test]
async fn an_expired_receipt_is_refused_and_the_message_comes_back() {
    let stub = Stub::new("q", &[]);
    stub.fill(1);
    stub.break_by(Faults { expire: 1.0, ..Faults::default() });
    let first = stub.receive(0).await;
    stub.mend();
    assert_eq!(stub.delete_one(&first[0]).await, err("ReceiptHandleIsInvalid"));
    assert_eq!(stub.hide(&first[0], 10).await, err("ReceiptHandleIsInvalid"));
    let second = stub.receive(2).await;
    assert_eq!(stub.delete_one(&second[0]).await, Ok(()));
    let counters = stub.server.counters();
    assert_eq!((counters.faults["expire"], counters.stale_deletes), (1, 1));
}

#[tokio::test]
async fn a_key_expires() {
    let stub = Stub::new("q", &[]);
    stub.break_by(Faults { expired_keys: vec!["another".into()], ..Faults::default() });
    assert_eq!(stub.try_send("x").await, Ok(()));
    stub.break_by(Faults { expired_keys: vec![KEY.into()], ..Faults::default() });
    assert_eq!(stub.try_send("x").await, err("ExpiredToken"));
    stub.mend();
    assert_eq!(stub.try_send("x").await, Ok(()));
    assert_eq!(stub.server.counters().faults["expired_key"], 1);
}

#[tokio::test]
async fn faults_hit_only_the_actions_named() {
    let stub = Stub::new("q", &[]);
    stub.break_by(Faults { throttle: 1.0, only: vec!["ReceiveMessage".into()], ..Faults::default() });
    assert_eq!(stub.try_send("x").await, Ok(()));
    assert_eq!(stub.try_receive(0).await, err("RequestThrottled"));
}

#[tokio::test]
async fn a_seed_repeats_what_goes_wrong() {
    let stub = Stub::new("q", &[]);
    let mut runs = Vec::new();
    for _ in 0..2 {
        stub.break_by(Faults { throttle: 0.5, seed: Some(42), ..Faults::default() });
        let mut run = Vec::new();
        for _ in 0..20 {
            run.push(stub.try_send("x").await.is_ok());
        }
        runs.push(run);
    }
    assert_eq!(runs[0], runs[1]);
    assert!(runs[0].contains(&true) && runs[0].contains(&false));
}
