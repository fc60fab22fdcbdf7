//! Queues: several at once, FIFO queues, and services that throttle or fail.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sqs_stub::{Event, Faults, Server};

use crate::common::{Depth, Metrics, Proxy, Queue, Summary, World, event, events, eventually, setting};

fn stub() -> Server {
    Server::start(sqs_stub::Options::default()).unwrap()
}

#[tokio::test]
async fn several_queues_go_into_one_inbox() {
    World::run(async |world| {
        let stub = stub();
        for (n, queue) in ["a", "b", "c"].into_iter().enumerate() {
            stub.fill(queue, 100 * (n + 1), |i| event(1000 * n + i));
        }
        let loader = world.loader().at(&stub.url()).env("LOADER_QUEUE", "a,b,c");
        let ended = loader.options("--drain").end().await.expect(0);
        assert_eq!(ended.summary(), Summary::stored(600));
        for queue in ["a", "b", "c"] {
            assert_eq!(stub.depth(queue).unwrap().total(), 0, "queue {queue}");
        }
        world.assert_each_stored_once(600).await;
    })
    .await;
}

#[tokio::test]
async fn queues_of_one_name_in_two_regions_go_into_one_inbox() {
    World::run(async |world| {
        let other = Queue::create_in("eu-west-3", &setting("AWS_ENDPOINT_URL"), &world.name).await;
        world.queue.send(&[event(1)]).await;
        other.send(&[event(2), event(3)]).await;
        let arn = |region: &str| format!("arn:aws:sqs:{region}:000000000000:{}", world.name);
        let home = setting("AWS_REGION");
        let loader = world.loader().env("LOADER_QUEUE", &[arn(&home), arn("eu-west-3")].join(","));
        let ended = loader.options("--drain").end().await;
        let left = other.depth().await;
        other.delete().await;
        // The output has both labels with their regions, because the name alone is ambiguous.
        let labels = format!("{home}/{0} eu-west-3/{0}", world.name);
        assert_eq!(ended.expect(0).says(&[&labels]).summary(), Summary::stored(3));
        assert_eq!((left, world.queue.depth().await), (Depth::EMPTY, Depth::EMPTY));

        let twice = world.loader().env("LOADER_QUEUE", &[world.name.clone(), arn(&home)].join(","));
        twice.end().await.expect(2).says(&["named twice"]);
    })
    .await;
}

#[tokio::test]
async fn dead_letters_are_drained_under_their_own_ids() {
    World::run(async |world| {
        let name = format!("{}_dead", world.name);
        let dead = Queue::create(&setting("AWS_ENDPOINT_URL"), &name).await;
        world.queue.bury_in(&dead).await;
        world.queue.send(&events(5)).await;
        // The messages are stored but not deleted.
        let proxy = Proxy::asking().await;
        let loader = world.loader().through(&proxy).options("--visibility 7").start();
        eventually("the rows", async || world.logins().await == 5).await;
        loader.signal("KILL").await;
        _ = loader.end().await;
        eventually("a visible message", async || world.queue.depth().await == Depth::visible(5)).await;
        // This drain moves the messages to the dead-letter queue.
        let ended = world.loader().options("--drain").end().await.expect(0);
        assert_eq!(ended.summary(), Summary::stored(0));
        assert_eq!(dead.depth().await, Depth::visible(5));

        let ended = world.loader().env("LOADER_QUEUE", &name).options("--drain").end().await;
        let left = dead.depth().await;
        dead.delete().await;
        assert_eq!(ended.expect(0).summary(), Summary::duplicate(5));
        assert_eq!(left, Depth::EMPTY);
        world.assert_each_stored_once(5).await;
    })
    .await;
}

#[tokio::test]
async fn a_queue_url_tells_its_region() {
    World::run(async |world| {
        let proxy = Proxy::start().await;
        world.queue.send(&[event(1)]).await;
        let home = setting("AWS_REGION");
        let url = format!("https://vpce-1a2b.sqs.{home}.vpce.amazonaws.com/000000000000/{}", world.name);
        let loader = world.loader().without("LOADER_QUEUE").env("LOADER_QUEUE_URL", &url);
        // The configured endpoint overrides the host of the URL, but the URL's region stays.
        let loader = loader.env("AWS_REGION", "ap-south-1").through(&proxy);
        let ended = loader.until_empty(&world.queue).await.expect(0);
        assert_eq!(ended.summary(), Summary::stored(1));
        let calls = proxy.signatures();
        assert!(calls.iter().all(|call| call.region == home), "{calls:?}");
    })
    .await;
}

