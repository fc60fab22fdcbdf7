//! Before anything is received, a trial tells whether the setup has a fault, so that no message is blamed for it.

use std::time::Duration;

use tokio::time::sleep;

use crate::common::{Depth, Proxy, Queue, Summary, World, event, events, eventually, readyz};

/// Copies each login to a table that a test can drop.
const NOTE: &str = "
    CREATE TABLE noted (user_id text);
    GRANT INSERT ON noted TO login_owner;
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO public.noted VALUES (NEW.user_id); RETURN NULL; END $$;
    CREATE TRIGGER note AFTER INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION note();";

/// Copies each login to a table chosen by its locale.
const ROUTE: &str = "
    CREATE TABLE audit_en (user_id text);
    GRANT INSERT ON audit_en TO login_owner;
    CREATE FUNCTION route() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            EXECUTE format('INSERT INTO public.%I VALUES ($1)', 'audit_' || NEW.locale) USING NEW.user_id;
            RETURN NULL;
        END $$;
    CREATE TRIGGER route AFTER INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION route();";

fn login(n: usize, locale: &str) -> String {
    format!(r#"{{"user_id":"user-{n}","locale":"{locale}"}}"#)
}

#[tokio::test]
async fn nothing_is_received_while_the_set_up_is_at_fault() {
    World::run(async |world| {
        world.sql(NOTE).await;
        world.sql("DROP TABLE noted").await;
        let proxy = Proxy::start().await;
        world.queue.send(&events(30)).await;
        for options in ["", "--drain"] {
            let ended = world.loader().through(&proxy).options(options).end().await.expect(4);
            ended.says(&["trial", "42P01"]);
        }
        assert_eq!(proxy.deliveries().len(), 0, "messages received");
        assert_eq!(world.queue.depth().await, Depth::visible(30));
    })
    .await;
}

#[tokio::test]
async fn a_service_waits_for_its_set_up_and_holds_what_it_has() {
    World::run(async |world| {
        world.sql(NOTE).await;
        let proxy = Proxy::start().await;
        let options = "--metrics-address 127.0.0.1:0 --batch-size 10 --writers 2";
        let loader = world.loader().through(&proxy).options(options).start();
        let address = loader.metrics_address().await;
        world.queue.send(&events(10)).await;
        eventually("the first ones", async || world.logins().await == 10).await;
        world.sql("ALTER TABLE noted RENAME TO elsewhere").await;
        world.queue.send(&events(400)[10..]).await;
        eventually("a loader that is not ready", async || readyz(&address).await.0 == 503).await;
        // Long enough for the calls in flight to end.
        sleep(Duration::from_secs(2)).await;
        let received = proxy.deliveries().len();
        sleep(Duration::from_secs(5)).await;
        assert_eq!(proxy.deliveries().len(), received, "messages received while it waits");
        assert_eq!(world.logins().await, 10);
        world.sql("ALTER TABLE elsewhere RENAME TO noted").await;
        eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;
        eventually("a ready loader", async || readyz(&address).await.0 == 200).await;
        let ended = loader.stop().await.expect(0);
        assert_eq!(ended.stderr.matches("nothing is received until").count(), 1, "{}", ended.stderr);
        let ended = ended.says(&["42P01", "takes events again", "messages_left=0"]);
        assert_eq!(ended.summary(), Summary::stored(400));
        // Each message came once: none was given back or moved closer to the dead-letter queue.
        assert_eq!(proxy.deliveries().len(), 400);
        world.assert_each_stored_once(400).await;
    })
    .await;
}

#[tokio::test]
async fn one_event_that_misses_a_table_is_a_reject_beside_good_ones() {
    World::run(async |world| {
        world.sql(ROUTE).await;
        // One earlier row, which a trial can copy.
        world
            .sql("INSERT INTO login_inbox (body) VALUES ('{\"user_id\":\"user-0\",\"locale\":\"en\"}')")
            .await;
        let mut bodies: Vec<String> = (1..21).map(|n| login(n, "en")).collect();
        bodies.insert(7, login(99, "xx"));
        world.queue.send(&bodies).await;
        let ended = world.loader().options("--drain").end().await.expect(0);
        let expected = Summary { received: 21, stored: 20, duplicate: 0, rejected: 1, deleted: 21 };
        assert_eq!(ended.summary(), expected);
        let reasons = world
            .number("SELECT count(*) FROM login_rejects WHERE reason = 'undefined_table (42P01)'", &[])
            .await;
        assert_eq!(reasons, 1);
        assert_eq!(world.queue.depth().await, Depth::EMPTY);
    })
    .await;
}

#[tokio::test]
async fn a_lone_message_that_ends_the_servers_session_is_given_up() {
    World::run(async |world| {
        world
            .sql(
                "CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
                     BEGIN
                         IF NEW.user_id = 'user-3' THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
                         RETURN NULL;
                     END $$;
                 CREATE TRIGGER crash AFTER INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION crash();",
            )
            .await;
        let ids = world.queue.send(&[event(3)]).await;
        let loader = world.loader().start();
        eventually("the end of its tries", async || loader.said().contains("again and again")).await;
        let culprit = ids[0].to_string();
        loader.stop().await.expect(0).says(&[&culprit, "redrive policy", "messages_left=1"]);
        assert_eq!(world.queue.depth().await, Depth { hidden: 1, ..Depth::EMPTY });
    })
    .await;
}

#[tokio::test]
async fn a_password_that_changes_under_a_service_is_waited_for() {
    World::run(async |world| {
        let loader = world.loader().start();
        world.ready(1).await;
        let (role, password) = (&world.name, &world.password);
        world
            .sql(&format!(
                "ALTER ROLE {role} PASSWORD 'another';
                 SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
            ))
            .await;
        world.queue.send(&events(30)).await;
        eventually("a refused login", async || loader.said().contains("28P01")).await;
        world.sql(&format!("ALTER ROLE {role} PASSWORD '{password}'")).await;
        eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;
        let ended = loader.stop().await.expect(0).says(&["28P01", "trying again"]);
        assert_eq!(ended.summary(), Summary::stored(30));
    })
    .await;
}

#[tokio::test]
async fn a_held_event_is_not_overtaken_by_its_message_group() {
    World::run(async |world| {
        world.sql(ROUTE).await;
        world.sql("ALTER TABLE user_logins ADD CHECK (locale ~ '^[a-z]{2}$')").await;
        let name = format!("{}.fifo", world.name);
        let queue = Queue::create_fifo(&name).await;
        queue.send_to_group("g", &[login(1, "xx"), login(2, "yy")]).await;
        let loader = world.loader().env("LOADER_QUEUE", &name).options("--pollers 1").start();
        eventually("held events", async || loader.said().contains("nothing is received until")).await;
        let audit = |locale: &str| {
            format!(
                "CREATE TABLE audit_{locale} (user_id text); GRANT INSERT ON audit_{locale} TO login_owner"
            )
        };
        // The second could be stored now. The first is retried every few seconds, and comes first.
        world.sql(&audit("yy")).await;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(world.logins().await, 0, "the second overtook the first");
        world.sql(&audit("xx")).await;
        eventually("an empty queue", async || queue.depth().await == Depth::EMPTY).await;
        let order = "SELECT string_agg(user_id, ' ' ORDER BY ctid) FROM user_logins";
        let row = world.db.query_one(order, &[]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), "user-1 user-2");
        let ended = loader.stop().await.expect(0).says(&["messages_left=0"]);
        assert_eq!(ended.summary(), Summary::stored(2));
        queue.delete().await;
    })
    .await;
}

