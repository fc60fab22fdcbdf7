//! Monitoring of a run: metrics for Prometheus, whether the process lives, and whether it can work.
//!
//! Off unless `--metrics-address` is given. Without it there is no recorder, and `stats` counts in atomics alone.

mod catalog;
mod html;
mod http;
mod page;

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, counter, gauge};
use metrics_exporter_prometheus::PrometheusHandle;
use metrics_process::Collector;
use tokio::net::TcpListener;
use tokio::time::interval;
use tracing::info;

pub(crate) use catalog::name;
pub(crate) use page::About;

use crate::error::Error;
use crate::telemetry::log::Backlog;
use crate::telemetry::readiness::Readiness;
use crate::telemetry::stats::Stats;

/// Interval at which samples of histograms are put into their buckets. Until then they wait in memory, eight bytes
/// each.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Data that is shown about a run.
pub(crate) struct Monitor {
    recorder: PrometheusHandle,
    process: Collector,
    readiness: Arc<Readiness>,
    ready: Gauge,
    log: Backlog,
    log_dropped: Counter,
    started: Instant,
    /// Set when the run begins.
    run: OnceLock<(Arc<Stats>, About)>,
}

/// Listens at `address`, and answers there as long as the process lives. Must be called before anything is counted,
/// because earlier counters show nothing.
pub(crate) async fn start(
    address: &str,
    readiness: Arc<Readiness>,
    log: Backlog,
) -> Result<Arc<Monitor>, Error> {
    let refuse = |error: io::Error| {
        let text = format!(
            "--metrics-address {address} cannot be listened at ({error}). Choose a free port and an address of this \
             machine"
        );
        // The previous process may still hold the port, and at boot an address may appear late.
        if error.kind() == io::ErrorKind::PermissionDenied {
            Error::Config(text)
        } else {
            Error::Machine(text)
        }
    };
    let listener = TcpListener::bind(address).await.map_err(refuse)?;
    let local = listener.local_addr().map_err(refuse)?;
    let recorder = catalog::install()?;
    gauge!(name::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1);
    let process = Collector::default();
    process.describe();
    let monitor = Arc::new(Monitor {
        recorder: recorder.clone(),
        process,
        readiness,
        ready: gauge!(name::READY),
        log,
        log_dropped: counter!(name::LOG_DROPPED),
        started: Instant::now(),
        run: OnceLock::new(),
    });
    tokio::spawn(http::listen(listener, Arc::clone(&monitor)));
    tokio::spawn(async move {
        let mut tick = interval(UPKEEP_EVERY);
        loop {
            tick.tick().await;
            recorder.run_upkeep();
        }
    });
    info!("metrics at http://{local}/metrics, status at http://{local}/");
    Ok(monitor)
}

impl Monitor {
    /// Begins the run: from now on the status page has something to show.
    pub(crate) fn begin(&self, stats: Arc<Stats>, about: About) {
        // Called only once.
        _ = self.run.set((stats, about));
    }

    /// Returns the status page.
    fn page(&self) -> String {
        let run = self.run.get().map(|(stats, about)| (&**stats, about));
        page::page(&self.readiness.state(), run, self.started.elapsed(), self.log.dropped())
    }

    /// Returns all metrics, in Prometheus's text format.
    fn metrics(&self) -> String {
        // These are read now, because they aren't counted as they change.
        self.process.collect();
        self.log_dropped.absolute(self.log.dropped());
        self.ready.set(u8::from(self.readiness.state().is_ready()));
        self.recorder.render()
    }
}