#[tokio::test]
async fn a_fifo_queue_keeps_the_order_of_its_groups() {
    const GROUPS: usize = 20;
    const MESSAGES: usize = 600;
    World::run(async |world| {
        let stub = stub();
        stub.record(true);
        stub.fill_groups("logins.fifo", MESSAGES, GROUPS, event);
        // Single deletes and whole calls fail at random, so the order can't be kept by mere luck.
        stub.set_faults(Faults { partial_delete: 0.1, server_error: 0.05, ..Faults::default() });
        world
            .sql(
                "CREATE TABLE committed (at bigserial, n int, transaction bigint DEFAULT txid_current());
                 GRANT INSERT ON committed TO login_owner; GRANT USAGE ON SEQUENCE committed_at_seq TO login_owner;
                 CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
                     BEGIN
                         PERFORM pg_catalog.pg_sleep(pg_catalog.random() / 50);
                         INSERT INTO public.committed (n) SELECT substr(user_id, 6)::int FROM new_rows;
                         RETURN NULL;
                     END $$;
                 CREATE TRIGGER note AFTER INSERT ON user_logins REFERENCING NEW TABLE AS new_rows
                     FOR EACH STATEMENT EXECUTE FUNCTION note();",
            )
            .await;
        let loader = world.loader().at(&stub.url()).env("LOADER_QUEUE", "logins.fifo").env("LOADER_LINGER", "5");
        let options = "--drain --wait 0 --visibility 120 --writers 4 --pollers 8 --batch-size 15";
        let ended = loader.options(options).end().await.expect(0);
        assert_eq!(ended.summary(), Summary::stored(MESSAGES));

        // Ordered by transaction, each group counts upwards. Within a transaction no order is visible.
        let rows = world.db.query("SELECT transaction, array_agg(n) FROM committed GROUP BY 1 ORDER BY min(at)", &[]);
        let mut last = HashMap::new();
        for row in rows.await.unwrap() {
            let mut numbers: Vec<i32> = row.get(1);
            numbers.sort_unstable();
            for n in numbers {
                let group = usize::try_from(n).unwrap() % GROUPS;
                let before = last.insert(group, n);
                assert!(before < Some(n), "group {group}: {n} after {before:?}");
            }
        }
        // The deletes keep the order, too.
        let mut last = HashMap::new();
        let mut deleted = 0;
        for record in stub.take_events().into_iter().filter_map(|event| match event {
            Event::Delete(record) => Some(record),
            _ => None,
        }) {
            let before = last.insert(record.group.clone(), record.sequence);
            assert!(before < Some(record.sequence), "group {:?}", record.group);
            deleted += 1;
        }
        assert_eq!(deleted, MESSAGES);
    })
    .await;
}

#[tokio::test]
async fn throttling_and_server_errors_are_retried() {
    World::run(async |world| {
        let stub = stub();
        stub.fill(&world.name, 500, event);
        // A delete fails with a probability of 27 %. At 49 %, one of 500 messages failed twelve times in a row now and
        // then, and its pauses, which double up to ten seconds, took longer than the test waits.
        let faults = Faults { throttle: 0.1, server_error: 0.1, partial_delete: 0.1, ..Faults::default() };
        stub.set_faults(Faults {
            only: vec!["ReceiveMessage".into(), "DeleteMessageBatch".into()],
            ..faults
        });
        let loader = world.loader().at(&stub.url()).options("--batch-size 50 --pollers 4").start();
        eventually("an empty queue", async || stub.depth(&world.name).unwrap().total() == 0).await;
        assert_eq!(loader.stop().await.expect(0).summary(), Summary::stored(500));
        let faults = stub.counters().faults;
        assert!(faults["throttle"] > 0 && faults["server_error"] > 0 && faults["partial_delete"] > 0);
    })
    .await;
}

#[tokio::test]
async fn a_receive_call_that_hangs_is_given_up() {
    World::run(async |world| {
        let stub = stub();
        stub.fill(&world.name, 20, event);
        stub.set_faults(Faults { hang: 1.0, only: vec!["ReceiveMessage".into()], ..Faults::default() });
        let options = "--drain --wait 0 --visibility 7 --pollers 1";
        let loader = world.loader().at(&stub.url()).options(options).start();
        eventually("a call that hangs", async || stub.counters().faults["hang"] == 1).await;
        stub.set_faults(Faults::default());
        // SQS may have handed messages over or not. If it has, they come back.
        let ended = loader.end().await.expect(0);
        assert_eq!(ended.summary(), Summary::stored(20));
    })
    .await;
}

