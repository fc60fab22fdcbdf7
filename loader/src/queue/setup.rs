//! From configuration to queues that are known to be there.

use std::sync::Arc;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::ProvideCredentials;
use aws_sdk_sqs::types::QueueAttributeName;

use super::attributes::Attributes;
use super::failure::innermost;
use super::service::{Service, settings};
use super::{Depth, Failure, Queue, Queues};
use crate::config::Config;
use crate::error::Error;
use crate::finding::Finding;

/// What the name of a FIFO queue ends with, in this spelling.
const FIFO: &str = ".fifo";

impl Queue {
    /// Finds the queues, and makes sure that each can be reached with these credentials. Returns what is in them, too.
    /// What is found about them goes to `findings`.
    pub(crate) async fn open_all(
        config: &Config,
        findings: &mut Vec<Finding>,
    ) -> Result<(Queues, Depth), Error> {
        let endpoint = endpoint(config)?;
        let settings = settings(endpoint.as_deref()).await;
        let Some(region) = settings.region() else {
            let text = "no AWS region: set AWS_REGION, or --endpoint-url for an SQS server that is not AWS's";
            findings.push(Finding::failed("aws.region", text));
            return Err(Error::Config(text.into()));
        };
        let place = match &endpoint {
            Some(endpoint) => format!("at {endpoint}"),
            None => format!("in region {region}"),
        };
        let credentials = match settings.credentials_provider() {
            Some(provider) => provider.provide_credentials().await.map(drop).map_err(|e| innermost(&e)),
            None => Err("there is no provider".to_owned()),
        };
        if let Err(reason) = credentials {
            let error = no_credentials(&reason);
            findings.push(Finding::failed("aws.credentials", error.to_string()));
            return Err(error);
        }
        findings.push(Finding::ok("aws.credentials", format!("credentials for the service {place}")));
        let service = Arc::new(Service::new(&settings, endpoint, config.receive_timeout()));
        let names = if config.queue_url.is_empty() { &config.queue } else { &config.queue_url };
        let mut queues: Vec<Self> = Vec::new();
        let mut sum = Depth::default();
        for (number, name) in names.iter().enumerate() {
            let queue = Self::open(config, &service, number, name).await;
            let queue = queue.map_err(|failure| explain(&failure, name, &place))?;
            let (attributes, depth) =
                queue.examine().await.map_err(|failure| explain(&failure, name, &place))?;
            depth.show(&queue.name);
            findings.extend(attributes);
            sum = sum + depth;
            queues.push(queue);
        }
        Ok((queues.into(), sum))
    }

    async fn open(
        config: &Config,
        service: &Arc<Service>,
        number: usize,
        name: &str,
    ) -> Result<Self, Failure> {
        let client = service.client();
        let url = if config.queue_url.is_empty() { queue_url(&client, name).await? } else { name.to_owned() };
        let name: Arc<str> = url.rsplit('/').next().unwrap_or(&url).into();
        Ok(Self {
            service: Arc::clone(service),
            number,
            // SQS insists on this name.
            fifo: name.ends_with(FIFO),
            name,
            url: url.into(),
            wait: config.wait().into(),
            visibility: config.visibility(),
        })
    }

    /// Looks at how the queue is set up, and at what is in it.
    async fn examine(&self) -> Result<(Vec<Finding>, Depth), Failure> {
        let call = self.service.client().get_queue_attributes().queue_url(&*self.url);
        let call = call.attribute_names(QueueAttributeName::All);
        let answer = self.checked("GetQueueAttributes", call.send().await).await?;
        let attributes = Attributes(answer.attributes.unwrap_or_default());
        let depth = attributes.depth();
        let reached = format!(
            "queue {}: {} messages visible, {} hidden, {} delayed",
            self.name, depth.visible, depth.hidden, depth.delayed
        );
        let findings = vec![
            Finding::ok("queue.reachable", reached),
            attributes.visibility(&self.name, self.visibility.as_secs()),
            attributes.redrive_policy(&self.name),
            attributes.retention(&self.name),
            attributes.encryption(&self.name),
        ];
        Ok((findings, depth))
    }
}

/// The service that the queues are of: they have to be of one.
fn endpoint(config: &Config) -> Result<Option<String>, Error> {
    if config.endpoint_url.is_some() {
        return Ok(config.endpoint_url.clone());
    }
    let mut endpoints = config.queue_url.iter().map(|url| endpoint_of(url));
    let first = endpoints.next().flatten();
    if endpoints.any(|endpoint| endpoint != first) {
        return Err(Error::Config("--queue-url: the queues are of different services".into()));
    }
    Ok(first)
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
    // The SDK does not say which file it did not find.
    let token = std::env::var("AWS_WEB_IDENTITY_TOKEN_FILE");
    let token =
        token.map_or_else(|_| String::new(), |file| format!("; AWS_WEB_IDENTITY_TOKEN_FILE is {file}"));
    Error::Queue(format!(
        "no AWS credentials ({reason}{token}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or \
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
