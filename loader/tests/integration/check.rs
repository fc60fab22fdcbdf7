//! `loader check` reports the status of every item and moves nothing.

use serde_json::Value;

use crate::common::{Depth, Loader, Proxy, World, events};

/// Returns the name and the status of each item in a JSON report.
fn items(report: &Value) -> Vec<(String, String)> {
    let text = |item: &Value, key: &str| item[key].as_str().unwrap().to_owned();
    let items = report["items"].as_array().unwrap();
    items.iter().map(|item| (text(item, "item"), text(item, "status"))).collect()
}

/// Returns the message of an item in a report.
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
async fn http_to_another_machine_is_warned_of() {
    World::run(async |world| {
        let report = check(world.loader().at("http://sqs.invalid:9324"), 3).await;
        assert_eq!(status(&report, "queue.transport"), "warning");
    })
    .await;
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
            "database.fsync",
            "database.standbys",
            "database.tls",
            "database.clock",
            "extension.installed",
            "extension.version",
            "extension.usable",
            "inbox.exists",
            "inbox.columns",
            "inbox.insert",
            "inbox.definition",
            "inbox.owner",
            "inbox.additions",
            "inbox.unique_index",
            "inbox.logged",
            "inbox.schema",
            "inbox.references",
            "inbox.paths",
            "inbox.trial",
            "rights.unmask",
            "rights.others",
            "aws.credentials",
            "queue.transport",
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
        // A test's queue has no dead-letter queue.
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
async fn a_check_warns_of_what_it_could_not_look_at() {
    World::run(async |world| {
        let revoke = format!("REVOKE SELECT ON inboxes FROM PUBLIC, login_loader, {}", world.name);
        world.db.batch_execute(&revoke).await.unwrap();
        let report = check(world.loader(), 0).await;
        assert_eq!(status(&report, "rights.others"), "warning", "{report}");
    })
    .await;
}

#[tokio::test]
async fn a_check_warns_of_rights_that_a_loader_has_no_use_for() {
    World::run(async |world| {
        let role = &world.name;
        for (grant, item, named) in [
            (format!("GRANT EXECUTE ON FUNCTION unmask_pii(text) TO {role}"), "rights.unmask", "unmask_pii(mask text)"),
            (format!("GRANT SELECT ON user_logins TO {role}"), "rights.others", "SELECT on public.user_logins"),
            (format!("GRANT UPDATE (locale) ON user_logins TO {role}"), "rights.others", "UPDATE on public.user_logins"),
            (format!("GRANT SELECT ON login_inbox TO {role}"), "rights.others", "SELECT on public.login_inbox"),
            (
                format!("GRANT REFERENCES (locale) ON user_logins TO {role}"),
                "rights.others",
                "REFERENCES on public.user_logins",
            ),
            (
                format!("GRANT SET ON PARAMETER log_min_messages TO {role}"),
                "rights.others",
                "SET on parameter log_min_messages",
            ),
            (
                format!("GRANT EXECUTE ON FUNCTION pg_read_file(text) TO {role}"),
                "rights.others",
                "EXECUTE on pg_read_file(text)",
            ),
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
                "SELECT on public.user_logins",
            ),
            (format!("ALTER ROLE {role} SUPERUSER"), "rights.unmask", "is a superuser, or can become one"),
            (format!("GRANT login_owner TO {role}"), "rights.unmask", "is a member of login_owner, which owns the inbox"),
            // Ways to reveal values other than a direct grant on `unmask_pii`.
            (
                format!("GRANT TRIGGER ON user_logins TO {role}"),
                "rights.unmask",
                "unmask (TRIGGER on public.user_logins)",
            ),
            (
                format!("GRANT REFERENCES ON user_logins TO {role}"),
                "rights.unmask",
                "unmask (REFERENCES on public.user_logins)",
            ),
            (
                format!("GRANT TRIGGER ON login_inbox TO {role}"),
                "rights.unmask",
                "see events (TRIGGER on public.login_inbox)",
            ),
            (
                format!("GRANT pg_read_server_files TO {role}"),
                "rights.unmask",
                "unmask (server files through pg_read_server_files)",
            ),
            (
                "GRANT EXECUTE ON FUNCTION unmask_pii(text) TO PUBLIC".into(),
                "rights.unmask",
                "unmask (grant on public.unmask_pii(mask text))",
            ),
            (
                format!("GRANT EXECUTE ON FUNCTION redrive_rejects TO {role}; GRANT INSERT ON login_inbox TO {role}"),
                "rights.unmask",
                "redrive (grant on public.login_inbox)",
            ),
            ("REVOKE SELECT ON pii_privileges FROM PUBLIC".into(), "rights.unmask", "cannot read public.pii_privileges"),
        ] {
            let roles = if grant.contains("login_owner") { Some(World::lock_roles().await) } else { None };
            world.sql(&grant).await;
            let report = check(world.loader(), 0).await;
            assert_eq!(status(&report, item), "warning", "after {grant}");
            assert!(message(&report, item).contains(named), "{named} is not in {report}");
            world
                .sql(&format!(
                    "REVOKE ALL ON user_logins FROM {role};
                     REVOKE UPDATE (locale), REFERENCES (locale) ON user_logins FROM {role};
                     REVOKE SET ON PARAMETER log_min_messages FROM {role};
                     REVOKE ALL ON FUNCTION unmask_pii(text), redrive_rejects, pg_read_file(text) FROM {role}; REVOKE SELECT ON login_inbox FROM {role};
                     REVOKE TRIGGER ON login_inbox FROM {role}; REVOKE ALL ON FUNCTION unmask_pii(text) FROM PUBLIC; GRANT SELECT ON pii_privileges TO PUBLIC;
                     ALTER ROLE {role} NOCREATEDB NOSUPERUSER INHERIT;
                     REVOKE login_pii_reader, login_analyst, login_owner, pg_read_all_data, pg_read_server_files FROM {role};
                     DROP SCHEMA IF EXISTS s"
                ))
                .await;
            drop(roles);
        }
        // A role may serve several inboxes.
        world
            .sql(&format!(
                "CREATE TABLE other (id uuid UNIQUE); ALTER TABLE other OWNER TO login_owner;
                 SELECT attach_inbox('other_inbox', 'other', 'login_rejects', '{{\"id\": \"message_id\"}}');
                 GRANT INSERT ON other_inbox TO {role}"
            ))
            .await;
        assert_eq!(status(&check(world.loader(), 0).await, "rights.others"), "ok");
        // A privilege that reveals values is reported at every start, too.
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
        let trial = message(&report, "inbox.trial");
        assert!(trial.contains("42501") && !trial.contains("PostgreSQL:"), "{report}");
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
            "CREATE UNIQUE INDEX i ON user_logins (message_id) NULLS NOT DISTINCT",
        ];
        for index in none.into_iter().chain(unfit) {
            world.sql(index).await;
            let report = check(world.loader(), 4).await;
            let found = ["inbox.unique_index", "inbox.trial"].map(|item| status(&report, item));
            assert_eq!(found, ["warning", "failed"], "{index}");
            world.sql("DROP INDEX i").await;
        }
        // An index that includes the sent date is valid too: a redelivery has the date of the first delivery.
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
        assert!(message(&report, "inbox.unique_index").contains("will be stored again"), "{report}");
        world.loader().options("--dry-run").end().await.expect(0).says(&["will be stored again"]);
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

#[tokio::test]
async fn a_check_and_a_start_warn_of_tables_that_a_crash_empties() {
    World::run(async |world| {
        world
            .sql(
                "CREATE TABLE parts (message_id uuid UNIQUE) PARTITION BY HASH (message_id);
                 CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
                 CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1)
                     PARTITION BY HASH (message_id);
                 CREATE TABLE parts_1_0 PARTITION OF parts_1 FOR VALUES WITH (MODULUS 1, REMAINDER 0);
                 ALTER TABLE parts OWNER TO login_owner;
                 SELECT attach_inbox('parts_inbox', 'parts', 'login_rejects', '{\"message_id\": \"message_id\"}');
                 GRANT INSERT ON parts_inbox TO login_loader",
            )
            .await;
        // The trial's row goes into any partition, so both are locked.
        for (inbox, table, locked) in [
            ("login_inbox", "user_logins", "user_logins"),
            ("login_inbox", "login_rejects", "login_rejects"),
            ("parts_inbox", "parts_1_0", "parts_0, parts_1_0"),
            ("parts_inbox", "login_rejects", "login_rejects"),
        ] {
            let loader = || world.loader().env("LOADER_INBOX", inbox);
            assert_eq!(status(&check(loader(), 0).await, "inbox.logged"), "ok", "{inbox}");
            world.sql(&format!("ALTER TABLE {table} SET UNLOGGED")).await;
            let report = check(loader(), 0).await;
            assert_eq!(status(&report, "inbox.logged"), "warning", "{inbox} with {table}");
            let words = [format!("empties them: public.{table}"), "SET LOGGED".into()];
            assert!(words.iter().all(|word| message(&report, "inbox.logged").contains(word)), "{report}");
            loader().options("--dry-run").end().await.expect(0).says(&[&words[0]]);
            // Only the trial waits for a lock on a partition; the search for UNLOGGED tables doesn't.
            let lock = world.session().await;
            lock.batch_execute(&format!("BEGIN; LOCK TABLE {locked} IN ACCESS EXCLUSIVE MODE")).await.unwrap();
            let report = check(loader().env("LOADER_STORE_TIMEOUT", "1"), 4).await;
            assert!(message(&report, "inbox.logged").contains(&words[0]), "{report}");
            lock.batch_execute("COMMIT").await.unwrap();
            world.sql(&format!("ALTER TABLE {table} SET LOGGED")).await;
        }
        // A renamed table is found too, although the inbox doesn't accept it under that name.
        world.sql("ALTER TABLE user_logins SET UNLOGGED; ALTER TABLE user_logins RENAME TO renamed").await;
        let report = check(world.loader(), 4).await;
        assert!(message(&report, "inbox.logged").contains("empties them: public.renamed"), "{report}");
    })
    .await;
}

#[tokio::test]
async fn a_check_warns_of_roles_that_can_replace_the_inbox() {
    World::run(async |world| {
        let (role, database) = (&world.name, &world.name);
        let owner = format!("{}_owner", world.name);
        let look = async |inbox: &str| {
            let report = check(world.loader().env("LOADER_INBOX", inbox), 0).await;
            (status(&report, "inbox.schema"), message(&report, "inbox.schema").to_owned())
        };
        let mut roles = None;
        world.sql(&format!("CREATE ROLE {owner}; CREATE SCHEMA s; GRANT USAGE ON SCHEMA s TO PUBLIC")).await;
        assert_eq!(look("login_inbox").await.0, "ok", "both are the superuser's");
        for (change, inbox, expected) in [
            // `pg_database_owner` owns the schema `public`.
            (format!("ALTER DATABASE {database} OWNER TO {owner}"), "login_inbox", vec![&owner]),
            (format!("GRANT {owner} TO {role}"), "login_inbox", vec![role, &owner]),
            ("ALTER VIEW login_inbox SET SCHEMA s".into(), "s.login_inbox", vec![]),
            (format!("ALTER SCHEMA s OWNER TO {owner}"), "s.login_inbox", vec![role, &owner]),
            (format!("REVOKE {owner} FROM {role}"), "s.login_inbox", vec![&owner]),
            ("ALTER SCHEMA s OWNER TO login_owner".into(), "s.login_inbox", vec![]),
            // A role that has the privileges of the inbox's owner gains nothing.
            (
                format!("ALTER SCHEMA s OWNER TO {owner}; GRANT login_owner TO {owner}"),
                "s.login_inbox",
                vec![],
            ),
        ] {
            if change.contains("GRANT login_owner") {
                roles = Some(World::lock_roles().await);
            }
            world.sql(&change).await;
            let (status, message) = look(inbox).await;
            assert_eq!(
                status,
                if expected.is_empty() { "ok" } else { "warning" },
                "after {change}: {message}"
            );
            if !expected.is_empty() {
                let names: Vec<&str> = expected.iter().map(|name| name.as_str()).collect();
                assert!(message.starts_with(&format!("{} can put", names.join(", "))), "{message}");
                assert!(message.contains("ALTER SCHEMA"), "{message}");
            }
        }
        world.sql(&format!("REVOKE login_owner FROM {owner}")).await;
        drop(roles);
    })
    .await;
}
