//! Deletes that fail.

use std::pin::pin;

use crate::common::{Depth, Proxy, Summary, World, events, eventually};

#[tokio::test]
async fn failed_deletes_are_retried() {
    World::run(async |world| {
        let proxy = Proxy::asking().await;
        world.queue.send(&events(20)).await;
        let loader = world.loader().through(&proxy).options("--drain").start();

        // SQS deletes seven of ten: the other three, and only they, are tried again.
        let first = proxy.next_delete().await;
        let mut left = first.receipts[..3].to_vec();
        first.fail_for(&left);
        // Until it has got through, every other call is answered with a server's fault.
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
async fn a_delete_that_is_given_up_comes_back_as_a_duplicate() {
    World::run(async |world| {
        let proxy = Proxy::asking().await;
        world.queue.send(&events(10)).await;
        // All in one batch and so in one delete call.
        let options = "--drain --batch-size 10";
        let loader = world.loader().through(&proxy).options(options).start();
        let first = proxy.next_delete().await;
        let receipts = first.receipts.clone();
        first.fail_for(&receipts);
        let mut tries = 1;
        let mut ended = pin!(loader.end());
        let ended = loop {
            tokio::select! {
                ended = &mut ended => break ended.expect(0),
                delete = proxy.next_delete() => {
                    if delete.receipts.iter().any(|receipt| receipts.contains(receipt)) {
                        tries += 1;
                        delete.fail_for(&receipts);
                    } else {
                        delete.pass();
                    }
                }
            }
        };
        assert_eq!(tries, 5);
        let expected = Summary { received: 20, stored: 10, duplicate: 10, rejected: 0, deleted: 10 };
        assert_eq!(ended.says(&["gave up deleting"]).summary(), expected);
        world.assert_each_stored_once(10).await;
        assert_eq!(world.queue.depth().await, Depth::EMPTY);
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
        // While the delete is under way the visibility ends, and the messages are received anew: the older receipts
        // are worth nothing any more.
        world.queue.make_visible(&expired).await;
        eventually("all received anew", async || proxy.deliveries().len() == 20).await;
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
