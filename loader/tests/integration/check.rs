//! `loader check` says of every item how it stands, and moves nothing.

use serde_json::Value;

use crate::common::{Depth, Loader, Proxy, World, events};

/// The items of a check in JSON: name and how it stands.
fn items(report: &Value) -> Vec<(String, String)> {
    let text = |item: &Value, key: &str| item[key].as_str().unwrap().to_owned();
    let items = report["items"].as_array().unwrap();
    items.iter().map(|item| (text(item, "item"), text(item, "status"))).collect()
}

/// What the report says of an item.
fn message<'r>(report: &'r Value, item: &str) -> &'r str {
    let found = report["items"].as_array().unwrap().iter().find(|i| i["item"] == item);
    found.unwrap_or_else(|| panic!("no {item} in {report}"))["message"].as_str().unwrap()
}

fn status(report: &Value, item: &str) -> String {
    items(report).into_iter().find(|(name, _)| name == item).unwrap_or_else(|| panic!("no {item}")).1
}

async fn check(loader: Loader, code: i32) -> Value {
    let ended = loader.options("check --json").end().await.expect(code);
    serde_json::from_str(&ended.stdout).unwrap()
}

#[tokio::test]
async fn a_check_says_of_every_item_how_it_stands() {
    World::run(async |world| {
        let report = check(world.loader(), 0).await;
        let found = items(&report);
        for item in [
            "loader.visibility",
            "database.connection",
            "database.session",
            "database.writable",
            "database.session_replication_role",
            "database.synchronous_commit",
            "database.tls",
            "database.clock",
            "extension.installed",
            "extension.version",
            "extension.usable",
            "inbox.exists",
            "inbox.columns",
            "inbox.insert",
            "inbox.owner",
            "inbox.unique_index",
            "inbox.trial",
            "rights.unmask",
            "rights.others",
            "aws.credentials",
            "queue.reachable",
            "queue.visibility",
            "queue.retention",
            "queue.clock",
            "iam.receive_message",
            "iam.delete_message",
            "iam.change_message_visibility",
        ] {
            assert!(found.contains(&(item.into(), "ok".into())), "{item} is not ok in {report}");
        }
        // The queue of a test has no dead-letter queue.
        assert_eq!(status(&report, "queue.redrive_policy"), "warning");
        assert_eq!(
            (&report["ready"], &report["failed"], &report["warnings"]),
            (&true.into(), &0.into(), &1.into())
        );

        let human = world.loader().options("check").end().await.expect(0).stdout;
        assert_eq!(human.lines().count(), found.len() + 1, "{human}");
        assert!(human.ends_with(&format!("check: {} items, 0 failed, 1 warning\n", found.len())), "{human}");
    })
    .await;
}

