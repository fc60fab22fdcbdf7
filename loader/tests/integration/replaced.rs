//! The loader keeps the inbox that it found when it started. A view that replaces it gets no event.

use crate::common::{Depth, Loader, Summary, World, events, eventually};

/// Makes a view that only looks like an inbox. A sequence counts the events that its trigger sees, because a rollback
/// doesn't reset it.
const IMPOSTOR: &str = "
    CREATE VIEW s.login_inbox AS SELECT NULL::uuid AS message_id, NULL::timestamptz AS sent_at, NULL::text AS body;
    CREATE TRIGGER spy INSTEAD OF INSERT ON s.login_inbox FOR EACH ROW EXECUTE FUNCTION public.spy();
    GRANT INSERT ON s.login_inbox TO PUBLIC";

/// Puts the inbox into a schema of its own, so that the schema can be renamed.
async fn move_inbox(world: &World) {
    world
        .sql(
            "CREATE SEQUENCE public.seen;
             GRANT USAGE ON SEQUENCE public.seen TO PUBLIC;
             CREATE FUNCTION public.spy() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM nextval('public.seen'); RETURN NEW; END $$;
             CREATE SCHEMA s;
             GRANT USAGE ON SCHEMA s TO PUBLIC;
             ALTER VIEW login_inbox SET SCHEMA s",
        )
        .await;
}

fn loader(world: &World) -> Loader {
    world.loader().options("--inbox s.login_inbox --writers 2")
}

async fn assert_nothing_was_sent(world: &World) {
    let seen = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM public.seen";
    assert_eq!(world.number(seen, &[]).await, 0, "events that the impostor saw");
    assert_eq!(world.queue.depth().await, Depth::visible(10), "all are given back");
}

async fn replace_between_two_batches(change: &str, word: &str) {
    World::run(async |world| {
        move_inbox(world).await;
        world.sql(&format!("CREATE ROLE {}_owner", world.name)).await;
        world.queue.send(&events(20)[..10]).await;
        let loader = loader(world).start();
        eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;
        assert_eq!(world.logins().await, 10);
        world.sql(&change.replace("NEW_ROLE", &format!("{}_owner", world.name))).await;
        world.queue.send(&events(20)[10..]).await;
        loader.end().await.expect(6).says(&["s.login_inbox", word, "Nothing more is sent", "Restart"]);
        assert_nothing_was_sent(world).await;
        assert_eq!(world.logins().await, 10);
    })
    .await;
}

#[tokio::test]
async fn another_view_in_the_inboxs_place_gets_no_event() {
    let change = format!("DROP VIEW s.login_inbox; {IMPOSTOR}");
    replace_between_two_batches(&change, "another view").await;
}

#[tokio::test]
async fn a_schema_renamed_and_made_again_gets_no_event() {
    let change =
        format!("ALTER SCHEMA s RENAME TO t; CREATE SCHEMA s; GRANT USAGE ON SCHEMA s TO PUBLIC; {IMPOSTOR}");
    replace_between_two_batches(&change, "another view").await;
}

#[tokio::test]
async fn an_inbox_with_another_owner_gets_no_event() {
    replace_between_two_batches("ALTER VIEW s.login_inbox OWNER TO NEW_ROLE", "another owner").await;
}

#[tokio::test]
async fn an_inbox_that_is_gone_stops_the_loader() {
    replace_between_two_batches("DROP VIEW s.login_inbox", "dropped or renamed").await;
}

#[tokio::test]
async fn a_redrive_goes_on_with_the_inbox_that_it_began_with() {
    World::run(async |world| {
        move_inbox(world).await;
        world.queue.send(&["x", "y"].map(too_long)).await;
        loader(world).until_empty(&world.queue).await.expect(0);
        assert_eq!(world.rejects().await, 2);
        world
            .sql(&format!(
                "ALTER TABLE user_logins ALTER COLUMN locale TYPE varchar(64); GRANT login_redriver TO {}",
                world.name
            ))
            .await;
        let lock = world.lock_logins().await;
        let redrive = world.loader().options("redrive --all --batch-size 1 --inbox s.login_inbox").start();
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND wait_event_type = 'Lock'";
        eventually("the first batch", async || world.number(waiting, &[&world.name]).await == 1).await;
        let change = "ALTER SCHEMA s RENAME TO t; CREATE SCHEMA s; GRANT USAGE ON SCHEMA s TO PUBLIC;";
        world.sql(&format!("{change} {IMPOSTOR}")).await;
        lock.batch_execute("COMMIT").await.unwrap();
        let ended = redrive.end().await.expect(0);
        assert_eq!(ended.stdout, "taken 2, stored 2, duplicate 0, rejected 0\n");
    })
    .await;
}

