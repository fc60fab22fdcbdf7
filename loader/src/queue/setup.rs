//! From configuration to queues that are known to be there.

use std::sync::Arc;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::ProvideCredentials;
use aws_sdk_sqs::types::QueueAttributeName;
use tracing::warn;

use super::failure::innermost;
use super::service::{Service, settings};
use super::{Depth, Failure, Queue, Queues};
use crate::config::Config;
use crate::error::Error;

/// What the name of a FIFO queue ends with, in this spelling.
const FIFO: &str = ".fifo";

impl Queue {
    /// Finds the queues, and makes sure that each can be reached with these credentials and is set up so that nothing
    /// is lost. Returns what is in them, too.
    pub(crate) async fn open_all(config: &Config) -> Result<(Queues, Depth), Error> {
        let endpoint = endpoint(config)?;
        let settings = settings(endpoint.as_deref()).await;
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
        let service = Arc::new(Service::new(&settings, endpoint, config.receive_timeout()));
        let names = if config.queue_url.is_empty() { &config.queue } else { &config.queue_url };
        let mut queues: Vec<Self> = Vec::new();
        for (number, name) in names.iter().enumerate() {
            let queue = Self::open(config, &service, number, name).await;
            queues.push(queue.map_err(|failure| explain(&failure, name, &place))?);
        }
        let depth = Depth::of(&queues).await?;
        Ok((queues.into(), depth))
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
        let queue = Self {
            service: Arc::clone(service),
            number,
            // SQS insists on this name.
            fifo: name.ends_with(FIFO),
            name,
            url: url.into(),
            wait: config.wait().into(),
            visibility: config.visibility(),
        };
        queue.examine().await?;
        Ok(queue)
    }

    /// Warns of what is set up so that it will surprise somebody.
    async fn examine(&self) -> Result<(), Failure> {
        use QueueAttributeName::{RedrivePolicy, VisibilityTimeout};
        let call = self.service.client().get_queue_attributes().queue_url(&*self.url);
        let call = call.set_attribute_names(Some(vec![RedrivePolicy, VisibilityTimeout]));
        let answer = self.checked("GetQueueAttributes", call.send().await).await?;
        let attributes = answer.attributes.unwrap_or_default();
        let (queue, seconds) = (&*self.name, self.visibility.as_secs());
        let own = attributes.get(&VisibilityTimeout).and_then(|n| n.parse::<u64>().ok());
        if let Some(own) = own.filter(|own| *own > seconds) {
            warn!(
                queue,
                "the queue's own visibility timeout is {own} s, and this loader hides messages for {seconds} s \
                 at a time, from when it receives them until their delete is confirmed: set --visibility to the \
                 same, unless that is meant"
            );
        }
        if attributes.get(&RedrivePolicy).is_none_or(String::is_empty) {
            warn!(
                queue,
                "the queue has no redrive policy: a message that the database can neither store nor reject would \
                 come back until its retention ends. Give the queue a dead-letter queue"
            );
        }
        Ok(())
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
