//! From configuration to a queue that is known to be there.

use aws_config::BehaviorVersion;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::ProvideCredentials;
use aws_sdk_sqs::config::timeout::TimeoutConfig;

use super::failure::innermost;
use super::{CALL_TIMEOUT, Depth, Failure, Queue};
use crate::config::Config;
use crate::error::Error;

impl Queue {
    /// Finds the queue, and makes sure that it can be reached with these credentials. Returns what is in it,
    /// too.
    pub(crate) async fn open(config: &Config) -> Result<(Self, Depth), Error> {
        let endpoint =
            config.endpoint_url.clone().or_else(|| config.queue_url.as_deref().and_then(endpoint_of));
        let mut settings = aws_config::defaults(BehaviorVersion::v2026_01_12());
        if endpoint.is_some() {
            // A server of one's own does not care. Asking the instance metadata for a region would only take
            // time.
            let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
                .or_else(ProfileFileRegionProvider::new())
                .or_else("us-east-1");
            settings = settings.region(region);
        }
        let settings = settings.load().await;
        let Some(region) = settings.region() else {
            return Err(Error::Config(
                "no AWS region: set AWS_REGION, or --endpoint-url for an SQS server that is not AWS's".into(),
            ));
        };
        let place = match &endpoint {
            Some(endpoint) => format!("at {endpoint}"),
            None => format!("in region {region}"),
        };
        match settings.credentials_provider() {
            Some(provider) => {
                provider.provide_credentials().await.map_err(|e| no_credentials(&innermost(&e)))?
            }
            None => return Err(no_credentials("there is no provider")),
        };
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(CALL_TIMEOUT).build();
        let mut settings = aws_sdk_sqs::config::Builder::from(&settings).timeout_config(timeouts);
        if endpoint.is_some() {
            // For SQS alone: the services that credentials come from are elsewhere.
            settings.set_endpoint_url(endpoint);
        }
        let client = Client::from_conf(settings.build());

        let url = match &config.queue_url {
            Some(url) => url.clone(),
            None => {
                queue_url(&client, &config.queue).await.map_err(|f| explain(&f, &config.queue, &place))?
            }
        };
        let queue = Self {
            client,
            url,
            wait: config.wait().into(),
            visibility: config.visibility.into(),
            receive_timeout: config.receive_timeout(),
        };
        let depth = queue.depth().await.map_err(|f| explain(&f, &queue.url, &place))?;
        Ok((queue, depth))
    }
}

async fn queue_url(client: &Client, name: &str) -> Result<String, Failure> {
    let answer =
        client.get_queue_url().queue_name(name).send().await.map_err(|e| Failure::of("GetQueueUrl", &e))?;
    answer
        .queue_url
        .ok_or_else(|| Failure::internal("GetQueueUrl", &std::io::Error::other("SQS names no URL")))
}

/// The service that a queue URL belongs to, unless it is AWS itself, whose endpoints the SDK knows. The SDK
/// would send a request for `http://localhost:9324/000000000000/login-queue` to AWS.
fn endpoint_of(queue_url: &str) -> Option<String> {
    let (scheme, rest) = queue_url.split_once("://")?;
    let host = rest.split('/').next()?;
    let name = host.split(':').next()?;
    let aws = ["amazonaws.com", "amazonaws.com.cn", "api.aws"].iter().any(|suffix| name.ends_with(suffix));
    (!aws).then(|| format!("{scheme}://{host}"))
}

fn no_credentials(reason: &str) -> Error {
    Error::Queue(format!(
        "no AWS credentials ({reason}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or \
         run under a role (an SQS server that is not AWS's takes any, such as test and test)"
    ))
}

fn explain(failure: &Failure, queue: &str, place: &str) -> Error {
    Error::Queue(if failure.is_no_queue() {
        format!(
            "there is no queue {queue} {place}: create it, or name another one with --queue or --queue-url"
        )
    } else if failure.is_answer() {
        failure.to_string()
    } else {
        format!(
            "the service {place} cannot be reached ({failure}): is the endpoint right, and the service up?"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_url_outside_aws_names_its_endpoint() {
        assert_eq!(
            endpoint_of("http://localhost:9324/000000000000/q").as_deref(),
            Some("http://localhost:9324")
        );
        assert_eq!(endpoint_of("https://sqs.eu-west-1.amazonaws.com/123456789012/q"), None);
        assert_eq!(endpoint_of("https://sqs.cn-north-1.amazonaws.com.cn/123456789012/q"), None);
        assert_eq!(endpoint_of("https://sqs.eu-west-1.api.aws/123456789012/q"), None);
    }
}
