//! A table changes to another scheme while it's in use.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio_postgres::Client;

use crate::common::{OwnServers, Ring, SCHEMA, eventually, run};

const LOGINS: i64 = 60_000;

#[tokio::test]
async fn remasking_goes_on_where_it_was_broken_off_while_events_come_in() {
    let servers = OwnServers::start("remask", &["shared_preload_libraries=pg_mask"]);
    let session = servers.connect().await;
    for file in SCHEMA {
        session.batch_execute(file).await.unwrap();
    }
    run(&session, &Ring::making("ring.json")).await;
    Ring::configure("ring.json", async || servers.connect().await).await;
    insert(&session, "base64", 1, LOGINS).await.unwrap();
    drop(session);

    let enough = AtomicBool::new(false);
    let ((), newest) = tokio::join!(
        async {
            let broken_off = servers.connect().await;
            // A lock makes the remasking wait in the middle, so that it's interrupted there.
            let watching = servers.connect().await;
            let middle =
                format!("BEGIN; SELECT FROM user_logins WHERE user_id = '{}' FOR UPDATE", LOGINS / 2);
            watching.batch_execute(&middle).await.unwrap();
            let (ended, ()) = tokio::join!(remask(&broken_off, 4), async {
                let waiting = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'CALL %' AND wait_event = 'transactionid'";
                eventually("a wait", async || {
                    watching.batch_execute("SELECT pg_stat_clear_snapshot()").await.unwrap();
                    watching.query_opt(waiting, &[]).await.unwrap().is_some()
                })
                .await;
                let (done, remasked) = progress(&watching).await.unwrap();
                assert!(done > 0 && remasked > 0 && remasked < LOGINS, "{done} blocks done, {remasked} rows");
                // Imitates the loss of the machine: `PostgreSQL` ends all sessions and recovers.
                let backend: i32 = watching.query_one(waiting, &[]).await.unwrap().get(0);
                Command::new("kill").args(["-9", &backend.to_string()]).status().unwrap();
            });
            ended.unwrap_err();
            eventually("a server that has recovered", async || servers.try_connect().await.is_ok()).await;
            let session = servers.connect().await;
            let (_, remasked) = progress(&session).await.unwrap();
            assert!(remasked > 0 && remasked < LOGINS, "broken off in the middle: {remasked}");
            remask(&session, 512).await.unwrap();
            enough.store(true, Relaxed);
        },
        // Meanwhile events arrive, masked with the new scheme. Events that aren't acknowledged come again.
        async {
            let mut next = LOGINS + 1;
            while !enough.load(Relaxed) {
                if let Ok(session) = servers.try_connect().await {
                    while !enough.load(Relaxed) && insert(&session, "aes-siv", next, next + 99).await.is_ok()
                    {
                        next += 100;
                    }
                }
            }
            next
        }
    );

    let session = servers.connect().await;
    assert!(newest > LOGINS + 1);
    let wrong = "SELECT count(*), count(*) FILTER (WHERE mask_key(masked_ip) IS DISTINCT FROM 'k'),
                        count(*) FILTER (WHERE unmask_pii(masked_ip) <> 'ip of ' || user_id) FROM user_logins";
    let row = session.query_one(wrong, &[]).await.unwrap();
    let counts: [i64; 3] = [0, 1, 2].map(|column| row.get(column));
    assert_eq!(counts, [newest - 1, 0, 0], "logins, of other keys, of other values");
}

async fn insert(session: &Client, scheme: &str, first: i64, last: i64) -> Result<(), tokio_postgres::Error> {
    let statement = format!(
        "SET pg_mask.scheme = '{scheme}';
         INSERT INTO login_inbox
         SELECT lpad(n::text, 32, '0')::uuid, '2026-03-01', json_build_object('user_id', n::text, 'ip', 'ip of ' || n)
         FROM generate_series({first}, {last}) AS n"
    );
    session.batch_execute(&statement).await
}

async fn remask(session: &Client, blocks: i32) -> Result<(), tokio_postgres::Error> {
    session.batch_execute(&format!("CALL remask_column('user_logins', 'masked_ip', {blocks})")).await
}

/// Returns the blocks done and the rows re-masked, as another session sees them.
async fn progress(session: &Client) -> Option<(i64, i64)> {
    let progress =
        "SELECT blocks_done, remasked FROM remask_progress WHERE relation = 'user_logins'::regclass";
    let row = session.query_opt(progress, &[]).await.unwrap()?;
    Some((row.get(0), row.get(1)))
}
