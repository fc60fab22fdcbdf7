//! The SQS service: clients with time limits, and new credentials when the old ones expire.

use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, UNIX_EPOCH};

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::future::ProvideCredentials as ProvidedCredentials;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::config::retry::RetryConfig;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::config::{ProvideCredentials, SharedCredentialsProvider, StalledStreamProtectionConfig};
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use metrics::gauge;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use super::address::Address;
use super::connector;
use super::{Queue, SqsError};
use crate::error::innermost;
use crate::telemetry::metrics::name;
use crate::telemetry::readiness::LastAnswer;

/// Maximum time for one attempt of a call other than receive.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);
/// Maximum time without progress in the answer to a receive call.
const STALL: Duration = Duration::from_secs(5);
/// Minimum time between two renewals of credentials. Up to half of it is added at random, so that loaders that failed
/// together don't renew together.
const RENEW_EVERY: Duration = Duration::from_secs(10);

/// Session name for an assumed role, which `CloudTrail` shows.
const SESSION: &str = "pg_mask-loader";

/// A role to assume.
#[derive(Clone)]
pub(crate) struct Role {
    pub(crate) arn: String,
    pub(crate) external_id: Option<String>,
}

/// Settings that clients are made from, besides AWS's standard chain.
pub(super) struct Access {
    /// Region to sign for. `None` means the chain's region.
    pub(super) region: Option<String>,
    /// Endpoint of the service. `None` means the public endpoint of the region.
    pub(super) endpoint: Option<String>,
    pub(super) role: Option<Role>,
    /// Maximum time until the answer to a receive call begins.
    pub(super) receive_timeout: Duration,
    /// Maximum time for a receive call with its whole answer. After that, the leases of its messages have ended.
    pub(super) visibility: Duration,
}

/// Reason why there are no clients.
pub(super) enum NoAccess {
    Region,
    Credentials(String),
}

/// Clients and credentials for one region and endpoint, shared by the queues there. The SDK renews credentials that say
/// when they expire. Others, such as a profile's that another program rewrites, are loaded again here once SQS refuses
/// them.
pub(crate) struct Service {
    access: Access,
    clients: RwLock<Clients>,
    /// Earliest time of the next renewal of credentials. Locked during a renewal.
    renewal_due: Mutex<Instant>,
    /// Time of the last successful call, with any queue of the run.
    pub(super) pulse: Arc<LastAnswer>,
}

/// Two clients with different time limits. Overriding the limits of one call would make a client each time.
struct Clients {
    receiving: Client,
    other: Client,
    region: String,
}

impl Service {
    /// Loads the region and the credentials.
    pub(super) async fn open(access: Access, pulse: Arc<LastAnswer>) -> Result<Self, NoAccess> {
        let clients = RwLock::new(access.connect().await?);
        Ok(Self { access, clients, renewal_due: Mutex::new(Instant::now()), pulse })
    }

    /// Whether it is the service for a queue.
    pub(super) fn serves(&self, address: &Address) -> bool {
        (&self.access.region, &self.access.endpoint) == (&address.region, &address.endpoint)
    }

    /// Returns its location, for messages.
    pub(super) fn place(&self) -> String {
        match &self.access.endpoint {
            Some(endpoint) => format!("at {endpoint}"),
            None => format!("in region {}", self.region()),
        }
    }

    /// Returns the region that calls are signed for.
    pub(super) fn region(&self) -> String {
        self.clients.read().unwrap_or_else(PoisonError::into_inner).region.clone()
    }

    /// Returns the client for receive calls.
    pub(super) fn receiving(&self) -> Client {
        self.clients.read().unwrap_or_else(PoisonError::into_inner).receiving.clone()
    }

    /// Returns the client for all other calls.
    pub(super) fn client(&self) -> Client {
        self.clients.read().unwrap_or_else(PoisonError::into_inner).other.clone()
    }

    /// Loads the region and the credentials again, with the whole chain. The old ones stay in use until new ones are
    /// there: a file that another program rewrites is empty for a moment.
    async fn renew(&self) {
        // Another renewal runs. A call that fails meanwhile is retried in any case.
        let Ok(mut due) = self.renewal_due.try_lock() else { return };
        if Instant::now() < *due {
            return;
        }
        match self.access.connect().await {
            Ok(clients) => {
                *self.clients.write().unwrap_or_else(PoisonError::into_inner) = clients;
                info!("AWS credentials loaded again");
            }
            Err(reason) => warn!(%reason, "AWS credentials not loaded again, the old ones stay in use"),
        }
        *due = Instant::now() + RENEW_EVERY.mul_f64(1.0 + fastrand::f64() / 2.0);
    }
}

