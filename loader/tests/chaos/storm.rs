//! A run: loaders at work, messages that come in, and one fault after the other.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::check;
use crate::database::Database;
use crate::form::Form;
use crate::load::{QUEUE, Queues};
use crate::loaders::{self, Ends, Logs, Place, Setup};
use crate::plan::{Fault, Side, Step, steps};
use crate::proxy::{Order, Proxy, Weather};
use crate::report::Report;

/// How long something is waited for that is bound to happen, on a machine however slow.
const PATIENCE: Duration = Duration::from_mins(3);
/// What a loader says of a full disk.
const DISK_FULL: &str = "SQLSTATE 53100";
/// How long a fault of the network waits for a connection that it can hit.
const HIT_WITHIN: Duration = Duration::from_secs(2);

/// What a run is made of.
struct Storm {
    form: Form,
    logs: PathBuf,
    database: Database,
    queues: Arc<Queues>,
    /// In the order of `Side::ALL`.
    proxies: [Proxy; 3],
    /// Of the stub's loader, the real server's, and a second one at the stub for part of the time.
    places: Vec<Place>,
    /// How many of the places have a loader that is not told to stop.
    at_work: usize,
    /// kill -9 of all of Postgres, of a backend, restarts, disk full.
    done: [usize; 4],
}

/// Runs it all and reports what was done.
pub(crate) async fn run(form: Form, seed: u64, logs: PathBuf) {
    let start = Instant::now();
    let plan = steps(&form, seed);
    let mut storm = Storm::make(form, seed, logs).await;
    storm.rage(&plan).await;
    storm.calm();

    let session = storm.database.session().await;
    let places = &storm.places;
    check::until_empty(&storm.queues, &session, || places.iter().any(Place::has_failed)).await;
    let mut ends = Ends::default();
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
        done: storm.done,
    };
    crate::say(&report.table());
    check::each_stored_once(&storm.queues, &session, storm.form.of_stub + storm.form.of_sqs).await;
    report.assert_all_was_done();
}

impl Storm {
    async fn make(form: Form, seed: u64, logs: PathBuf) -> Self {
        let database = Database::start(Some(form.disk_mib), logs.clone()).await;
        let endpoint = database.servers.setting("AWS_ENDPOINT_URL").to_owned();
        let queues = Queues::make(&endpoint, seed).await;
        let proxies = [
            Proxy::start_before_url(&queues.stub.url()).await,
            Proxy::start_before_url(&endpoint).await,
            Proxy::start(database.port()).await,
        ];
        let mut storm = Self {
            form,
            logs,
            database,
            queues: Arc::new(queues),
            proxies,
            places: Vec::new(),
            at_work: 2,
            done: [0; 4],
        };
        storm.places = vec![storm.place("stub", Side::Stub), storm.place("sqs", Side::Sqs)];
        storm
    }

    fn place(&self, name: &'static str, side: Side) -> Place {
        let setup = Setup {
            name,
            queue: QUEUE,
            endpoint: self.proxy(side).url(),
            database: self.database.url_by(self.proxy(Side::Postgres).port),
            logs: self.logs.clone(),
        };
        Place::start(setup)
    }

    fn proxy(&self, side: Side) -> &Proxy {
        &self.proxies[side as usize]
    }

    /// Makes one fault after the other while messages come in.
    async fn rage(&mut self, plan: &[Step]) {
        self.queues.set_faults(true);
        // A portion of messages for each step. One that comes in slower than the faults holds these up.
        let (portions, mut wanted) = mpsc::channel(1);
        let (queues, form) = (Arc::clone(&self.queues), self.form.clone());
        let parts = plan.len();
        let feeding = tokio::spawn(async move {
            while let Some(part) = wanted.recv().await {
                queues.feed(&form, part, parts).await;
            }
        });
        for (number, step) in plan.iter().enumerate() {
            // For half of the time there is a second loader at the stub's queue.
            if number == parts / 4 {
                self.places.push(self.place("second", Side::Stub));
                self.at_work = 3;
            }
            if number == parts * 3 / 4 {
                self.places[2].stop();
                self.at_work = 2;
            }
            portions.send(number).await.unwrap();
            sleep(step.pause).await;
            if self.form.is_long {
                crate::say(&format!("{}/{parts}: {}", number + 1, step.fault));
            }
            self.make_fault(step.fault).await;
            if self.places.iter().any(Place::has_failed) {
                // Its end says why.
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
            Fault::FillDisk => self.fill_disk().await,
            Fault::Cut(side, order) => {
                // Connections come and go, and some have nothing to say at the moment.
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

    async fn fill_disk(&mut self) {
        let Some(disk) = &self.database.disk else { return };
        let met = || loaders::count_in_logs(&self.logs, DISK_FULL);
        let before = met();
        disk.fill();
        let deadline = Instant::now() + PATIENCE;
        while met() == before && Instant::now() < deadline && !self.places.iter().any(Place::has_failed) {
            sleep(Duration::from_millis(200)).await;
        }
        sleep(Duration::from_secs(1)).await;
        disk.empty();
        self.done[3] += 1;
    }

    /// Ends all faults.
    fn calm(&self) {
        self.queues.set_faults(false);
        for proxy in &self.proxies {
            proxy.set_weather(Weather::Fair);
        }
    }
}

/// An empty folder for the loaders' logs, which stays when the test has failed.
pub(crate) fn folder_for_logs(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}
