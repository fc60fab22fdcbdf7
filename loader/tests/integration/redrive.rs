//! `loader redrive`: rejects go back into the inbox without leaving the database.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::types::ToSql;

use crate::common::{Canary, Loader, World, base64, setting};

/// Removes the cause of the rejects from `too_long`.
const MEND: &str = "ALTER TABLE user_logins ALTER COLUMN locale TYPE varchar(64)";

/// Returns events with a value that is too long for its column.
fn too_long(count: usize) -> Vec<String> {
    let locale = "x".repeat(40);
    (0..count)
        .map(|i| format!("{{\"user_id\":\"u{i}\",\"ip\":\"10.0.0.{i}\",\"locale\":\"{locale}\"}}"))
        .collect()
}

/// Makes the loader receive these events, all of which must become rejects.
async fn reject(world: &World, events: &[String]) {
    let before = world.rejects().await;
    world.queue.send(events).await;
    world.loader().until_empty(&world.queue).await.expect(0);
    assert_eq!(world.rejects().await, before + events.len());
}

/// Returns `loader redrive` under a role that may redrive and do nothing else.
async fn redrive(world: &World, options: &str) -> Loader {
    let role = format!("{}_redriver", world.name);
    let exists = world.number("SELECT count(*) FROM pg_roles WHERE rolname = $1", &[&role]).await;
    if exists == 0 {
        world.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD 'p' IN ROLE login_redriver")).await;
    }
    world.loader().database(&role, "p", &world.name).options(&format!("redrive {options}"))
}

async fn says(world: &World, options: &str) -> String {
    redrive(world, options).await.end().await.expect(0).stdout.trim_end().to_owned()
}

#[tokio::test]
async fn rejects_go_back_into_the_inbox_once_their_cause_is_mended() {
    World::run(async |world| {
        reject(world, &too_long(5)).await;
        reject(world, &["{".to_owned()]).await;
        world.sql(MEND).await;
        assert_eq!(says(world, "--reason LONG").await, "taken 0, stored 0, duplicate 0, rejected 0");
        assert_eq!(says(world, "--reason long").await, "taken 5, stored 5, duplicate 0, rejected 0");
        assert_eq!((world.logins().await, world.rejects().await), (5, 1));
        let query =
            "SELECT count(*) FROM user_logins WHERE unmask_pii(masked_ip) = '10.0.0.' || substr(user_id, 2)";
        assert_eq!(world.number(query, &[]).await, 5);
        world.assert_each_stored_once(5).await;
    })
    .await;
}

#[tokio::test]
async fn rejects_that_are_still_bad_are_taken_once_and_stay() {
    World::run(async |world| {
        reject(world, &too_long(5)).await;
        let all = says(world, "--all --batch-size 2").await;
        assert_eq!(all, "taken 5, stored 0, duplicate 0, rejected 5");
        assert_eq!((world.logins().await, world.rejects().await), (0, 5));
    })
    .await;
}

