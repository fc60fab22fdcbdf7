//! No log line of the loader holds an event or a value of one.

use crate::common::{Canary, Depth, Proxy, World, event};

#[tokio::test]
async fn no_log_line_holds_a_body() {
    World::run(async |world| {
        for format in ["human", "json"] {
            let canary = Canary::new();
            let mut output = String::new();
            // One poller that does not wait is what a loader with next to nothing to do is ended soonest with.
            let loader = || {
                let options = format!("--log-level debug --log-format {format} --wait 0 --pollers 1");
                world.loader().options(&options)
            };

            let mut bodies = canary.events(40);
            bodies.extend(canary.rejects());
            world.queue.send(&bodies).await;
            let ended = loader().until_empty(&world.queue).await.expect(0);
            output += &ended.output();
            let summary = ended.summary();
            assert_eq!((summary.stored, summary.rejected), (40, canary.rejects().len()));

            // Runs that fail with events in hand.
            world.queue.send(&canary.events(20)).await;
            output += &world.break_off_in_mid_copy(loader).await;
            world.sql("ALTER TABLE user_logins RENAME COLUMN locale TO gone").await;
            output += &loader().end().await.expect(4).says(&["42703"]).output();
            world.sql("ALTER TABLE user_logins RENAME COLUMN gone TO locale").await;

            // Deletes that fail, and a loader that is stopped with messages in hand.
            let proxy = Proxy::asking().await;
            let running = loader().through(&proxy).start();
            proxy.next_delete().await.answer_status(500);
            running.signal("TERM").await;
            running.signal("INT").await;
            output += &running.end().await.expect(0).output();
            output += &loader().until_empty(&world.queue).await.expect(0).output();
            assert_eq!(world.queue.depth().await, Depth::EMPTY);

            assert!(output.contains("batch committed"), "debug is on");
            assert!(!output.contains(&canary.marker), "in the log: {output}");

            // A canary that is printed is found: the name of an inbox is no secret.
            let ended = loader().options(&format!("--inbox {}", canary.marker)).end().await.expect(4);
            output += &ended.output();
            assert!(output.contains(&canary.marker));
        }
    })
    .await;
}

#[tokio::test]
async fn no_name_that_a_trigger_makes_of_a_value_is_in_the_log() {
    World::run(async |world| {
        world
            .sql(
                "CREATE FUNCTION route() RETURNS trigger LANGUAGE plpgsql AS $$
                     BEGIN EXECUTE format('INSERT INTO %I VALUES (1)', 'logins_' || NEW.user_id); RETURN NULL; END $$;
                 CREATE TRIGGER route AFTER INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION route()",
            )
            .await;
        world.queue.send(&[event(1)]).await;
        let ended = world.loader().end().await.expect(4).says(&["SQLSTATE 42P01", "the server's log"]);
        assert!(!ended.output().contains("user-1"), "a value of an event is in the log: {}", ended.output());
    })
    .await;
}
