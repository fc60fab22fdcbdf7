//! A `PostgreSQL` with TLS that the TLS tests share. They take turns, because the server has one certificate at a time.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use rcgen::KeyPair;
use tokio::process::Command;
use tokio::sync::{Mutex, MutexGuard};
use tokio_postgres::Client;

use super::certificates::{Authority, self_signed};
use super::loader::Ended;
use super::{Loader, OwnServers, SCHEMA, event, eventually, postgres_program};

/// Password of all roles.
pub(crate) const PASSWORD: &str = "p:a\\ss'w%rd";

/// Rules for who is let in, and how. The role's name tells the rule.
const HBA: &str = "
hostnossl all tls_only all reject
hostssl   all tls_only all scram-sha-256
hostssl   all plain_only all reject
hostnossl all plain_only all scram-sha-256
hostssl   all by_certificate all cert
hostssl   all with_certificate all scram-sha-256 clientcert=verify-ca
host      all md5 all md5
";
const ROLES: [&str; 6] = ["either", "tls_only", "plain_only", "by_certificate", "with_certificate", "md5"];

/// The TLS server, and all certificates that it can present.
pub(crate) struct TlsServer {
    own: OwnServers,
    /// Folder for the clients' certificates and keys.
    folder: PathBuf,
}

/// A test's turn to use the server.
pub(crate) struct Turn {
    pub(crate) server: Arc<TlsServer>,
    /// An SQS server with an empty queue `q`.
    pub(crate) sqs: sqs_stub::Server,
    _mine: MutexGuard<'static, ()>,
}

impl Turn {
    /// Waits for the turn. The server lives as long as any test waits for it or uses it.
    pub(crate) async fn wait() -> Self {
        static SHARED: Mutex<Weak<TlsServer>> = Mutex::const_new(Weak::new());
        static TURN: Mutex<()> = Mutex::const_new(());
        let server = {
            let mut shared = SHARED.lock().await;
            if let Some(server) = shared.upgrade() {
                server
            } else {
                let server = Arc::new(TlsServer::start().await);
                *shared = Arc::downgrade(&server);
                server
            }
        };
        let turn = TURN.lock().await;
        let sqs = sqs_stub::Server::start(sqs_stub::Options::default()).unwrap();
        sqs.fill("q", 0, event);
        server.take_certificate("good").await;
        Self { server, sqs, _mine: turn }
    }

    /// Creates a loader for the empty queue that ends at once. It connects as `role`, with `variables`; an empty value
    /// unsets one.
    pub(crate) fn loader(&self, role: &str, variables: &[(&str, &str)]) -> Loader {
        self.server
            .variables(role)
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .chain(variables.iter().copied())
            .fold(
                Loader::at_queue("q").at(&self.sqs.url()).env("LOADER_WAIT", "0"),
                |loader, (name, value)| {
                    if value.is_empty() { loader.without(name) } else { loader.env(name, value) }
                },
            )
    }

    /// Runs a loader with `--dry-run`, as `role` with `variables`. Returns its end, and whether it was let in with TLS,
    /// without TLS, or not at all.
    pub(crate) async fn try_loader(&self, role: &str, variables: &[(&str, &str)]) -> (Ended, Outcome) {
        let name = unique();
        let ended = self.loader(role, variables).env("PGAPPNAME", &name).options("--dry-run").end().await;
        let outcome = self.server.outcome(&name);
        assert_eq!(ended.code == Some(0), outcome != Outcome::Refused, "{}", ended.output());
        (ended, outcome)
    }

    /// Runs psql as `role` with `variables`. Returns its standard error, and whether it was let in, and with TLS.
    pub(crate) async fn try_psql(&self, role: &str, variables: &[(&str, &str)]) -> (String, Outcome) {
        let name = unique();
        let mut psql = Command::new(postgres_program("psql"));
        psql.args(["--no-psqlrc", "--no-password", "--command", "SELECT 1"]).env_clear();
        for (key, value) in self.server.variables(role) {
            psql.env(key, value);
        }
        for (key, value) in variables {
            if value.is_empty() {
                psql.env_remove(key)
            } else {
                psql.env(key, value)
            };
        }
        let output = psql.env("PGAPPNAME", &name).output().await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let outcome = self.server.outcome(&name);
        assert_eq!(output.status.success(), outcome != Outcome::Refused, "{said}");
        (said, outcome)
    }
}

/// Outcome of a client's connection attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Refused,
    Plain,
    Tls,
}

impl TlsServer {
    async fn start() -> Self {
        let own = OwnServers::start("tls", &["log_connections=on"]);
        let folder = own.state.join("clients");
        fs::create_dir_all(folder.join("home")).unwrap();
        let server = Self { own, folder };
        server.make_certificates();
        let hba = server.own.data().join("pg_hba.conf");
        let text = fs::read_to_string(&hba).unwrap();
        fs::write(&hba, format!("{HBA}{text}")).unwrap();

        let session = server.session().await;
        for file in SCHEMA {
            session.batch_execute(file).await.unwrap();
        }
        for role in ROLES {
            let hash = if role == "md5" { "md5" } else { "scram-sha-256" };
            let role = format!(
                "SET password_encryption = '{hash}';
                 CREATE ROLE {role} LOGIN PASSWORD $word${PASSWORD}$word$ IN ROLE login_loader"
            );
            session.batch_execute(&role).await.unwrap();
        }
        for setting in ["ssl = on", "ssl_key_file = 'server.key'", "ssl_ca_file = 'ca.crt'"] {
            session.batch_execute(&format!("ALTER SYSTEM SET {setting}")).await.unwrap();
        }
        server.take_certificate("good").await;
        server
    }