#[tokio::test]
async fn rejects_are_chosen_by_age_and_by_message_id() {
    World::run(async |world| {
        reject(world, &too_long(4)).await;
        world.sql(MEND).await;
        let ids = "SELECT message_id::text FROM login_rejects ORDER BY message_id";
        let ids: Vec<String> = world.db.query(ids, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
        world
            .sql(&format!(
                "UPDATE login_rejects SET rejected_at = now() - interval '2 days' WHERE message_id = '{}'",
                ids[0]
            ))
            .await;
        let by_id = format!("--message-id {},{} --newer-than 1hour", ids[0], ids[1]);
        assert!(says(world, &by_id).await.starts_with("taken 1, stored 1"));
        assert!(says(world, "--older-than 1day").await.starts_with("taken 1, stored 1"));
        let stored = "SELECT count(*) FROM user_logins WHERE message_id::text = ANY ($1)";
        let parameters: [&(dyn ToSql + Sync); 1] = [&&ids[..2]];
        assert_eq!(world.number(stored, &parameters).await, 2);
        assert!(says(world, "--newer-than 1hour").await.starts_with("taken 2, stored 2"));
        for wrong in ["soon", "2hours-ago", "-1hour", "99999999999years", "P-12M361D"] {
            let ended = redrive(world, &format!("--older-than={wrong}")).await.end().await;
            ended.expect(2).says(&["take an interval that is not negative"]);
        }
        redrive(world, "").await.end().await.expect(2).says(&["--message-id"]);
    })
    .await;
}

#[tokio::test]
async fn a_stored_reject_is_deleted_in_the_same_transaction() {
    World::run(async |world| {
        reject(world, &too_long(3)).await;
        world.sql(MEND).await;
        let dry = says(world, "--all --dry-run").await;
        assert!(dry.ends_with("nothing was changed: taken 3, stored 3, duplicate 0, rejected 0"), "{dry}");
        assert_eq!((world.logins().await, world.rejects().await), (0, 3));

        // The statement is aborted between the delete and the insert.
        let lock = world.lock_logins().await;
        let broken_off = redrive(world, "--all").await.env("PGOPTIONS", "-c statement_timeout=300");
        broken_off.end().await.expect(4).says(&["57014", "What was committed before stays so"]);
        lock.batch_execute("COMMIT").await.unwrap();
        assert_eq!((world.logins().await, world.rejects().await), (0, 3));
    })
    .await;
}

#[tokio::test]
async fn who_may_redrive_sees_no_event_and_the_loaders_role_may_not() {
    World::run(async |world| {
        reject(world, &too_long(1)).await;
        world.sql(MEND).await;
        world.loader().options("redrive --all").end().await.expect(4).says(&["42501"]);
        says(world, "--all --dry-run").await;
        let session = world.session().await;
        session.batch_execute(&format!("SET ROLE {}_redriver", world.name)).await.unwrap();
        for denied in [
            "SELECT masked_body FROM login_rejects",
            "SELECT masked_ip FROM user_logins",
            "SELECT unmask_pii('YQ==')",
            "DELETE FROM login_rejects",
        ] {
            let error = session.batch_execute(denied).await.unwrap_err();
            assert_eq!(error.code().unwrap().code(), "42501", "{denied}");
        }
        session.batch_execute("SELECT message_id, reason, rejected_at FROM login_rejects").await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn no_event_passes_through_the_loader_on_redrive() {
    World::run(async |world| {
        let canary = Canary::new();
        let event =
            format!("{{\"user_id\":\"u\",\"ip\":\"{}\",\"locale\":\"{}\"}}", canary.marker, "x".repeat(40));
        reject(world, &[event]).await;
        world.sql(MEND).await;
        let (port, heard) = tap().await;
        let running = redrive(world, "--all --log-level debug").await;
        let url = format!("postgres://{0}_redriver:p@127.0.0.1:{port}/{0}", world.name);
        let ended = running.env("DATABASE_URL", &url).end().await.expect(0);
        assert!(ended.stdout.starts_with("taken 1, stored 1"), "{}", ended.stdout);
        let heard = String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
        assert!(heard.contains("redrive_rejects"), "the tap hears what is said");
        for secret in [canary.marker.clone(), base64(canary.marker.as_bytes())] {
            assert!(!heard.contains(&secret) && !ended.output().contains(&secret));
        }
        assert_eq!(world.logins().await, 1);
    })
    .await;
}

/// Opens a port that leads to the database, and records all bytes in both directions.
async fn tap() -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = format!("{}:{}", setting("PGHOST"), setting("PGPORT"));
            let (from_server, to_server) = TcpStream::connect(server).await.unwrap().into_split();
            let (from_client, to_client) = client.into_split();
            tokio::spawn(listen(from_server, to_client, Arc::clone(&all)));
            tokio::spawn(listen(from_client, to_server, Arc::clone(&all)));
        }
    });
    (port, heard)
}

/// Passes bytes on and records them.
async fn listen(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, heard: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = [0; 8192];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        heard.lock().unwrap().extend_from_slice(&buffer[..length]);
        if to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
}