#[tokio::test]
async fn pollers_grow_while_calls_come_back_full_and_shrink_while_they_come_back_empty() {
    World::run(async |world| {
        let stub = stub();
        stub.record(true);
        stub.fill(&world.name, 0, event);
        stub.set_delay(Duration::from_millis(200));
        let options = "--wait 0 --min-pollers 2 --pollers 16 --batch-size 500";
        let loader = world.loader().at(&stub.url()).options(options).start();
        eventually("polling", async || stub.counters().calls["ReceiveMessage"] > 4).await;
        // One poller makes at most five calls a second, because the stub delays each answer by 200 ms.
        let quiet = receives_a_second(&stub).await;
        assert!(quiet <= 16, "{quiet} calls a second while there is nothing");
        stub.fill(&world.name, 4000, event);
        eventually("many of them at a time", async || receives_a_second(&stub).await > 30).await;
        eventually("an empty queue", async || stub.depth(&world.name).unwrap().total() == 0).await;
        eventually("few of them", async || receives_a_second(&stub).await <= 16).await;
        assert_eq!(loader.stop().await.expect(0).summary(), Summary::stored(4000));
    })
    .await;
}

#[tokio::test]
async fn pollers_shrink_while_calls_come_back_part_full() {
    World::run(async |world| {
        let stub = stub();
        stub.fill(&world.name, 20_000, event);
        stub.set_delay(Duration::from_millis(100));
        // Such a long poll always returns at least one message of a trickle.
        let options = "--wait 20 --pollers 16 --metrics-address 127.0.0.1:0";
        let loader = world.loader().at(&stub.url()).options(options).start();
        let address = loader.metrics_address().await;
        eventually("the first messages", async || stub.counters().received > 0).await;
        let pollers =
            async || Metrics::of(&address).await.count("pg_mask_loader_pollers", &[("queue", &world.name)]);
        eventually("all pollers", async || pollers().await == 16).await;
        stub.set_delay(Duration::ZERO);
        let mut trickle = 20_000;
        eventually("one poller", async || {
            stub.fill(&world.name, 1, |_| event(trickle));
            trickle += 1;
            pollers().await == 1
        })
        .await;
        eventually("an empty queue", async || stub.depth(&world.name).unwrap().total() == 0).await;
        assert_eq!(loader.stop().await.expect(0).summary(), Summary::stored(trickle));
    })
    .await;
}

#[tokio::test]
async fn idle_queues_leave_a_busy_one_its_room() {
    World::run(async |world| {
        let stub = stub();
        for queue in ["idle-1", "idle-2", "idle-3", "idle-4"] {
            stub.fill(queue, 0, event);
        }
        stub.fill("busy", 400, event);
        let loader = world.loader().at(&stub.url()).env("LOADER_QUEUE", "idle-1,idle-2,idle-3,idle-4,busy");
        // One poll of an idle queue takes 20 s, a third of the time that `eventually` waits.
        let loader = loader.options("--max-in-flight 20 --wait 20").start();
        eventually("an empty queue", async || stub.depth("busy").unwrap().total() == 0).await;
        assert_eq!(loader.stop().await.expect(0).summary(), Summary::stored(400));
    })
    .await;
}

#[tokio::test]
async fn each_of_many_queues_has_its_turn_beside_a_busy_one() {
    World::run(async |world| {
        let stub = stub();
        let names: Vec<_> = (1..=12).map(|n| format!("idle-{n}")).collect();
        for name in &names {
            stub.fill(name, 0, event);
        }
        stub.fill("busy", 50_000, |n| event(100 + n));
        let queues = format!("busy,{}", names.join(","));
        let loader = world.loader().at(&stub.url()).env("LOADER_QUEUE", &queues);
        // The polls of all idle queues together would take more than all the room.
        let loader = loader.options("--max-in-flight 10 --wait 1").start();
        eventually("a busy queue", async || stub.counters().received > 100).await;
        for (n, name) in names.iter().enumerate() {
            stub.fill(name, 1, |_| event(n));
        }
        let left = || names.iter().map(|name| stub.depth(name).unwrap().total()).sum::<u64>();
        eventually("each idle queue's message", async || left() == 0).await;
        assert!(stub.depth("busy").unwrap().total() > 0, "the busy queue was busy until now");
        loader.stop().await.expect(0);
    })
    .await;
}

/// Returns the rate of receive calls per second, measured during the next second.
async fn receives_a_second(stub: &Server) -> usize {
    drop(stub.take_events());
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let receives =
        stub.take_events().into_iter().filter(|event| matches!(event, Event::Receive { .. })).count();
    let milliseconds = usize::try_from(start.elapsed().as_millis()).unwrap();
    receives * 1000 / milliseconds
}
