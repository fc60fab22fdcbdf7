//! From configuration to queues that are known to be there.

use std::collections::HashSet;
use std::sync::Arc;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName;

use super::address::{Address, is_in_the_open, labels};
use super::attributes::Attributes;
use super::service::{Access, NoAccess, Role, Service};
use super::{Depth, Failure, Queue, Queues};
use crate::config::Config;
use crate::error::Error;
use crate::finding::Finding;
use crate::monitoring::Pulse;

/// What the name of a FIFO queue ends with, in this spelling.
const FIFO: &str = ".fifo";

impl Queue {
    /// Finds the queues, and makes sure that each can be reached with these credentials. Returns what is in them, too.
    /// What is found about them goes to `findings`.
    pub(crate) async fn open_all(
        config: &Config,
        findings: &mut Vec<Finding>,
    ) -> Result<(Queues, Depth), Error> {
        let mut addresses = config.addresses()?;
        findings.push(transport(config));
        let pulse: Arc<Pulse> = Arc::default();
        let mut services: Vec<Arc<Service>> = Vec::new();
        let mut queues: Vec<Self> = Vec::new();
        for address in &mut addresses {
            let service = if let Some(service) = services.iter().find(|service| service.serves(address)) {
                Arc::clone(service)
            } else {
                let service = Arc::new(open_service(config, address, &pulse, findings).await?);
                services.push(Arc::clone(&service));
                service
            };
            let queue = Self::open(config, &service, queues.len(), address).await;
            let queue = queue.map_err(|failure| explain(&failure, &address.name, &service.place()))?;
            address.region.get_or_insert_with(|| service.region());
            queues.push(queue);
        }
        refuse_twins(&addresses)?;
        for (queue, label) in queues.iter_mut().zip(labels(&addresses)) {
            queue.name = label.into();
        }
        let mut sum = Depth::default();
        for queue in &queues {
            let (attributes, depth) = queue.examine().await.map_err(|failure| queue.explain(&failure))?;
            depth.show(&queue.name);
            findings.extend(attributes);
            sum = sum + depth;
        }
        Ok((queues.into(), sum))
    }

    /// Asks for the URL where it is not given, and notes it in `address`.
    async fn open(
        config: &Config,
        service: &Arc<Service>,
        number: usize,
        address: &mut Address,
    ) -> Result<Self, Failure> {
        let url = match &address.url {
            Some(url) => url.clone(),
            None => queue_url(&service.client(), address).await?,
        };
        if address.account.is_none() {
            address.account = Address::of_url(&url).account;
        }
        address.url = Some(url.clone());
        Ok(Self {
            service: Arc::clone(service),
            number,
            // SQS insists on this name.
            fifo: address.name.ends_with(FIFO),
            name: address.name.as_str().into(),
            url: url.into(),
            wait: config.wait().into(),
            visibility: config.visibility(),
            is_service: !(config.drain || config.dry_run),
            worked: Arc::default(),
        })
    }

    /// Says what a failure of a call to the queue means for a start.
    pub(super) fn explain(&self, failure: &Failure) -> Error {
        explain(failure, &self.name, &self.service.place())
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

async fn open_service(
    config: &Config,
    address: &Address,
    pulse: &Arc<Pulse>,
    findings: &mut Vec<Finding>,
) -> Result<Service, Error> {
    let role = config.assume_role_arn.as_ref();
    let role = role.map(|arn| Role { arn: arn.clone(), external_id: config.external_id.clone() });
    let access = Access {
        region: address.region.clone(),
        endpoint: address.endpoint.clone(),
        role,
        receive_timeout: config.receive_timeout(),
        visibility: config.visibility(),
    };
    match Service::open(access, Arc::clone(pulse)).await {
        Ok(service) => {
            let text = format!("credentials for the service {}", service.place());
            findings.push(Finding::ok("aws.credentials", text));
            Ok(service)
        }
        Err(NoAccess::Region) => {
            let text = "no AWS region: set AWS_REGION, or --endpoint-url for an SQS server that is not AWS's";
            findings.push(Finding::failed("aws.region", text));
            // The instance metadata service may be slower than the loader at a boot.
            Err(Error::QueueAway(text.into()))
        }
        Err(NoAccess::Credentials(reason)) => {
            let error = no_credentials(config, &reason);
            findings.push(Finding::failed("aws.credentials", error.to_string()));
            Err(error)
        }
    }
}

/// Whether raw events can be read on their way from SQS.
fn transport(config: &Config) -> Finding {
    const ITEM: &str = "queue.transport";
    let urls = config.endpoint_url.iter().chain(&config.queue_url);
    if urls.into_iter().any(|url| is_in_the_open(url)) {
        return Finding::warning(
            ITEM,
            "an SQS endpoint begins with http:// and is on another machine. Raw events cross the network unencrypted. Use \
             https://",
        );
    }
    Finding::ok(ITEM, "calls to SQS are encrypted, or stay on this machine")
}

/// Refuses a queue that is named in two ways, by its name and by its ARN, say.
fn refuse_twins(addresses: &[Address]) -> Result<(), Error> {
    let mut seen = HashSet::new();
    for address in addresses {
        if !seen.insert((&address.url, &address.region, &address.endpoint)) {
            return Err(Error::Config(format!("the queue {} is named twice: name it once", address.name)));
        }
    }
    Ok(())
}

async fn queue_url(client: &Client, address: &Address) -> Result<String, Failure> {
    let call = client.get_queue_url().queue_name(&address.name);
    let call = call.set_queue_owner_aws_account_id(address.account.clone());
    let answer = call.send().await.map_err(|e| Failure::of("GetQueueUrl", &e))?;
    answer
        .queue_url
        .ok_or_else(|| Failure::internal("GetQueueUrl", &std::io::Error::other("SQS names no URL")))
}

fn no_credentials(config: &Config, reason: &str) -> Error {
    if let Some(role) = &config.assume_role_arn {
        return Error::QueueAway(format!(
            "no AWS credentials for the role {role} ({reason}): check --assume-role-arn and --external-id, the role's trust \
             policy, and the credentials that assume it"
        ));
    }
    // The SDK does not say which file it did not find.
    let token = std::env::var("AWS_WEB_IDENTITY_TOKEN_FILE");
    let token =
        token.map_or_else(|_| String::new(), |file| format!("; AWS_WEB_IDENTITY_TOKEN_FILE is {file}"));
    Error::QueueAway(format!(
        "no AWS credentials ({reason}{token}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or \
         run under a role (an SQS server that is not AWS's takes any, such as test and test)"
    ))
}

fn explain(failure: &Failure, queue: &str, place: &str) -> Error {
    if failure.is_no_queue() {
        Error::Queue(format!(
            "there is no queue {queue} {place}: create it, or name another one with --queue or --queue-url"
        ))
    } else if failure.is_final() {
        Error::Queue(failure.to_string())
    } else if failure.is_answer() {
        Error::QueueAway(failure.to_string())
    } else {
        Error::QueueAway(format!(
            "the service {place} cannot be reached ({failure}): is the endpoint right, and the service up?"
        ))
    }
}
