//! No key in a core dump of a backend. A crash writes the dump, which then reaches people and places that shouldn't have
//! keys.
//!
//! This test has a server of its own, so that the postmaster can read the ring before there are backends.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tokio::process::Command;
use tokio_postgres::Client;

use crate::common::{OwnServers, Ring, SCHEMA, Traces, files_holding, run};

#[tokio::test]
async fn no_key_in_a_core_dump() {
    let (first, second) = ("first.json", "second.json");
    let command = format!("pg_mask.keyring_command=test -s {first} || {}; cat {first}", Ring::making(first));
    let servers = OwnServers::start(
        "core-dump",
        &["shared_preload_libraries=pg_mask", &command, "pg_mask.scheme=aes-siv", "shared_buffers=16MB"],
    );
    let session = servers.connect().await;
    for file in SCHEMA {
        session.batch_execute(file).await.unwrap();
    }
    drop(session);

    // Backends inherit this ring: they couldn't read it any more.
    let ring = Ring::read(servers.data(), first);
    fs::remove_file(&ring.path).unwrap();
    let keys = ring.traces_in_memory();
    look_into_a_backend(&servers, &keys).await;
    // Now a ring that backends read themselves, in place of the other.
    run(&servers.connect().await, &Ring::making(second)).await;
    Ring::configure(second, async || servers.connect().await).await;
    let keys = keys.and(Ring::read(servers.data(), second).traces_in_memory());
    look_into_a_backend(&servers, &keys).await;
}

async fn look_into_a_backend(servers: &OwnServers, keys: &Traces) {
    let session = servers.connect().await;
    let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    // The backend assembles the marker, so its own memory holds it. The text of a statement is in shared memory too.
    let marker = format!("marker{:016x}", fastrand::u64(..));
    let reversed: String = marker.chars().rev().collect();
    let set = format!("SELECT set_config('test.marker', reverse('{reversed}'), false)");
    session.batch_execute(&set).await.unwrap();

    let traces = keys.clone().and(Traces::of_text(&marker));
    let dump = async |options: &[&str]| {
        let core = core_dump(pid, &servers.state, options).await;
        let found = files_holding(&core, &traces);
        fs::remove_file(&core).unwrap();
        let mut found: BTreeSet<_> = found.holding.into_iter().map(|(_, form)| form).collect();
        assert!(found.remove("text"), "this is not the backend's memory");
        found
    };
    let found = dump(&[]).await;
    assert!(found.is_empty(), "before it uses a key, it holds {found:?}");
    use_the_ring(&session).await;
    let found = dump(&[]).await;
    assert!(found.is_empty(), "after masking and unmasking, it holds {found:?}");
    // An error leaves the code on another path.
    session.batch_execute("SELECT unmask_pii('$siv$k$' || repeat('A', 100))").await.unwrap_err();
    let found = dump(&[]).await;
    assert!(found.is_empty(), "after an error, it holds {found:?}");
    // Memory that is left out of dumps is found if it isn't left out. With the processor's AES instructions, round keys are
    // in memory as the standard defines them, and the first ones are the key.
    let found = dump(&["-a"]).await;
    assert!(
        found.contains("key") && found.contains("round key"),
        "of all its memory, {found:?} hold the key"
    );
}

/// Masks and unmasks in all ways, with short and long values.
async fn use_the_ring(session: &Client) {
    let statements = "
        TRUNCATE user_logins, login_rejects;
        INSERT INTO login_inbox (body)
        SELECT format('{\"user_id\": \"u\", \"ip\": \"10.0.0.%s\", \"device_id\": \"%s\"}', n, repeat('d', n % 150))
        FROM generate_series(1, 1000) AS n;
        INSERT INTO login_inbox (body) VALUES ('broken');
        SELECT count(unmask_pii(masked_ip)), count(unmask_pii(masked_device_id)) FROM user_logins;
        SELECT count(unmask_pii(masked_body)), count(remask_pii(masked_body)) FROM login_rejects;
        SELECT length(unmask_pii(mask_pii(repeat('x', 10000)))), mask_pii_all('x'), remask_pii('eA==')";
    session.batch_execute(statements).await.unwrap();
}

/// Makes gdb write a core dump of a process. Like the kernel, gdb leaves out memory that is excluded from dumps.
async fn core_dump(pid: i32, folder: &Path, options: &[&str]) -> PathBuf {
    let prefix = folder.join("core");
    let mut command = Command::new("gcore");
    command.args(options).arg("-o").arg(&prefix).arg(pid.to_string()).kill_on_drop(true);
    let output = command.output().await.expect("gcore, which dev/install tests installs with gdb");
    let core = prefix.with_extension(pid.to_string());
    assert!(
        output.status.success() && core.exists(),
        "gcore makes no core dump (it takes root, or kernel.yama.ptrace_scope=0): {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    core
}
