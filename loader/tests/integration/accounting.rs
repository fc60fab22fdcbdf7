//! Every event becomes exactly one row or one reject.

use std::collections::HashMap;

use serde_json::Value;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::common::{Canary, Depth, Summary, World, demo_events, event, events};

#[tokio::test]
async fn all_events_are_accounted_for() {
    World::run(async |world| {
        let bodies = demo_events();
        let day_before = today(world).await;
        let ids = world.queue.send(&bodies).await;
        let ended = world.loader().options("--drain").end().await.expect(0);

        let (logins, rejects) = (world.logins().await, world.rejects().await);
        let all = bodies.len();
        let expected =
            Summary { received: all, stored: logins, duplicate: 0, rejected: rejects, deleted: all };
        assert_eq!(ended.summary(), expected);
        assert_eq!(logins + rejects, all);
        assert!(logins > 50 && rejects > 5, "{logins} logins, {rejects} rejects: these events show little");
        assert_eq!(world.queue.depth().await, Depth::EMPTY);

        let in_logins = rows(world, LOGINS).await;
        let in_rejects = rows(world, REJECTS).await;
        for (id, body) in ids.iter().zip(&bodies) {
            match (in_logins.get(id), in_rejects.get(id)) {
                (Some(login), None) => assert_eq!(*login, expected_login(body), "of {body}"),
                (None, Some(rejected)) => assert_eq!(rejected, &[Some(body.clone())]),
                (login, reject) => {
                    panic!("login {}, reject {} of {body}", login.is_some(), reject.is_some())
                }
            }
        }
        let day_after = today(world).await;
        let dates = "SELECT count(*) FROM user_logins WHERE create_date::text BETWEEN $1 AND $2";
        let dates = world.number(dates, &[&day_before, &day_after]).await;
        assert_eq!(dates, logins, "rows with the date on which they were sent");
    })
    .await;
}

/// Columns of a login that come from the event, unmasked, in the order of `expected_login`.
const LOGINS: &str = "SELECT message_id, ARRAY[user_id, device_type, unmask_pii(masked_ip),
    unmask_pii(masked_device_id), locale, app_version::text] FROM user_logins";

const REJECTS: &str = "SELECT message_id, ARRAY[unmask_pii(masked_body)] FROM login_rejects";

async fn rows(world: &World, query: &str) -> HashMap<Uuid, Vec<Option<String>>> {
    let rows = world.db.query(query, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn expected_login(body: &str) -> Vec<Option<String>> {
    let event: Value = serde_json::from_str(body).unwrap();
    let text = |key: &str| match &event[key] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let version =
        text("app_version").map(|version| version.replace('.', "").parse::<i32>().unwrap().to_string());
    vec![text("user_id"), text("device_type"), text("ip"), text("device_id"), text("locale"), version]
}

async fn today(world: &World) -> String {
    world.db.query_one("SELECT current_date::text", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn masked_values_can_be_taken_back() {
    World::run(async |world| {
        let canary = Canary::new();
        let mut bodies = canary.events(20);
        // The device logs in a second time. Equal values have equal masks, so duplicates stay visible.
        bodies.push(canary.event(0));
        let ids = world.queue.send(&bodies).await;
        world.loader().until_empty(&world.queue).await.expect(0);

        for (n, id) in ids.iter().enumerate().map(|(i, id)| (i % 20, id)) {
            let query =
                "SELECT masked_ip, masked_device_id, unmask_pii(masked_ip), unmask_pii(masked_device_id)
                         FROM user_logins WHERE message_id = $1";
            let row = world.db.query_one(query, &[id]).await.unwrap();
            let [ip, device, plain_ip, plain_device] =
                [0, 1, 2, 3].map(|column| row.get::<_, String>(column));
            let value = canary.value(n);
            assert_eq!((plain_ip, plain_device), (format!("{value}-ip"), format!("{value}-device")));
            assert!(!ip.contains(&canary.marker) && !device.contains(&canary.marker), "stored as it is");
        }
        let devices = "SELECT count(DISTINCT masked_device_id) FROM user_logins";
        assert_eq!(world.number(devices, &[]).await, 20);

        // Unmasking takes a privilege of its own.
        let take_back = "SELECT count(unmask_pii(masked_ip)) FROM user_logins";
        world.sql("SET ROLE login_analyst").await;
        assert_eq!(world.logins().await, 21);
        let refused = world.db.query(take_back, &[]).await.unwrap_err();
        assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
        world.sql("SET ROLE login_pii_reader").await;
        assert_eq!(world.number(take_back, &[]).await, 21);
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_stores_nothing_and_gives_everything_back() {
    World::run(async |world| {
        let mut bodies = events(12);
        bodies.push("no JSON".to_owned());
        let ids = world.queue.send(&bodies).await;
        // One message is stored already.
        world.db.execute("INSERT INTO login_inbox VALUES ($1, now(), $2)", &[&ids[3], &event(3)]).await.unwrap();

        let ended = world.loader().options("--dry-run").end().await.expect(0);
        assert_eq!(
            ended.stdout,
            "dry run: received 13, would store 11, duplicate 1, rejected 1; nothing was stored, all messages are \
             visible again\n"
        );
        assert_eq!((world.logins().await, world.rejects().await), (1, 0), "logins, rejects");
        assert_eq!(world.queue.depth().await, Depth::visible(13));

        let ended = world.loader().until_empty(&world.queue).await.expect(0);
        let expected = Summary { received: 13, stored: 11, duplicate: 1, rejected: 1, deleted: 13 };
        assert_eq!(ended.summary(), expected, "the run that the dry run has foretold");
    })
    .await;
}
