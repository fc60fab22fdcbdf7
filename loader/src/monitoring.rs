//! What a machine can watch of a run: metrics for Prometheus, whether the process lives, whether it can work.
//!
//! Off unless `--metrics-address` is given: then no recorder is there, and what `stats` counts costs next to nothing
//! more than its own atomics.

mod catalog;
mod http;
mod readiness;

use std::sync::Arc;
use std::time::Duration;

use metrics::{Gauge, gauge};
use metrics_exporter_prometheus::PrometheusHandle;
use metrics_process::Collector;
use tokio::net::TcpListener;
use tokio::time::interval;
use tracing::info;

pub(crate) use catalog::name;
pub(crate) use readiness::{Pulse, Readiness};

use crate::error::Error;

/// How often samples of histograms are put into their buckets: until then they wait in memory, eight bytes each.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// What is shown of a run.
struct Monitor {
    recorder: PrometheusHandle,
    process: Collector,
    readiness: Arc<Readiness>,
    ready: Gauge,
}

/// Listens at `address`, and answers there for as long as the process lives. To be called before anything is counted:
/// counters made before it show nothing.
pub(crate) async fn start(address: &str, readiness: Arc<Readiness>) -> Result<(), Error> {
    let refuse = |error: &dyn std::fmt::Display| {
        Error::Config(format!(
            "--metrics-address {address} cannot be listened at ({error}): is another process there, or is it no address \
             of this machine?"
        ))
    };
    let listener = TcpListener::bind(address).await.map_err(|e| refuse(&e))?;
    let local = listener.local_addr().map_err(|e| refuse(&e))?;
    let recorder = catalog::install()?;
    gauge!(name::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1);
    let process = Collector::default();
    process.describe();
    let monitor = Monitor { recorder: recorder.clone(), process, readiness, ready: gauge!(name::READY) };
    tokio::spawn(http::listen(listener, Arc::new(monitor)));
    tokio::spawn(async move {
        let mut tick = interval(UPKEEP_EVERY);
        loop {
            tick.tick().await;
            recorder.run_upkeep();
        }
    });
    info!("metrics at http://{local}/metrics");
    Ok(())
}

impl Monitor {
    /// All metrics, in Prometheus's text format.
    fn metrics(&self) -> String {
        // These are as they are now, and not counted as they change.
        self.process.collect();
        self.ready.set(u8::from(self.readiness.look().is_ready()));
        self.recorder.render()
    }
}