    fn make_certificates(&self) {
        let (ca, other) = (Authority::new(), Authority::new());
        let (between, none) = (ca.intermediate(), Authority::that_is_none());
        let key = KeyPair::generate().unwrap();
        let data = self.own.data();
        let names = ["localhost", "db.example"];
        for (name, text) in [
            ("server.key", key.serialize_pem()),
            ("ca.crt", ca.certificate()),
            ("good.crt", ca.sign("server", &names, &key)),
            ("elsewhere.crt", ca.sign("server", &["elsewhere.example", "192.0.2.1"], &key)),
            ("address.crt", ca.sign("server", &["127.0.0.1"], &key)),
            ("common_name.crt", ca.sign("localhost", &[], &key)),
            ("expired.crt", ca.sign_for((2019, 2021), "server", &names, &key)),
            ("future.crt", ca.sign_for((3000, 3001), "server", &names, &key)),
            ("other_ca.crt", other.sign("server", &names, &key)),
            ("self_signed.crt", self_signed(&names, &key)),
            ("by_another.crt", between.sign("server", &names, &key) + &between.certificate()),
            ("by_none.crt", none.sign("server", &names, &key)),
        ] {
            let file = data.join(name);
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            // The server runs as the owner of its data directory.
            let owner = fs::metadata(data).unwrap();
            chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        fs::copy(data.join("self_signed.crt"), self.folder.join("self_signed.crt")).unwrap();
        let (client, stranger) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        self.file("ca.crt", &ca.certificate());
        self.file("other_ca.crt", &other.certificate());
        self.file("expired_ca.crt", &ca.expired_certificate());
        self.file("no_ca.crt", &none.certificate());
        let good = fs::read_to_string(data.join("good.crt")).unwrap();
        self.file("ca_and_server.crt", &(good.clone() + &ca.certificate()));
        self.file("server.crt", &good);
        self.file("both_cas.crt", &(ca.certificate() + &between.certificate()));
        let of_both = |serial| ca.revocations(serial) + &between.revocations(8);
        self.file("of_both_revoked.crl", &of_both(7));
        self.file("of_both.crl", &of_both(8));
        for (name, [first, second]) in [
            ("newer_last", [(2021, 8), (2022, 7)]),
            ("newer_first", [(2022, 7), (2021, 8)]),
            ("older", [(2021, 7), (2022, 8)]),
        ] {
            let list = |(year, serial)| ca.revocations_of(year, serial);
            self.file(&format!("{name}.crl"), &(list(first) + &list(second)));
        }
        self.file("revoked.crl", &ca.revocations(7));
        self.file("not_revoked.crl", &ca.revocations(8));
        self.file("client.key", &client.serialize_pem());
        self.file("client.crt", &ca.sign("by_certificate", &[], &client));
        self.file("stranger.key", &stranger.serialize_pem());
        self.file("stranger.crt", &other.sign("by_certificate", &[], &stranger));
    }

    /// Writes a client file that only its owner can read, and returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        self.path(name)
    }

    /// Returns the path of a client file.
    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    /// Makes the server present another certificate from now on.
    pub(crate) async fn take_certificate(&self, name: &str) {
        let session = self.session().await;
        let file = format!("{name}.crt");
        session.batch_execute(&format!("ALTER SYSTEM SET ssl_cert_file = '{file}'")).await.unwrap();
        session.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        // A later session shows the settings that the server has read by then.
        eventually("another certificate", async || {
            let row = self.session().await.query_one("SELECT current_setting('ssl_cert_file')", &[]).await;
            row.unwrap().get::<_, &str>(0) == file
        })
        .await;
    }

    /// Opens a superuser session.
    pub(crate) async fn session(&self) -> Client {
        self.own.connect().await
    }

    /// Returns the server's log.
    pub(crate) fn log(&self) -> String {
        let log = Path::new(self.own.setting("SERVERS_ROOT")).join("log/postgres.log");
        String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned()
    }

    /// Returns the server's port.
    pub(crate) fn port(&self) -> &str {
        self.own.setting("PGPORT")
    }

    /// Returns the variables that tell a client where the server is and how to log in.
    fn variables(&self, role: &str) -> Vec<(&'static str, String)> {
        let home = self.path("home");
        let variables = [
            ("HOME", &*home),
            ("PGHOST", "localhost"),
            ("PGHOSTADDR", "127.0.0.1"),
            ("PGPORT", self.port()),
            ("PGDATABASE", self.own.setting("PGDATABASE")),
            ("PGUSER", role),
            ("PGPASSWORD", PASSWORD),
        ];
        variables.map(|(name, value)| (name, value.to_owned())).to_vec()
    }

    /// Returns the outcome of the client with this name. The server logs a connection before it answers.
    fn outcome(&self, application_name: &str) -> Outcome {
        let log = self.log();
        let name = format!(" application_name={application_name}");
        match log.lines().find(|line| line.contains("connection authorized") && line.contains(&name)) {
            None => Outcome::Refused,
            Some(line) if line.contains("SSL enabled") => Outcome::Tls,
            Some(_) => Outcome::Plain,
        }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.folder);
    }
}

/// Returns a client name that hasn't been used before and isn't a prefix of another.
fn unique() -> String {
    static NAMES: AtomicU32 = AtomicU32::new(0);
    format!("client-{:06}", NAMES.fetch_add(1, Relaxed))
}
