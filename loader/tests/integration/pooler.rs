//! `PgBouncer` between the loaders and `PostgreSQL`.

use crate::common::{Depth, PgBouncer, World, events, eventually};

/// Records the session in which each row was stored.
const AUDIT: &str = "
    CREATE TABLE audit (pid integer);
    GRANT INSERT ON audit TO login_owner;
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
        $$ BEGIN INSERT INTO public.audit VALUES (pg_catalog.pg_backend_pid()); RETURN NEW; END $$;
    CREATE TRIGGER note BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION note();";

const SESSIONS: &str = "SELECT count(DISTINCT pid) FROM audit";

#[tokio::test]
async fn loaders_that_share_sessions_in_transaction_mode_store_each_message_once() {
    World::run(async |world| {
        // There are fewer sessions than writers. Each transaction gets the session that has been idle for longest.
        let bouncer =
            PgBouncer::start(world, "pool_mode = transaction\ndefault_pool_size = 2\nserver_round_robin = 1")
                .await;
        world.sql(AUDIT).await;
        let mut bodies = events(600);
        bodies.extend((0..20).map(|n| format!("no JSON {n}")));
        world.queue.send(&bodies).await;

        let loader =
            || bouncer.loader(world).options("--writers 3 --pollers 2 --min-pollers 2 --batch-size 10");
        let loaders = [(); 3].map(|()| loader().start());
        eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;
        let mut stored = 0;
        for loader in loaders {
            let ended = loader.stop().await.expect(0);
            assert!(!ended.stderr.contains("trying again"), "{}", ended.stderr);
            let summary = ended.summary();
            assert!(summary.stored > 0, "each of them had a part in it");
            assert_eq!((summary.duplicate, summary.deleted), (0, summary.received));
            stored += summary.stored + summary.rejected;
        }
        assert_eq!((stored, world.rejects().await), (620, 20));
        world.assert_each_stored_once(600).await;
        assert_eq!(world.number(SESSIONS, &[]).await, 2, "sessions of nine writers");
        // No named statement has stayed, so any loader's statement names are free in each session.
        let ended = bouncer.loader(world).options("check").end().await.expect(0);
        assert!(ended.stdout.contains("0 failed, 1 warning"), "{}", ended.stdout);
    })
    .await;
}

#[tokio::test]
async fn a_loader_works_through_a_pooler_in_session_mode() {
    World::run(async |world| {
        let bouncer = PgBouncer::start(world, "pool_mode = session\ndefault_pool_size = 4").await;
        world.queue.send(&events(50)).await;
        for run in ["--drain --writers 2 --batch-size 10", "check"] {
            let ended = bouncer.loader(world).options(run).end().await.expect(0);
            assert!(!ended.stderr.contains("trying again"), "{}", ended.stderr);
        }
        world.assert_each_stored_once(50).await;
    })
    .await;
}
