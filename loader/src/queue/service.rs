//! The SQS service: clients with time limits, and what is done when their credentials expire.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::StalledStreamProtectionConfig;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::info;

use super::{Failure, Queue};
use crate::monitoring::Pulse;

/// How long one attempt of a call other than receive may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);
/// Credentials are loaded anew at most this often: where they are expired wherever they come from, that does not help.
const RENEW_EVERY: Duration = Duration::from_secs(2);

/// What all queues of a run share. The SDK renews credentials that say when they expire. Those that do not, such as a
/// profile's that another program writes anew, are loaded again here once SQS says that they are expired.
pub(crate) struct Service {
    endpoint: Option<String>,
    receive_timeout: Duration,
    clients: RwLock<Clients>,
    renewed: Mutex<Instant>,
    /// Of calls that succeed.
    pub(super) pulse: Arc<Pulse>,
}

/// The same client but for their time limits. Two, since an override of one call's would be made anew each time.
struct Clients {
    receiving: Client,
    other: Client,
}

impl Service {
    /// Uses what `settings` has found.
    pub(super) fn new(settings: &SdkConfig, endpoint: Option<String>, receive_timeout: Duration) -> Self {
        let clients = RwLock::new(Clients::new(settings, endpoint.as_deref(), receive_timeout));
        Self {
            endpoint,
            receive_timeout,
            clients,
            renewed: Mutex::new(Instant::now()),
            pulse: Arc::default(),
        }
    }

    /// The client for receive calls.
    pub(super) fn receiving(&self) -> Client {
        self.clients.read().unwrap_or_else(PoisonError::into_inner).receiving.clone()
    }

    /// The client for all other calls.
    pub(super) fn client(&self) -> Client {
        self.clients.read().unwrap_or_else(PoisonError::into_inner).other.clone()
    }

    /// Loads credentials anew, by the whole chain.
    async fn renew(&self) {
        let mut renewed = self.renewed.lock().await;
        if renewed.elapsed() < RENEW_EVERY {
            return;
        }
        let settings = settings(self.endpoint.as_deref()).await;
        let clients = Clients::new(&settings, self.endpoint.as_deref(), self.receive_timeout);
        *self.clients.write().unwrap_or_else(PoisonError::into_inner) = clients;
        *renewed = Instant::now();
        info!("the AWS credentials have expired; they are loaded anew");
    }
}

impl Clients {
    fn new(settings: &SdkConfig, endpoint: Option<&str>, receive_timeout: Duration) -> Self {
        let client = |attempt| {
            let timeouts = TimeoutConfig::builder().operation_attempt_timeout(attempt).build();
            let mut settings = aws_sdk_sqs::config::Builder::from(settings)
                .timeout_config(timeouts)
                // Attempts are limited as a whole, and answers are small: watching how each flows in only costs.
                .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
            if let Some(endpoint) = endpoint {
                // For SQS alone: the services that credentials come from are elsewhere.
                settings.set_endpoint_url(Some(endpoint.to_owned()));
            }
            Client::from_conf(settings.build())
        };
        Self { receiving: client(receive_timeout), other: client(CALL_TIMEOUT) }
    }
}

/// Region and credentials by AWS's standard chain.
pub(super) async fn settings(endpoint: Option<&str>) -> SdkConfig {
    let mut settings = aws_config::defaults(BehaviorVersion::v2026_01_12());
    if endpoint.is_some() {
        // A server of one's own does not care. Asking the instance metadata for a region would only take
        // time.
        let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new())
            .or_else("us-east-1");
        settings = settings.region(region);
    }
    settings.load().await
}

impl Queue {
    /// The answer to a call. Where its credentials have expired, whoever tries again has new ones.
    pub(super) async fn checked<T, E: ProvideErrorMetadata>(
        &self,
        call: &'static str,
        answer: Result<T, SdkError<E, HttpResponse>>,
    ) -> Result<T, Failure> {
        match answer {
            Ok(answer) => {
                self.service.pulse.beat();
                Ok(answer)
            }
            Err(error) => {
                let failure = Failure::of(call, &error);
                if failure.is_expired() {
                    self.service.renew().await;
                }
                Err(failure)
            }
        }
    }

    /// A queue that no call is made to.
    #[cfg(test)]
    pub(super) fn of_a_test() -> Self {
        let settings = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(aws_config::Region::from_static("us-east-1"))
            .build();
        let second = Duration::from_secs(1);
        let service = Arc::new(Service::new(&settings, None, second));
        Self {
            service,
            number: 0,
            name: "q".into(),
            url: "http://q".into(),
            wait: 0,
            visibility: second * 60,
            fifo: false,
        }
    }
}