impl Access {
    /// Makes clients, if there are a region and credentials.
    async fn connect(&self) -> Result<Clients, NoAccess> {
        let mut settings = self.settings().await;
        let region = settings.region().ok_or(NoAccess::Region)?.to_string();
        if let Some(role) = &self.role {
            let provider = AssumeRoleProvider::builder(&role.arn).session_name(SESSION).configure(&settings);
            let provider = match &role.external_id {
                Some(id) => provider.external_id(id),
                None => provider,
            };
            let provider = SharedCredentialsProvider::new(provider.build().await);
            settings = settings.into_builder().credentials_provider(provider).build();
        }
        let Some(provider) = settings.credentials_provider() else {
            return Err(NoAccess::Credentials("there is no provider".to_owned()));
        };
        let provider = SharedCredentialsProvider::new(ExpiryShown(provider));
        provider.provide_credentials().await.map_err(|e| NoAccess::Credentials(innermost(&e)))?;
        let settings = settings.into_builder().credentials_provider(provider).build();
        Ok(self.clients(&settings, region))
    }

    /// Loads the region and the credentials with AWS's standard chain.
    async fn settings(&self) -> SdkConfig {
        let settings = aws_config::defaults(BehaviorVersion::v2026_01_12());
        let settings = match (&self.region, &self.endpoint) {
            (Some(region), _) => settings.region(Region::new(region.clone())),
            // A self-hosted server ignores the region. Asking the instance metadata for one would only take time.
            (None, Some(_)) => settings.region(
                RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
                    .or_else(ProfileFileRegionProvider::new())
                    .or_else("us-east-1"),
            ),
            (None, None) => settings,
        };
        settings.load().await
    }

    fn clients(&self, settings: &SdkConfig, region: String) -> Clients {
        let settings_with = |timeouts: TimeoutConfig, stalls, retries| {
            let mut settings = aws_sdk_sqs::config::Builder::from(settings)
                .timeout_config(timeouts)
                .stalled_stream_protection(stalls)
                .retry_config(retries);
            if let Some(endpoint) = &self.endpoint {
                // Only for SQS: the services that credentials come from are elsewhere. A FIPS or dual-stack endpoint is
                // given as a URL here, and the SDK refuses to choose one in addition.
                settings.set_endpoint_url(Some(endpoint.clone()));
                settings.set_use_fips(Some(false)).set_use_dual_stack(Some(false));
            }
            settings
        };
        // Ten messages of 1 MiB take long on a slow link. SQS has hidden them by then, so an answer that has begun is
        // read while it makes progress.
        let receiving = TimeoutConfig::builder()
            .read_timeout(self.receive_timeout)
            .operation_attempt_timeout(self.visibility.max(self.receive_timeout))
            .build();
        let progress = StalledStreamProtectionConfig::enabled().upload_enabled(false).grace_period(STALL);
        // A retry inside the SDK would show nowhere, and each one hides up to ten more messages.
        let receiving = settings_with(receiving, progress.build(), RetryConfig::disabled())
            .http_client(connector::client());
        // Answers to all other calls are small, so watching their progress would only cost.
        let other = TimeoutConfig::builder().operation_attempt_timeout(CALL_TIMEOUT).build();
        let retries = settings.retry_config().cloned().unwrap_or_else(RetryConfig::standard);
        let other = settings_with(other, StalledStreamProtectionConfig::disabled(), retries);
        let [receiving, other] = [receiving, other].map(|settings| Client::from_conf(settings.build()));
        Clients { receiving, other, region }
    }
}

/// A source of credentials, with a metric of when its last ones expire.
#[derive(Debug)]
struct ExpiryShown(SharedCredentialsProvider);

impl ProvideCredentials for ExpiryShown {
    fn provide_credentials<'a>(&'a self) -> ProvidedCredentials<'a>
    where
        Self: 'a,
    {
        ProvidedCredentials::new(async {
            let credentials = self.0.provide_credentials().await?;
            let expiry = credentials.expiry().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            gauge!(name::CREDENTIALS_EXPIRE).set(expiry.map_or(0.0, |at| at.as_secs_f64()));
            Ok(credentials)
        })
    }
}