#[tokio::test]
async fn an_event_is_held_until_something_tells_whether_the_set_up_works() {
    World::run(async |world| {
        world.sql(ROUTE).await;
        // The constraint refuses the trial's row, so the triggers after it aren't tried.
        world.sql("ALTER TABLE user_logins ADD CHECK (locale ~ '^[a-z]{2}$')").await;
        let loader = world.loader().options("--metrics-address 127.0.0.1:0").start();
        let address = loader.metrics_address().await;
        world.ready(1).await;
        world.queue.send(&[login(1, "xx")]).await;
        eventually("a loader that waits", async || readyz(&address).await.0 == 503).await;
        // Later trials copy this row.
        world
            .sql("INSERT INTO login_inbox (body) VALUES ('{\"user_id\":\"user-0\",\"locale\":\"en\"}')")
            .await;
        eventually("its reject", async || world.number("SELECT count(*) FROM login_rejects", &[]).await == 1)
            .await;
        eventually("a ready loader", async || readyz(&address).await.0 == 200).await;
        world.queue.send(&[login(2, "en")]).await;
        eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;
        let ended = loader.stop().await.expect(0).says(&["checks of the target refused", "messages_left=0"]);
        let expected = Summary { received: 2, stored: 1, duplicate: 0, rejected: 1, deleted: 2 };
        assert_eq!(ended.summary(), expected);
    })
    .await;
}
