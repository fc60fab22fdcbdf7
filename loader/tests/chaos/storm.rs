//! A run: loaders at work, incoming messages, and one fault after another.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::check;
use crate::common::PgBouncer;
use crate::database::Database;
use crate::form::Form;
use crate::load::{QUEUE, Queues};
use crate::loaders::{self, Ends, Logs, Place, Setup};
use crate::plan::{Fault, Side, Step, steps};
use crate::proxy::{Order, Proxy, Weather};
use crate::report::Report;

/// Maximum time to wait for something that is bound to happen, on however slow a machine.
const PATIENCE: Duration = Duration::from_mins(3);
/// Text that a loader logs when the disk is full.
const DISK_FULL: &str = "SQLSTATE 53100";
/// Maximum time that a network fault waits for a connection to hit.
const HIT_WITHIN: Duration = Duration::from_secs(2);
/// Time without credentials.
const NO_CREDENTIALS: Duration = Duration::from_secs(4);

/// State of a run.
struct Storm {
    form: Form,
    logs: PathBuf,
    database: Database,
    queues: Arc<Queues>,
    /// Proxies in the order of `Side::ALL`.
    proxies: [Proxy; 3],
    /// Places of the stub's loader, of the real server's loader, and part of the time of a second loader at the stub. The
    /// second one reaches `PostgreSQL` through `PgBouncer`.
    places: Vec<Place>,
    /// Place of another loader at the stub. Nobody reads its log.
    unread: Place,
    /// Port of the unread loader's metrics.
    unread_at: u16,
    bouncer: PgBouncer,
    /// Number of access keys that the loaders have had.
    keys: usize,
    /// Whether a loader has met a full disk.
    met_full_disk: bool,
    /// Number of `places` with a loader that hasn't been told to stop.
    at_work: usize,
    /// Numbers of: kill -9 of all of `PostgreSQL`, kill -9 of a backend, restarts, full disks, lost credentials, failovers.
    done: [usize; 6],
}

/// Runs a form with a seed, reports the faults and checks the results.
pub(crate) async fn run(form: Form, seed: u64, logs: PathBuf) {
    let start = Instant::now();
    let plan = steps(&form, seed);
    let mut storm = Storm::make(form, seed, logs).await;
    storm.rage(&plan).await;
    storm.calm();

    let session = storm.database.session().await;
    check::until_empty(&storm.queues, &session, || storm.has_failed()).await;
    let dropped_lines = loaders::dropped_lines(storm.unread_at).await;
    let mut ends = Ends::default();
    storm.places.push(storm.unread);
    for place in storm.places {
        let Ends { killed, not_started, stopped } = place.end().await;
        ends.killed += killed;
        ends.not_started += not_started;
        ends.stopped += stopped;
    }
    let report = Report {
        form: &storm.form,
        seed,
        time: start.elapsed(),
        ends,
        database: &storm.database,
        proxies: &storm.proxies,
        stub: storm.queues.stub.counters(),
        logs: Logs::read(&storm.logs),
        dropped_lines,
        met_full_disk: storm.met_full_disk,
        done: storm.done,
    };
    crate::say(&report.table());
    check::each_stored_once(&storm.queues, &session, storm.form.of_stub + storm.form.of_sqs).await;
    report.assert_all_was_done();
}

impl Storm {
    async fn make(form: Form, seed: u64, logs: PathBuf) -> Self {
        let mut database = Database::start(Some(form.disk_mib), logs.clone()).await;
        if form.has_standby {
            database.start_standby().await;
        }
        loaders::set_credentials(&logs, Some(&key(0)));
        let endpoint = database.servers.setting("AWS_ENDPOINT_URL").to_owned();
        let queues = Queues::make(&endpoint, seed).await;
        let proxies = [
            Proxy::start_before_url(&queues.stub.url()).await,
            Proxy::start_before_url(&endpoint).await,
            Proxy::start(database.port()).await,
        ];
        let port = proxies[Side::Postgres as usize].port;
        let setup = |name, side: Side, unread_at| Setup {
            name,
            queue: QUEUE,
            endpoint: proxies[side as usize].url(),
            database: database.url_by(port),
            logs: logs.clone(),
            unread_at,
        };
        let unread_at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let places = [setup("stub", Side::Stub, None), setup("sqs", Side::Sqs, None)];
        let unread = setup("unread", Side::Stub, Some(unread_at));
        Self {
            bouncer: database.bouncer(port).await,
            places: places.map(Place::start).into(),
            unread: Place::start(unread),
            unread_at,
            keys: 1,
            met_full_disk: false,
            form,
            logs,
            database,
            queues: Arc::new(queues),
            proxies,
            at_work: 2,
            done: [0; 6],
        }
    }

    /// Starts a second loader at the stub, behind `PgBouncer`.
    fn second(&self) -> Place {
        Place::start(Setup {
            name: "second",
            queue: QUEUE,
            endpoint: self.proxy(Side::Stub).url(),
            database: self.database.url_by(self.bouncer.port),
            logs: self.logs.clone(),
            unread_at: None,
        })
    }

    fn has_failed(&self) -> bool {
        self.places.iter().chain([&self.unread]).any(Place::has_failed)
    }