fn too_long(letter: &str) -> String {
    let locale = letter.repeat(40);
    format!(r#"{{"user_id":"u","ip":"10.0.0.1","locale":"{locale}"}}"#)
}

#[tokio::test]
async fn a_new_connection_takes_no_other_inbox() {
    let attach = |inbox: &str, owner: &str| {
        format!(
            "SELECT attach_inbox('{inbox}', 'user_logins', 'login_rejects',
                 '{{\"user_id\": {{\"copy\": \"user_id\"}}, \"message_id\": \"message_id\"}}');
             ALTER VIEW {inbox} OWNER TO {owner};
             GRANT INSERT ON {inbox} TO login_loader;"
        )
    };
    // A real inbox, so that it differs in nothing but its identity.
    let again = format!("DROP VIEW s.login_inbox; {}", attach("s.login_inbox", "login_owner"));
    for (change, word) in [(&*again, "another view"), ("DROP VIEW s.login_inbox", "dropped or renamed")] {
        World::run(async |world| {
            move_inbox(world).await;
            let loader = loader(world).start();
            world.ready(1).await;
            world.sql(change).await;
            let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1";
            assert_eq!(world.number(end, &[&world.name]).await, 1);
            world.queue.send(&events(10)).await;
            loader.end().await.expect(6).says(&[word, "Restart the loader"]);
            assert_nothing_was_sent(world).await;
            assert_eq!(world.logins().await, 0);
            // A restarted loader accepts the new inbox.
            if change == again {
                let ended = self::loader(world).until_empty(&world.queue).await.expect(0);
                assert_eq!(ended.summary(), Summary::stored(10));
            }
        })
        .await;
    }
}

#[tokio::test]
async fn an_inbox_earlier_in_the_search_path_gets_no_event() {
    World::run(async |world| {
        let role = &world.name;
        world
            .sql(&format!(
                "CREATE SCHEMA {role};
                 GRANT USAGE ON SCHEMA {role} TO PUBLIC;
                 SELECT attach_inbox('{role}.login_inbox', 'user_logins', 'login_rejects',
                     '{{\"user_id\": {{\"copy\": \"user_id\"}}, \"message_id\": \"message_id\"}}');
                 GRANT INSERT ON {role}.login_inbox TO PUBLIC"
            ))
            .await;
        world.queue.send(&events(10)).await;
        for name in ["login_inbox", "LOGIN_Inbox", "\"login_inbox\""] {
            let ended = world.loader().options(&format!("--inbox {name}")).end().await;
            ended.expect(4).says(&["several views", "give --inbox its schema"]);
        }
        assert_eq!(world.logins().await, 0);
        let loader = world.loader().options("--inbox PUBLIC.login_inbox");
        assert_eq!(loader.until_empty(&world.queue).await.expect(0).summary(), Summary::stored(10));
    })
    .await;
}

#[tokio::test]
async fn the_look_at_our_statements_leaves_those_of_others_to_the_next_library() {
    World::run(async |world| {
        // After parse analysis, `pg_stat_statements` replaces a constant with $1.
        let session = world.session().await;
        session
            .batch_execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements; SELECT mask_pii('a value')")
            .await
            .unwrap();
        let name = format!("behind_{}", world.name);
        session.batch_execute(&format!("SELECT 4711 AS {name}")).await.unwrap();
        let row = session
            .query_one("SELECT query FROM pg_stat_statements WHERE query LIKE 'SELECT % AS ' || $1", &[&name])
            .await
            .unwrap();
        assert_eq!(row.get::<_, &str>(0), format!("SELECT $1 AS {name}"));
    })
    .await;
}
