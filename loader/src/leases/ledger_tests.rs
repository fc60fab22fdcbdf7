use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;

use super::*;

const MINUTE: Duration = Duration::from_mins(1);

fn hold(reservation: &mut Reservation<'_>, receipt: &str) -> LeaseId {
    let until = Instant::now() + MINUTE;
    reservation.hold(0, "m".into(), receipt.into(), None, until, MessageSpan::default())
}

#[tokio::test]
async fn a_lease_is_held_until_it_is_settled() {
    let ledger = Ledger::new(100, 0);
    let mut reservation = ledger.reserve(1).await;
    let first = hold(&mut reservation, "receipt 1");
    // SQS delivers the message of receipt 1 again.
    let second = hold(&mut reservation, "receipt 2");
    ledger.settle(first);
    ledger.commit(&[first, second]);
    assert_eq!(ledger.committed(&[first, second]).iter().map(|l| l.id).collect::<Vec<_>>(), [second]);
    assert!(ledger.deletable_until(second, Instant::now()).is_some());
    let left = ledger.take_all();
    assert_eq!(left.iter().map(|l| l.receipt.as_str()).collect::<Vec<_>>(), ["receipt 2"]);
    assert!(ledger.is_empty());
}

#[tokio::test(start_paused = true)]
async fn no_more_is_received_than_there_is_capacity_for() {
    let ledger = Ledger::new(25, 0);
    let mut first = ledger.reserve(1).await;
    let held = [(); 10].map(|()| hold(&mut first, "r"));
    drop(first);
    // A call that returned few messages gives the rest back.
    let mut second = ledger.reserve(1).await;
    hold(&mut second, "r");
    drop(second);
    let third = ledger.reserve(1).await;
    assert!(timeout(MINUTE, ledger.reserve(1)).await.is_err(), "21 of 25 are taken");
    drop(third);
    for id in held {
        ledger.settle(id);
        ledger.settle(id);
    }
    let (third, fourth) = (ledger.reserve(1).await, ledger.reserve(1).await);
    assert!(timeout(MINUTE, ledger.reserve(1)).await.is_err(), "settling twice frees nothing more");
    drop((third, fourth));
}

#[tokio::test(start_paused = true)]
async fn an_expired_lease_is_dropped_and_frees_capacity() {
    let ledger = Ledger::new(10, 0);
    let mut reservation = ledger.reserve(1).await;
    let id = hold(&mut reservation, "r");
    ledger.commit(&[id]);
    assert!(ledger.take_expired(Instant::now()).is_empty());
    assert_eq!(ledger.ending_before(Instant::now() + MINUTE * 2).len(), 1);
    tokio::time::advance(MINUTE).await;
    ledger.extend(id, Instant::now() + MINUTE);
    assert!(ledger.deletable_until(id, Instant::now()).is_none(), "the extension came too late");
    assert_eq!(ledger.take_expired(Instant::now()).len(), 1);
    drop(reservation);
    timeout(MINUTE, ledger.reserve(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_received_while_leases_are_about_to_expire() {
    let ledger = Ledger::new(100, 0);
    let id = hold(&mut ledger.reserve(1).await, "r");
    ledger.pause_receiving_if_ending_before(Instant::now() + MINUTE * 2);
    assert!(timeout(MINUTE / 2, ledger.reserve(1)).await.is_err());
    ledger.extend(id, Instant::now() + MINUTE * 5);
    ledger.pause_receiving_if_ending_before(Instant::now() + MINUTE * 2);
    timeout(MINUTE, ledger.reserve(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_reserves_the_bytes_that_it_may_bring() {
    let ledger = Ledger::new(100, 24 << 20);
    let mut calls = Vec::new();
    while let Ok(call) = timeout(MINUTE, ledger.reserve(1 << 20)).await {
        calls.push(call);
    }
    assert_eq!(calls.iter().map(|call| call.call_size).collect::<Vec<_>>(), [10, 10]);
    // The call returned nothing.
    calls.pop();
    let next = timeout(MINUTE, ledger.reserve(1 << 20)).await.unwrap();
    drop((calls, next));
    assert_eq!(ledger.reserve(2 << 20).await.call_size, 6, "half the capacity");
}

#[tokio::test(start_paused = true)]
async fn calls_to_idle_queues_leave_half_of_the_capacity() {
    const QUEUES: usize = 4;
    let ledger = Ledger::new(40, 24 << 20);
    for (size, call_size, calls) in [(1, 5, 4), (1 << 20, 3, 4), (7 << 20, 1, 1)] {
        let mut idle = Vec::new();
        while let Ok(call) = timeout(MINUTE, ledger.reserve_idle(size, QUEUES)).await {
            assert_eq!(call.call_size, call_size);
            idle.push(call);
        }
        assert_eq!(idle.len(), calls);
        timeout(MINUTE, ledger.reserve(size)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_to_an_idle_queue_gets_its_turn_beside_busy_ones() {
    let ledger = Ledger::new(10, 0);
    let [first, _second] = [ledger.reserve(1).await, ledger.reserve(1).await];
    let mut idle = pin!(ledger.reserve_idle(1, 20));
    assert!(timeout(MINUTE, &mut idle).await.is_err());
    drop(first);
    assert!(timeout(MINUTE, ledger.reserve(1)).await.is_err(), "the idle queue was first");
    assert_eq!(timeout(MINUTE, idle).await.unwrap().call_size, 1);
}

#[tokio::test(start_paused = true)]
async fn a_message_larger_than_the_capacity_for_bodies_is_received_alone() {
    let ledger = Ledger::new(100, 0);
    let small = ledger.reserve(1).await;
    let large = || ledger.reserve(2 * LEAST_BYTES);
    assert!(timeout(MINUTE, large()).await.is_err());
    drop(small);
    let mut reservation = timeout(MINUTE, large()).await.unwrap();
    assert_eq!(reservation.call_size, 1);
    let memory = reservation.memory(Some(&"x".repeat(2 * LEAST_BYTES)));
    drop(reservation);
    assert!(timeout(MINUTE, ledger.reserve(1)).await.is_err());
    drop(memory);
    timeout(MINUTE, ledger.reserve(1)).await.unwrap();
}
