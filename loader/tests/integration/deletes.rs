//! Deletes that fail.

use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::common::{Delete, Depth, Proxy, Queue, Summary, World, event, events, eventually};

#[tokio::test]
async fn failed_deletes_are_retried() {
    World::run(async |world| {
        let proxy = Proxy::asking().await;
        world.queue.send(&events(20)).await;
        let loader = world.loader().through(&proxy).options("--drain").start();

        // SQS deletes seven of ten messages. Only the other three are retried.
        let first = proxy.next_delete().await;
        let mut left = first.receipts[..3].to_vec();
        first.fail_for(&left);
        // Before the retry gets through, six calls are answered with server errors.
        let mut faults = 0;
        let mut ended = pin!(loader.end());
        let ended = loop {
            tokio::select! {
                ended = &mut ended => break ended.expect(0),
                delete = proxy.next_delete() => {
                    let again = delete.receipts.iter().any(|receipt| left.contains(receipt));
                    if again {
                        assert_eq!(delete.receipts, left, "what is deleted is not tried again");
                    }
                    if faults < 6 {
                        faults += 1;
                        delete.answer_status(if faults % 2 == 0 { 500 } else { 503 });
                    } else {
                        if again {
                            left.clear();
                        }
                        delete.pass();
                    }
                }
            }
        };
        assert!(left.is_empty() && faults == 6);
        assert_eq!(ended.summary(), Summary::stored(20));
        assert_eq!(world.queue.depth().await, Depth::EMPTY);
    })
    .await;
}

#[tokio::test]
async fn a_lease_is_extended_until_its_delete_is_confirmed() {
    World::run(async |world| {
        let proxy = Proxy::asking().await;
        world.queue.send(&events(10)).await;
        // All messages are in one batch and so in one delete call. The pauses between the tries exceed the visibility
        // timeout in total.
        let options = "--drain --batch-size 10 --visibility 7";
        let loader = world.loader().through(&proxy).options(options).start();
        let start = Instant::now();
        let (mut tries, mut receipts) = (0, Vec::new());
        let mut ended = pin!(loader.end());
        let ended = loop {
            tokio::select! {
                ended = &mut ended => break ended.expect(0),
                delete = proxy.next_delete() => {
                    tries += 1;
                    if tries == 1 {
                        receipts.clone_from(&delete.receipts);
                    }
                    assert_eq!(delete.receipts, receipts, "the same messages, by the receipts of their only delivery");
                    if start.elapsed() < Duration::from_secs(9) {
                        delete.fail_for(&receipts);
                    } else {
                        delete.pass();
                    }
                }
            }
        };
        assert!(tries > 3, "{tries} tries");
        assert_eq!(ended.summary(), Summary::stored(10), "nothing came back meanwhile");
        assert_eq!(world.queue.depth().await, Depth::EMPTY);
    })
    .await;
}

#[tokio::test]
async fn deletes_are_not_serial() {
    World::run(async |world| {
        let proxy = Proxy::asking().await;
        world.queue.send(&events(80)).await;
        let options = "--drain --pollers 8 --batch-size 80 --linger 20000";
        let loader = world.loader().through(&proxy).options(options).start();
        // No call is answered before all eight are waiting.
        let mut waiting = Vec::new();
        while waiting.len() < 8 {
            waiting.push(proxy.next_delete().await);
        }
        waiting.into_iter().for_each(Delete::pass);
        assert_eq!(loader.end().await.expect(0).summary(), Summary::stored(80));
    })
    .await;
}

#[tokio::test]
async fn no_more_is_received_than_deletes_are_confirmed() {
    World::run(async |world| {
        let proxy = Proxy::asking().await;
        world.queue.send(&events(300)).await;
        let options = "--drain --max-in-flight 50 --batch-size 20";
        let loader = world.loader().through(&proxy).options(options).start();
        let (mut deleted, mut waiting) = (0, Vec::new());
        let mut ended = pin!(loader.end());
        let ended = loop {
            tokio::select! {
                ended = &mut ended => break ended.expect(0),
                delete = proxy.next_delete() => waiting.push(delete),
                // No further delete comes, because the loader receives nothing more until these are answered.
                () = sleep(Duration::from_millis(300)), if !waiting.is_empty() => {
                    let in_hand = proxy.deliveries().len() - deleted;
                    assert!(in_hand <= 50, "{in_hand} received and not deleted");
                    deleted += waiting.iter().map(|delete| delete.receipts.len()).sum::<usize>();
                    waiting.drain(..).for_each(Delete::pass);
                }
            }
        };
        assert_eq!(ended.summary(), Summary::stored(300));
        world.assert_each_stored_once(300).await;
    })
    .await;
}