impl fmt::Display for NoAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Region => f.write_str("no AWS region"),
            Self::Credentials(reason) => f.write_str(reason),
        }
    }
}

impl Queue {
    /// Returns the answer to a call. If it fails because of credentials, they are loaded again before the next try.
    pub(super) async fn checked<T, E: ProvideErrorMetadata + StdError + 'static>(
        &self,
        call: &'static str,
        answer: Result<T, SdkError<E, HttpResponse>>,
    ) -> Result<T, SqsError> {
        match answer {
            Ok(answer) => {
                self.service.pulse.beat();
                self.worked.note(call);
                Ok(answer)
            }
            Err(error) => {
                let failure = SqsError::of(call, &error);
                if failure.is_about_credentials() {
                    self.service.renew().await;
                }
                Err(failure.after_success(self.is_service && self.worked.has(call)))
            }
        }
    }

    /// Returns a queue that no call is made to.
    #[cfg(test)]
    pub(super) fn of_a_test() -> Self {
        let settings = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::from_static("us-east-1"))
            .build();
        let second = Duration::from_secs(1);
        let access =
            Access { region: None, endpoint: None, role: None, receive_timeout: second, visibility: second };
        let clients = RwLock::new(access.clients(&settings, "us-east-1".to_owned()));
        let renewal_due = Mutex::new(Instant::now());
        let service = Arc::new(Service { access, clients, renewal_due, pulse: Arc::default() });
        Self {
            service,
            number: 0,
            name: "q".into(),
            url: "http://q".into(),
            wait: 0,
            visibility: second * 60,
            fifo: false,
            is_service: true,
            worked: Arc::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use aws_sdk_sqs::config::interceptors::BeforeTransmitInterceptorContextRef as Request;
    use aws_sdk_sqs::config::{ConfigBag, Credentials, Intercept, RuntimeComponents};
    use aws_sdk_sqs::error::BoxError;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Catches a request instead of sending it: its URI and the credential that signs it.
    #[derive(Clone, Debug, Default)]
    struct Catch(Arc<Mutex<(String, String)>>);

    impl Intercept for Catch {
        fn name(&self) -> &'static str {
            "Catch"
        }

        fn read_before_transmit(
            &self,
            context: &Request<'_>,
            _: &RuntimeComponents,
            _: &mut ConfigBag,
        ) -> Result<(), BoxError> {
            let request = context.request();
            let signature = request.headers().get("authorization").unwrap_or_default().to_owned();
            *self.0.lock().unwrap() = (request.uri().to_owned(), signature);
            Err("caught".into())
        }
    }

    #[tokio::test]
    async fn a_call_goes_where_its_queue_url_says() {
        for (host, sent_to, region) in [
            ("sqs.eu-west-1.amazonaws.com", None, "eu-west-1"),
            ("queue.amazonaws.com", Some("sqs.us-east-1.amazonaws.com"), "us-east-1"),
            ("sqs.cn-north-1.amazonaws.com.cn", None, "cn-north-1"),
            ("sqs-fips.us-east-2.amazonaws.com", None, "us-east-2"),
            ("sqs.eu-west-1.api.aws", None, "eu-west-1"),
            ("vpce-0a1b.sqs.eu-west-1.vpce.amazonaws.com", None, "eu-west-1"),
            ("localhost:9324", None, "ap-south-1"),
        ] {
            let address = Address::of_url(&format!("https://{host}/123456789012/q"));
            let region_of_chain = "ap-south-1".to_owned();
            let signed_for = address.region.clone().unwrap_or(region_of_chain);
            let settings = SdkConfig::builder()
                .behavior_version(BehaviorVersion::v2026_01_12())
                .region(Region::new(signed_for.clone()))
                .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
                    "K", "s", None, None, "t",
                )))
                .build();
            let Address { region: of_url, endpoint, url, .. } = address;
            let access =
                Access { region: of_url, endpoint, role: None, receive_timeout: SECOND, visibility: SECOND };
            let clients = access.clients(&settings, signed_for);
            for client in [clients.receiving, clients.other] {
                let catch = Catch::default();
                let call = client.receive_message().set_queue_url(url.clone());
                _ = call.customize().interceptor(catch.clone()).send().await;
                let (uri, signature) = catch.0.lock().unwrap().clone();
                assert_eq!(uri, format!("https://{}/", sent_to.unwrap_or(host)));
                assert!(signature.contains(&format!("/{region}/sqs/")), "{host}: {signature}");
            }
        }
    }
}
