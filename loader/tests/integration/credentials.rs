//! Where AWS credentials come from: the SDK's chain, with each of its ends asked for what it is there for.

use std::fs;
use std::path::PathBuf;

use sqs_stub::{Faults, Server};

use crate::common::{Loader, Proxy, Summary, World, event, eventually, setting};

/// A web identity's token, which nothing may show.
const TOKEN: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJsb2FkZXIifQ.c2lnbmF0dXJl";
const ROLE: &str = "arn:aws:iam::000000000000:role/loader";

/// A file for one test.
fn file(world: &World, kind: &str, text: &str) -> PathBuf {
    let file = std::env::temp_dir().join(format!("pg_mask-{}-{kind}", world.name));
    fs::write(&file, text).unwrap();
    file
}

/// A loader that has no key of its own.
fn keyless(world: &World) -> Loader {
    world.loader().without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY")
}

#[tokio::test]
async fn a_web_identity_becomes_a_role() {
    World::run(async |world| {
        // As --endpoint-url is for SQS alone, STS is asked elsewhere.
        let (sts, sqs) = (Proxy::start().await, Proxy::start().await);
        let token = file(world, "token", TOKEN);
        world.queue.send(&[event(1)]).await;
        let loader = keyless(world)
            .without("AWS_ENDPOINT_URL")
            .env("AWS_ENDPOINT_URL_STS", &sts.url)
            .env("AWS_ROLE_ARN", ROLE)
            .env("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap())
            .options(&format!("--endpoint-url {}", sqs.url));
        let ended = loader.until_empty(&world.queue).await.expect(0);
        fs::remove_file(&token).unwrap();
        assert_eq!(ended.summary(), Summary::stored(1));
        assert!(!ended.output().contains(TOKEN), "the token is in the output");

        let asked: Vec<_> = sts.signatures().into_iter().map(|call| (call.operation, call.key)).collect();
        // The token is all that this call is trusted for.
        assert_eq!(asked, [("AssumeRoleWithWebIdentity".to_owned(), String::new())]);
        let calls = sqs.signatures();
        assert!(calls.iter().any(|call| call.operation == "DeleteMessageBatch"), "{calls:?}");
        // Temporary keys begin with this.
        assert!(calls.iter().all(|call| call.key.starts_with("ASIA")), "{calls:?}");
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
        // Each region has queues of its own.
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
async fn expired_credentials_are_loaded_anew() {
    World::run(async |world| {
        let stub = Server::start(sqs_stub::Options::default()).unwrap();
        let file = std::env::temp_dir().join(format!("pg_mask-{}-credentials", world.name));
        let write = |key: &str| {
            let text = format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n");
            fs::write(&file, text).unwrap();
        };
        write("OLD");
        stub.fill(&world.name, 50, event);
        let loader =
            keyless(world).at(&stub.url()).env("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap()).start();
        eventually("the first messages", async || stub.counters().deleted == 50).await;
        // Another program has written new ones, and the old ones are worth nothing any more.
        stub.set_faults(Faults { expired_keys: vec!["OLD".into()], ..Faults::default() });
        write("NEW");
        stub.fill(&world.name, 50, |n| event(100 + n));
        eventually("the others", async || stub.counters().deleted == 100).await;
        fs::remove_file(&file).unwrap();
        let ended = loader.stop().await.expect(0).says(&["ExpiredToken", "loaded anew"]);
        assert!(!ended.output().contains("secret"));
        assert_eq!(ended.summary(), Summary::stored(100));
    })
    .await;
}