    fn proxy(&self, side: Side) -> &Proxy {
        &self.proxies[side as usize]
    }

    /// Makes one fault after another while messages come in.
    async fn rage(&mut self, plan: &[Step]) {
        self.queues.set_faults(true);
        // One portion of messages per step. Portions that arrive more slowly than the faults hold the faults up.
        let (portions, mut wanted) = mpsc::channel(1);
        let (queues, form) = (Arc::clone(&self.queues), self.form.clone());
        let parts = plan.len();
        let feeding = tokio::spawn(async move {
            while let Some(part) = wanted.recv().await {
                queues.feed(&form, part, parts).await;
            }
        });
        let mut fed = 0;
        for (number, step) in plan.iter().enumerate() {
            // A second loader at the stub's queue runs for half of the steps.
            if number == parts / 4 {
                self.places.push(self.second());
                self.at_work = 3;
            }
            if number == parts * 3 / 4 {
                self.places[2].stop();
                self.at_work = 2;
            }
            if fed <= number {
                portions.send(fed).await.unwrap();
                fed += 1;
            }
            sleep(step.pause).await;
            if self.form.is_long {
                crate::say(&format!("{}/{parts}: {}", number + 1, step.fault));
            }
            if step.fault == Fault::FillDisk {
                self.fill_disk(&portions, &mut fed, parts).await;
            } else {
                self.make_fault(step.fault).await;
            }
            if self.has_failed() {
                // The place's result says why.
                break;
            }
        }
        drop(portions);
        feeding.await.unwrap();
    }

    async fn make_fault(&mut self, fault: Fault) {
        match fault {
            Fault::KillLoader(number) => {
                self.places[number % self.at_work].kill().await;
            }
            Fault::KillPostgres => {
                self.database.kill().await;
                self.done[0] += 1;
            }
            Fault::KillBackend => {
                let deadline = Instant::now() + PATIENCE;
                while !self.database.kill_backend().await {
                    assert!(Instant::now() < deadline, "no loader has connected to PostgreSQL");
                    sleep(Duration::from_millis(20)).await;
                }
                self.done[1] += 1;
            }
            Fault::RestartPostgres => {
                self.database.restart().await;
                self.done[2] += 1;
            }
            // `rage` does: it has the messages that this takes.
            Fault::FillDisk => {}
            Fault::LoseCredentials => self.lose_credentials().await,
            Fault::Promote => {
                self.database.promote();
                self.done[5] += 1;
            }
            Fault::Cut(side, order) => {
                // Connections come and go, and some are idle at the moment, so the order is repeated until it hits one.
                let proxy = self.proxy(side);
                let (before, deadline) = (proxy.made().by(order), Instant::now() + HIT_WITHIN);
                while proxy.made().by(order) == before && Instant::now() < deadline {
                    proxy.order(order);
                    sleep(Duration::from_millis(50)).await;
                }
            }
            Fault::Slow(side, time) => {
                self.proxy(side).set_weather(Weather::Slow);
                sleep(time).await;
                self.proxy(side).set_weather(Weather::Fair);
            }
            Fault::Stall(side, time, is_reset) => {
                self.proxy(side).set_weather(Weather::Stalled);
                sleep(time).await;
                if is_reset {
                    self.proxy(side).order(Order::Reset);
                }
                self.proxy(side).set_weather(Weather::Fair);
            }
        }
    }

    /// Fills the disk until a loader has met that. The messages of one portion can fit into pages that the table has. So
    /// portions of later steps come in early.
    async fn fill_disk(&mut self, portions: &mpsc::Sender<usize>, fed: &mut usize, parts: usize) {
        let Some(disk) = &self.database.disk else { return };
        let met = async || {
            loaders::count_in_logs(&self.logs, DISK_FULL) + loaders::full_disks(self.unread_at).await
        };
        let before = met().await;
        disk.fill();
        let deadline = Instant::now() + PATIENCE;
        let mut is_met = false;
        while !is_met && Instant::now() < deadline && !self.has_failed() {
            sleep(Duration::from_millis(200)).await;
            is_met = met().await > before;
            if !is_met && *fed < parts && portions.try_send(*fed).is_ok() {
                *fed += 1;
            }
        }
        self.met_full_disk |= is_met;
        sleep(Duration::from_secs(1)).await;
        disk.empty();
        self.done[3] += 1;
    }

    /// Imitates a program that empties the credentials file before it writes renewed credentials.
    async fn lose_credentials(&mut self) {
        loaders::set_credentials(&self.logs, None);
        self.queues.refuse_key(key(self.keys - 1));
        sleep(NO_CREDENTIALS).await;
        loaders::set_credentials(&self.logs, Some(&key(self.keys)));
        self.keys += 1;
        self.done[4] += 1;
    }

    /// Ends all faults.
    fn calm(&self) {
        self.queues.set_faults(false);
        for proxy in &self.proxies {
            proxy.set_weather(Weather::Fair);
        }
    }
}

/// Returns the access key number `number` that the loaders use.
fn key(number: usize) -> String {
    format!("chaos{number}")
}

/// Returns an empty folder for the loaders' logs. It stays after the test.
pub(crate) fn folder_for_logs(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}
