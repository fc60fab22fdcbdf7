//! A copy of any size holds at most one chunk of a batch in the backend's memory.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio::time::sleep;
use tokio_postgres::{Client, CopyInSink};

use crate::common::World;

/// Number of events. Each has 2 KB, which is 400 MB in total.
const EVENTS: usize = 200_000;
/// Maximum growth of the backend in KB. A chunk is 8 MB of events and rows; COPY's or INSERT's own memory comes on top.
const MAY_GROW: usize = 64 * 1024;

#[tokio::test]
async fn a_copy_of_any_size_holds_one_chunk_in_memory() {
    watch(async |session| {
        let copy: CopyInSink<Bytes> = session.copy_in("COPY login_inbox (body) FROM STDIN").await.unwrap();
        let mut copy = pin!(copy);
        let line =
            format!("{{\"user_id\":\"user\",\"ip\":\"10.1.2.3\",\"more\":\"{}\"}}\n", "x".repeat(2048));
        let lines = Bytes::from(line.repeat(100));
        for _ in 0..EVENTS / 100 {
            copy.send(lines.clone()).await.unwrap();
        }
        copy.finish().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_insert_of_any_size_holds_one_chunk_in_memory() {
    watch(async |session| {
        let insert = format!(
            "INSERT INTO login_inbox (body)
             SELECT format('{{\"user_id\":\"user-%s\",\"ip\":\"10.1.2.3\",\"more\":\"%s\"}}', n, repeat('x', 2048))
             FROM generate_series(1, {EVENTS}) AS n"
        );
        session.batch_execute(&insert).await.unwrap();
    })
    .await;
}

/// Lets `store` put all events into the inbox, and watches the memory of the backend that takes them. The bulk of each event
/// is in a key that no rule reads: it's received and parsed, but not stored.
async fn watch(store: impl AsyncFnOnce(&Client)) {
    World::run(async |world| {
        let session = world.session().await;
        let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        let before = anonymous_memory(world, pid).await;
        let (mut most, mut looks) = (before, 0);
        tokio::select! {
            () = store(&session) => {}
            () = async {
                loop {
                    most = most.max(anonymous_memory(world, pid).await);
                    looks += 1;
                    sleep(Duration::from_millis(2)).await;
                }
            } => {}
        }
        assert_eq!(world.logins().await, EVENTS);
        assert!(looks > 10, "only {looks} looks at its memory");
        assert!(most - before < MAY_GROW, "the backend grew from {before} KB to {most} KB");
    })
    .await;
}

/// Returns a backend's memory without files and shared memory, in KB. The server reads it, because a server in a container
/// may number its processes differently than this machine.
async fn anonymous_memory(world: &World, pid: i32) -> usize {
    let query = "SELECT pg_read_file('/proc/' || $1::int4 || '/status')";
    let status: String = world.db.query_one(query, &[&pid]).await.unwrap().get(0);
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