#[tokio::test]
async fn an_expired_receipt_is_not_retried() {
    World::run(async |world| {
        let proxy = Proxy::asking().await;
        world.queue.send(&events(10)).await;
        let loader = world.loader().through(&proxy).options("--drain --batch-size 10").start();
        let delete = proxy.next_delete().await;
        let expired = delete.receipts.clone();
        assert_eq!(expired.len(), 10);
        // While the delete is in flight, the visibility timeout ends and the messages are received again. The older receipts
        // are then invalid.
        world.queue.make_visible(&expired).await;
        eventually("all received again", async || proxy.deliveries().len() == 20).await;
        delete.pass();

        let mut ended = pin!(loader.end());
        let ended = loop {
            tokio::select! {
                ended = &mut ended => break ended.expect(0),
                delete = proxy.next_delete() => {
                    assert!(!delete.receipts.iter().any(|r| expired.contains(r)), "an expired receipt was retried");
                    delete.pass();
                }
            }
        };
        let ended = ended.says(&["refuses to delete", "ReceiptHandleIsInvalid", "duplicate"]);
        let expected = Summary { received: 20, stored: 10, duplicate: 10, rejected: 0, deleted: 10 };
        assert_eq!(ended.summary(), expected);
        world.assert_each_stored_once(10).await;
        assert_eq!(world.queue.depth().await, Depth::EMPTY);
    })
    .await;
}

#[tokio::test]
async fn the_failing_head_of_a_group_holds_back_no_other_group() {
    World::run(async |world| {
        let name = format!("{}.fifo", world.name);
        let queue = Queue::create_fifo(&name).await;
        let proxy = Proxy::asking().await;
        for group in 0..2 {
            let bodies: Vec<_> = (0..5).map(|n| event(10 * n + group)).collect();
            queue.send_to_group(&group.to_string(), &bodies).await;
        }
        let options = "--drain --pollers 1 --batch-size 10 --linger 2000";
        let loader = world.loader().through(&proxy).env("LOADER_QUEUE", &name).options(options).start();
        let first = proxy.next_delete().await;
        assert_eq!(first.receipts.len(), 2, "the heads of both groups");
        let head = first.receipts[..1].to_vec();
        first.fail_for(&head);
        // The head fails until the other group is deleted.
        let (mut others, mut without_head) = (1, 0);
        let mut ended = pin!(loader.end());
        let ended = loop {
            tokio::select! {
                ended = &mut ended => break ended.expect(0),
                delete = proxy.next_delete() => {
                    let has_head = delete.receipts.contains(&head[0]);
                    if others == 5 {
                        delete.pass();
                        continue;
                    }
                    others += delete.receipts.len() - usize::from(has_head);
                    without_head += usize::from(!has_head);
                    delete.fail_for(&head);
                }
            }
        };
        assert!(without_head > 0, "each delete of the other group waited for the head");
        let left = queue.depth().await;
        queue.delete().await;
        assert_eq!((ended.summary(), left), (Summary::stored(10), Depth::EMPTY));
    })
    .await;
}

#[tokio::test]
async fn a_stored_message_is_deleted_once_more_after_its_lease() {
    World::run(async |world| {
        let proxy = Proxy::asking().await;
        world.queue.send(&events(10)).await;
        let options = "--pollers 1 --wait 1 --visibility 7 --batch-size 10";
        let loader = world.loader().through(&proxy).options(options).start();
        let held = proxy.next_delete().await;
        let receipts = held.receipts.clone();
        // Without extensions the lease expires while the delete isn't answered.
        proxy.deny("ChangeMessageVisibilityBatch");
        loop {
            match proxy.next_delete().await {
                again if again.receipts == receipts => break again.answer_status(500),
                // These messages came back and were found to be duplicates.
                of_the_next_delivery => of_the_next_delivery.pass(),
            }
        }
        drop(held);
        loader.signal("TERM").await;
        let mut ended = pin!(loader.end());
        loop {
            tokio::select! {
                ended = &mut ended => {
                    ended.expect(0);
                    break;
                }
                delete = proxy.next_delete() => {
                    if delete.receipts == receipts {
                        delete.answer_status(500);
                    } else {
                        delete.pass();
                    }
                }
            }
        }
        // Only the SDK's own retries of one call, and no more.
        let tries = proxy.deletes().iter().filter(|deleted| **deleted == receipts).count();
        assert!((2..=4).contains(&tries), "{tries} tries");
        world.assert_each_stored_once(10).await;
    })
    .await;
}
