//! Sources of AWS credentials: each source of the SDK's chain, used for its purpose.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, UNIX_EPOCH};

use futures_util::future::join_all;
use sqs_stub::{Faults, KeyError, Server};

use crate::common::{Loader, Metrics, Proxy, Summary, World, event, eventually, setting};

/// A web identity's token, which must not appear in any output.
const TOKEN: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJsb2FkZXIifQ.c2lnbmF0dXJl";
const ROLE: &str = "arn:aws:iam::000000000000:role/loader";

/// Writes a file for one test.
fn file(world: &World, kind: &str, text: &str) -> PathBuf {
    let file = std::env::temp_dir().join(format!("pg_mask-{}-{kind}", world.name));
    fs::write(&file, text).unwrap();
    file
}

/// Returns a loader without a key of its own.
fn keyless(world: &World) -> Loader {
    world.loader().without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY")
}

/// Returns a loader that gets its credentials from `sts`, and the token file that it presents.
pub(crate) fn with_web_identity(world: &World, sts: &Proxy) -> (Loader, PathBuf) {
    let token = file(world, "token", TOKEN);
    let loader = keyless(world)
        .env("AWS_ENDPOINT_URL_STS", &sts.url)
        .env("AWS_ROLE_ARN", ROLE)
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap());
    (loader, token)
}

#[tokio::test]
async fn a_web_identity_becomes_a_role() {
    World::run(async |world| {
        // `--endpoint-url` applies to SQS alone, so STS gets an endpoint of its own.
        let (sts, sqs) = (Proxy::start().await, Proxy::start().await);
        world.queue.send(&[event(1)]).await;
        let (loader, token) = with_web_identity(world, &sts);
        let loader = loader.without("AWS_ENDPOINT_URL").options(&format!("--endpoint-url {}", sqs.url));
        let ended = loader.until_empty(&world.queue).await.expect(0);
        fs::remove_file(&token).unwrap();
        assert_eq!(ended.summary(), Summary::stored(1));
        assert!(!ended.output().contains(TOKEN), "the token is in the output");

        let asked: Vec<_> = sts.signatures().into_iter().map(|call| (call.operation, call.key)).collect();
        // The token alone authenticates this call, so it isn't signed.
        assert_eq!(asked, [("AssumeRoleWithWebIdentity".to_owned(), String::new())]);
        let calls = sqs.signatures();
        assert!(calls.iter().any(|call| call.operation == "DeleteMessageBatch"), "{calls:?}");
        // Temporary keys begin with ASIA.
        assert!(calls.iter().all(|call| call.key.starts_with("ASIA")), "{calls:?}");
    })
    .await;
}

