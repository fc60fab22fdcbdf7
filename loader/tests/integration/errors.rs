//! Errors say what to do and never contain a password.

use tokio::net::TcpListener;

use crate::common::{Depth, Loader, World, event, setting};

#[tokio::test]
async fn errors_say_what_to_do() {
    World::run(async |world| {
        world.queue.send(&[event(1)]).await;
        let closed = closed_port().await;
        let (role, password, database) = (&world.name, &world.password, &world.name);
        let elsewhere = format!("postgres://{role}:{password}@127.0.0.1:{closed}/{database}");
        let (host, port) = (setting("PGHOST"), setting("PGPORT"));
        let unquoted = format!("postgres://{role}:p@{password}@{host}:{port}/{database}");
        let loader = || world.loader().options("--drain");
        let cases: Vec<(Loader, i32, Vec<&str>)> = vec![
            (loader().options("--queue nowhere"), 3, vec!["no queue nowhere", "create it", "--queue-url"]),
            (
                loader().env("AWS_ENDPOINT_URL", &format!("http://127.0.0.1:{closed}")),
                3,
                vec!["cannot be reached", "Connection refused", "Check the endpoint"],
            ),
            (loader().env("DATABASE_URL", &elsewhere), 4, vec!["cannot be reached", "Check host and port"]),
            (
                loader().database(role, "wrong-password", database),
                4,
                vec!["refused the password of role", role, "28P01", "PGPASSWORD"],
            ),
            (
                loader().database(role, password, "no_such_database"),
                4,
                vec!["\"no_such_database\" does not exist", "Create it", "PGDATABASE"],
            ),
            (
                loader().options("--inbox no_such_inbox"),
                4,
                vec!["no inbox no_such_inbox", "attach_inbox()", "--inbox"],
            ),
            (
                loader().options("--inbox user_logins"),
                4,
                vec!["is not an inbox of pg_mask", "attach_inbox()"],
            ),
            (loader().options("--no-such-option"), 2, vec!["--no-such-option", "--help"]),
            (loader().options("--visibility 5"), 2, vec!["--visibility 5 is too short", "--wait"]),
            (loader().options("--dry-run"), 2, vec!["--drain and --dry-run", "leave one out"]),
            (loader().env("DATABASE_URL", &unquoted), 2, vec!["DATABASE_URL", "%40"]),
        ];
        let runs =
            cases.into_iter().map(async |(loader, code, words)| check(world, loader, code, &words).await);
        futures_util::future::join_all(runs).await;

        // All runs share the world's privileges, so these cases run one after another.
        world.sql("REVOKE INSERT ON login_inbox FROM login_loader").await;
        let advice = ["cannot insert into public.login_inbox", "GRANT INSERT ON public.login_inbox TO"];
        check(world, loader(), 4, &advice).await;
        world
            .sql("GRANT INSERT ON login_inbox TO login_loader; REVOKE USAGE ON SCHEMA public FROM PUBLIC")
            .await;
        check(world, loader(), 4, &["cannot use schema public", "GRANT USAGE ON SCHEMA public TO"]).await;
        world.sql("GRANT USAGE ON SCHEMA public TO PUBLIC; DROP VIEW login_inbox").await;
        check(world, loader(), 4, &["no inbox login_inbox", "attach_inbox()"]).await;
        world.sql("DROP EXTENSION pg_mask CASCADE").await;
        check(world, loader(), 4, &["pg_mask is not in database", "CREATE EXTENSION pg_mask"]).await;

        assert_eq!(world.queue.depth().await, Depth::visible(1), "nothing was so much as received");
    })
    .await;
}

async fn check(world: &World, loader: Loader, code: i32, words: &[&str]) {
    // The real SQS server accepts any key.
    let loader = loader.env("AWS_SECRET_ACCESS_KEY", &world.password);
    let ended = loader.end().await.expect(code).says(words);
    let output = ended.output();
    for secret in [world.password.as_str(), "wrong-password"] {
        assert!(!output.contains(secret), "a secret is in:\n{output}");
    }
}

/// Returns a port on which nothing listens.
async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// `loader/src/inbox/error.rs` goes by these names. Messages depend on the server's language.
#[tokio::test]
async fn the_server_names_the_function_that_raises_an_error() {
    World::run(async |world| {
        let raised = |error: tokio_postgres::Error| {
            let error = error.as_db_error().expect("an error of the server").clone();
            (error.code().code().to_owned(), error.routine().unwrap_or_default().to_owned())
        };
        let is = |code: &str, routine: &str| (code.to_owned(), routine.to_owned());
        world.sql("CREATE TABLE changing (a int)").await;
        let outdated = world.db.prepare("SELECT * FROM changing").await.unwrap();
        world.sql("ALTER TABLE changing ADD b int").await;
        let error = world.db.query(&outdated, &[]).await.expect_err("an outdated plan");
        assert_eq!(raised(error), is("0A000", "RevalidateCachedQuery"));
        let error = world.db.batch_execute("DO 'BEGIN RAISE ''words''; END'").await.expect_err("an error");
        assert_eq!(raised(error), is("P0001", "exec_stmt_raise"));
        world.sql(&format!("SET ROLE {}", world.name)).await;
        let error = world.db.query("SELECT * FROM changing", &[]).await.expect_err("no privilege");
        assert_eq!(raised(error), is("42501", "aclcheck_error"));
    })
    .await;
}