#[tokio::test]
async fn a_check_moves_nothing() {
    World::run(async |world| {
        world.queue.send(&events(3)).await;
        let proxy = Proxy::start().await;
        let report = check(world.loader().through(&proxy), 0).await;
        assert_eq!(status(&report, "iam.receive_message"), "skipped");
        assert_eq!(world.queue.depth().await, Depth::visible(3));
        assert!(proxy.deliveries().is_empty(), "nothing was received");
        assert_eq!((world.logins().await, world.rejects().await), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn a_check_warns_of_rights_that_a_loader_has_no_use_for() {
    World::run(async |world| {
        let role = &world.name;
        for (grant, item, named) in [
            (format!("GRANT EXECUTE ON FUNCTION unmask_pii(text) TO {role}"), "rights.unmask", "unmask_pii(mask text)"),
            (format!("GRANT SELECT ON user_logins TO {role}"), "rights.others", "SELECT on user_logins"),
            (format!("GRANT UPDATE (locale) ON user_logins TO {role}"), "rights.others", "UPDATE on user_logins"),
            (format!("GRANT SELECT ON login_inbox TO {role}"), "rights.others", "SELECT on login_inbox"),
            (format!("ALTER ROLE {role} CREATEDB"), "rights.others", "CREATEDB"),
            (format!("GRANT pg_read_all_data TO {role}"), "rights.others", "membership in pg_read_all_data"),
            (format!("CREATE SCHEMA s AUTHORIZATION {role}"), "rights.others", "CREATE on schema s"),
            (
                format!("ALTER ROLE {role} NOINHERIT; GRANT INSERT ON login_inbox TO {role}; GRANT login_pii_reader TO {role}"),
                "rights.unmask",
                "unmask_pii(mask text)",
            ),
            (
                format!("ALTER ROLE {role} NOINHERIT; GRANT INSERT ON login_inbox TO {role}; GRANT login_analyst TO {role}"),
                "rights.others",
                "SELECT on user_logins",
            ),
            (format!("ALTER ROLE {role} SUPERUSER"), "rights.unmask", "is a superuser, or may become one"),
        ] {
            world.sql(&grant).await;
            let report = check(world.loader(), 0).await;
            assert_eq!(status(&report, item), "warning", "after {grant}");
            assert!(message(&report, item).contains(named), "{named} is not in {report}");
            world
                .sql(&format!(
                    "REVOKE ALL ON FUNCTION unmask_pii(text) FROM {role}; REVOKE ALL ON user_logins FROM {role};
                     REVOKE UPDATE (locale) ON user_logins FROM {role}; REVOKE SELECT ON login_inbox FROM {role};
                     ALTER ROLE {role} NOCREATEDB NOSUPERUSER INHERIT; REVOKE login_pii_reader, login_analyst FROM {role}; REVOKE pg_read_all_data FROM {role};
                     DROP SCHEMA IF EXISTS s"
                ))
                .await;
        }
        // A role may serve several inboxes.
        world
            .sql(&format!(
                "CREATE TABLE other (id uuid UNIQUE);
                 SELECT attach_inbox('other_inbox', 'other', 'login_rejects', '{{\"id\": \"message_id\"}}');
                 GRANT INSERT ON other_inbox TO {role}"
            ))
            .await;
        assert_eq!(status(&check(world.loader(), 0).await, "rights.others"), "ok");
        // What gives values away is said at every start, too.
        world.sql(&format!("GRANT EXECUTE ON FUNCTION unmask_pii(text) TO {role}")).await;
        world.loader().options("--dry-run").end().await.expect(0).says(&["which a loader has no use for"]);
    })
    .await;
}

#[tokio::test]
async fn a_check_that_fails_on_one_side_looks_at_the_other() {
    World::run(async |world| {
        let wrong = || world.loader().env("LOADER_QUEUE", "nosuch");
        let report = check(wrong().env("LOADER_INBOX", "nosuch"), 4).await;
        assert_eq!(
            [status(&report, "inbox.exists"), status(&report, "queue.reachable")],
            ["failed", "failed"]
        );
        assert_eq!((&report["ready"], &report["failed"]), (&false.into(), &2.into()));
        let report = check(wrong(), 3).await;
        assert_eq!([status(&report, "inbox.exists"), status(&report, "queue.reachable")], ["ok", "failed"]);
    })
    .await;
}

#[tokio::test]
async fn a_check_has_the_inbox_try_an_event() {
    World::run(async |world| {
        let owner = world.give_inbox_to_a_role().await;
        let report = check(world.loader(), 4).await;
        assert_eq!(status(&report, "inbox.trial"), "failed", "{owner} may do nothing: {report}");
        assert!(message(&report, "inbox.trial").contains("42501"), "{report}");
        assert_eq!((world.logins().await, world.rejects().await), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn a_missing_unique_index_is_found() {
    World::run(async |world| {
        world.sql("ALTER TABLE user_logins DROP CONSTRAINT user_logins_message_id_key").await;
        let none = ["CREATE INDEX i ON user_logins (message_id)"];
        let unfit = [
            "CREATE UNIQUE INDEX i ON user_logins (message_id) WHERE user_id <> ''",
            "CREATE UNIQUE INDEX i ON user_logins (message_id, user_id)",
            "CREATE UNIQUE INDEX i ON user_logins (lower(message_id::text))",
        ];
        for index in none.into_iter().chain(unfit) {
            world.sql(index).await;
            let report = check(world.loader(), 4).await;
            let found = ["inbox.unique_index", "inbox.trial"].map(|item| status(&report, item));
            assert_eq!(found, ["warning", "failed"], "{index}");
            world.sql("DROP INDEX i").await;
        }
        // One that is on the sent date, too, will do: a redelivery has the same.
        for columns in ["message_id", "create_date, message_id"] {
            world.sql(&format!("CREATE UNIQUE INDEX i ON user_logins ({columns})")).await;
            assert_eq!(status(&check(world.loader(), 0).await, "inbox.unique_index"), "ok", "{columns}");
            world.sql("DROP INDEX i").await;
        }

        let rules = r#"{"user_id": {"copy": "user_id"}}"#;
        world
            .sql(&format!("SELECT attach_inbox('login_inbox', 'user_logins', 'login_rejects', '{rules}')"))
            .await;
        let report = check(world.loader(), 0).await;
        assert!(message(&report, "inbox.unique_index").contains("is stored twice"), "{report}");
        world.loader().options("--dry-run").end().await.expect(0).says(&["is stored twice"]);
    })
    .await;
}

#[tokio::test]
async fn a_check_finds_the_action_that_iam_denies() {
    World::run(async |world| {
        let proxy = Proxy::start().await;
        for (call, item) in [
            ("ReceiveMessage", "iam.receive_message"),
            ("DeleteMessageBatch", "iam.delete_message"),
            ("ChangeMessageVisibilityBatch", "iam.change_message_visibility"),
            ("GetQueueAttributes", "queue.reachable"),
        ] {
            proxy.deny(call);
            let report = check(world.loader().through(&proxy), 3).await;
            assert_eq!(status(&report, item), "failed", "{call}");
            let action = call.trim_end_matches("Batch");
            assert!(message(&report, item).contains(&format!("sqs:{action}")), "{report}");
            assert_eq!(report["failed"], 1, "{report}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_check_warns_of_clocks_that_differ() {
    World::run(async |world| {
        let proxy = Proxy::start().await;
        proxy.pretend_date("Thu, 01 Jan 2026 00:00:00 GMT");
        let report = check(world.loader().through(&proxy), 0).await;
        assert_eq!(status(&report, "queue.clock"), "warning");
        assert!(message(&report, "queue.clock").contains("behind this machine's"), "{report}");
    })
    .await;
}