#[tokio::test]
async fn the_expiry_of_credentials_is_shown() {
    World::run(async |world| {
        let sts = Proxy::start().await;
        let (loader, token) = with_web_identity(world, &sts);
        let loader = loader.options("--metrics-address 127.0.0.1:0").start();
        let address = loader.metrics_address().await;
        let name = "pg_mask_loader_credentials_expire_timestamp_seconds";
        // The value is 0 for credentials that don't expire.
        eventually("the metric", async || {
            let metrics = Metrics::of(&address).await;
            metrics.labels(name).is_some() && metrics.sum(name, &[]) > 0.0
        })
        .await;
        let left = Metrics::of(&address).await.sum(name, &[]) - UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        // The default is an hour, and a role may set up to 12 hours.
        assert!((60.0..=43_200.0).contains(&left), "{left} s");
        loader.stop().await.expect(0);
        fs::remove_file(&token).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_web_identity_that_is_refused_is_said_without_its_token() {
    World::run(async |world| {
        let sts = Proxy::start().await;
        sts.deny("AssumeRoleWithWebIdentity");
        let token = file(world, "token", TOKEN);
        let loader = || keyless(world).env("AWS_ENDPOINT_URL_STS", &sts.url).env("AWS_ROLE_ARN", ROLE);
        let refused =
            loader().env("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()).end().await.expect(3);
        fs::remove_file(&token).unwrap();
        assert!(!refused.output().contains(TOKEN), "the token is in the output");
        refused.says(&["no AWS credentials", "AccessDenied"]);
        let missing =
            loader().env("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()).end().await.expect(3);
        missing.says(&["no AWS credentials", token.to_str().unwrap()]);
    })
    .await;
}

#[tokio::test]
async fn a_profile_names_region_and_role() {
    World::run(async |world| {
        let proxy = Proxy::start().await;
        let config = file(world, "config", "");
        let keys = "[base]\naws_access_key_id = BASE\naws_secret_access_key = hidden-secret\n";
        let credentials = file(world, "credentials", keys);
        let loader_in = |region: &str| {
            let profile = "[profile logins]\nsource_profile = base\n";
            fs::write(&config, format!("{profile}role_arn = {ROLE}\nregion = {region}\n")).unwrap();
            keyless(world)
                .through(&proxy)
                .without("AWS_REGION")
                .env("AWS_PROFILE", "logins")
                .env("AWS_CONFIG_FILE", config.to_str().unwrap())
                .env("AWS_SHARED_CREDENTIALS_FILE", credentials.to_str().unwrap())
        };
        world.queue.send(&[event(1)]).await;
        let elsewhere = loader_in("eu-west-1").end().await.expect(3);
        let ended = loader_in(&setting("AWS_REGION")).until_empty(&world.queue).await.expect(0);
        for file in [&config, &credentials] {
            fs::remove_file(file).unwrap();
        }
        // Each region has its own queues.
        assert!(!elsewhere.says(&["there is no queue"]).output().contains("hidden-secret"));
        assert_eq!(ended.summary(), Summary::stored(1));
        assert!(!ended.output().contains("hidden-secret"), "the secret is in the output");

        let (assumed, calls): (Vec<_>, Vec<_>) =
            proxy.signatures().into_iter().partition(|call| call.operation == "AssumeRole");
        assert!(!assumed.is_empty() && assumed.iter().all(|call| call.key == "BASE"), "{assumed:?}");
        assert!(calls.iter().all(|call| call.key.starts_with("ASIA")), "{calls:?}");
        let in_region = |call: &str, region: &str| {
            calls.iter().any(|made| made.operation == call && made.region == region)
        };
        assert!(in_region("GetQueueUrl", "eu-west-1"), "{calls:?}");
        assert!(in_region("DeleteMessageBatch", &setting("AWS_REGION")), "{calls:?}");
    })
    .await;
}

#[tokio::test]
async fn a_role_is_assumed_for_sqs() {
    World::run(async |world| {
        let proxy = Proxy::start().await;
        world.queue.send(&[event(1)]).await;
        let loader = || {
            let loader = world.loader().through(&proxy).env("AWS_ACCESS_KEY_ID", "BASE");
            loader.env("LOADER_ASSUME_ROLE_ARN", ROLE).options("--external-id partner-7")
        };
        let ended = loader().until_empty(&world.queue).await.expect(0);
        assert_eq!(ended.summary(), Summary::stored(1));
        let (assumed, calls): (Vec<_>, Vec<_>) =
            proxy.signatures().into_iter().partition(|call| call.operation == "AssumeRole");
        assert!(!assumed.is_empty() && assumed.iter().all(|call| call.key == "BASE"), "{assumed:?}");
        assert!(calls.iter().all(|call| call.key.starts_with("ASIA")), "{calls:?}");
        assert!(calls.iter().any(|call| call.operation == "DeleteMessageBatch"), "{calls:?}");
        assert_eq!(proxy.external_ids().into_iter().collect::<Vec<_>>(), ["partner-7"]);

        proxy.deny("AssumeRole");
        loader().end().await.expect(3).says(&["no AWS credentials for the role", ROLE, "trust policy"]);
        loader().without("LOADER_ASSUME_ROLE_ARN").end().await.expect(2).says(&["needs --assume-role-arn"]);
    })
    .await;
}

/// A credentials file that another program writes and a loader reads.
struct KeyFile(PathBuf);

impl KeyFile {
    fn with(world: &World, kind: &str, key: &str) -> Self {
        let file = Self(file(world, kind, ""));
        file.write(key);
        file
    }

    fn write(&self, key: &str) {
        let text = format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n");
        fs::write(&self.0, text).unwrap();
    }

    fn loader(&self, world: &World, stub: &Server) -> Loader {
        let file = self.0.to_str().unwrap();
        keyless(world).at(&stub.url()).env("AWS_SHARED_CREDENTIALS_FILE", file)
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.0);
    }
}

/// Returns faults that refuse calls signed with the key `OLD`.
fn refuse_old_key(key_error: KeyError) -> Faults {
    Faults { expired_keys: vec!["OLD".into()], key_error, ..Faults::default() }
}

#[tokio::test]
async fn expired_credentials_are_loaded_again() {
    World::run(async |world| {
        let stub = Server::start(sqs_stub::Options::default()).unwrap();
        let file = KeyFile::with(world, "credentials", "OLD");
        stub.fill(&world.name, 50, event);
        let loader = file.loader(world, &stub).start();
        eventually("the first messages", async || stub.counters().deleted == 50).await;
        // Another program has written a new key, and the old key is no longer valid.
        stub.set_faults(refuse_old_key(KeyError::ExpiredToken));
        file.write("NEW");
        stub.fill(&world.name, 50, |n| event(100 + n));
        eventually("the others", async || stub.counters().deleted == 100).await;
        let ended = loader.stop().await.expect(0).says(&["ExpiredToken", "loaded again"]);
        assert!(!ended.output().contains("secret"));
        assert_eq!(ended.summary(), Summary::stored(100));
    })
    .await;
}

#[tokio::test]
async fn a_credentials_file_that_is_empty_during_renewal_stops_nothing() {
    World::run(async |world| {
        let stub = Server::start(sqs_stub::Options::default()).unwrap();
        let file = KeyFile::with(world, "credentials", "OLD");
        stub.fill(&world.name, 50, event);
        let loader = file.loader(world, &stub).start();
        eventually("the first messages", async || stub.counters().deleted == 50).await;
        fs::write(&file.0, "").unwrap();
        stub.set_faults(refuse_old_key(KeyError::ExpiredToken));
        eventually("a look at the empty file", async || loader.said().contains("not loaded again")).await;
        let looked = Instant::now();
        file.write("NEW");
        stub.fill(&world.name, 50, |n| event(100 + n));
        eventually("the others", async || stub.counters().deleted == 100).await;
        // Each call is refused meanwhile. The loader loads credentials at most once in ten seconds.
        assert!(looked.elapsed() > Duration::from_secs(9), "{:?}", looked.elapsed());
        assert_eq!(loader.stop().await.expect(0).summary(), Summary::stored(100));
    })
    .await;
}

#[tokio::test]
async fn no_refusal_of_a_key_stops_a_loader_that_has_worked() {
    World::run(async |world| {
        let errors =
            [KeyError::InvalidClientTokenId, KeyError::SignatureDoesNotMatch, KeyError::AccessDenied];
        join_all(errors.map(async |error| {
            let code = format!("{error:?}");
            let stub = Server::start(sqs_stub::Options::default()).unwrap();
            let file = KeyFile::with(world, &code, "OLD");
            stub.fill(&world.name, 1, event);
            let loader = file.loader(world, &stub).start();
            eventually("the first message", async || stub.counters().deleted == 1).await;
            stub.set_faults(refuse_old_key(error));
            eventually("a refusal", async || loader.said().contains(&code)).await;
            // A refusal is final at the start of a loader and for a drain.
            stub.fill(&world.name, 1, event);
            file.loader(world, &stub).end().await.expect(3).says(&[&code]);
            file.loader(world, &stub).options("--drain").end().await.expect(3).says(&[&code]);
            file.write("NEW");
            eventually("the other message", async || stub.counters().deleted == 2).await;
            assert_eq!(loader.stop().await.expect(0).summary(), Summary::stored(2), "{code}");
        }))
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_drain_ends_when_its_key_is_refused() {
    World::run(async |world| {
        let stub = Server::start(sqs_stub::Options::default()).unwrap();
        let file = KeyFile::with(world, "credentials", "OLD");
        let lock = world.lock_logins().await;
        stub.fill(&world.name, 10, event);
        let loader = file.loader(world, &stub).options("--drain").start();
        world.backends_in_copy(1).await;
        stub.set_faults(refuse_old_key(KeyError::InvalidClientTokenId));
        eventually("a refusal", async || stub.counters().faults["expired_key"] > 0).await;
        lock.batch_execute("COMMIT").await.unwrap();
        loader.end().await.expect(3).says(&["InvalidClientTokenId"]);
    })
    .await;
}
