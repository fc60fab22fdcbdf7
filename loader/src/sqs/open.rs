//! Opens the queues in the configuration, and checks that they exist.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName;

use super::address::{Address, is_in_the_open, labels};
use super::attributes::Attributes;
use super::client::{Access, NoAccess, Role, Service};
use super::{Depth, Queue, Queues, SqsError};
use crate::check_item::CheckItem;
use crate::error::Error;
use crate::telemetry::readiness::LastAnswer;

/// Suffix in the name of a FIFO queue, in this spelling.
const FIFO: &str = ".fifo";

/// Queues to open, and settings for them.
pub(crate) struct QueueSettings {
    pub(crate) addresses: Vec<Address>,
    /// URLs that were given, for queues or for the service.
    pub(crate) urls: Vec<String>,
    /// Role to assume for SQS.
    pub(crate) role: Option<Role>,
    /// Seconds that a receive call waits for messages.
    pub(crate) wait: u16,
    /// Time for which SQS hides messages that it hands out.
    pub(crate) visibility: Duration,
    /// Maximum time until the answer to a receive call begins.
    pub(crate) receive_timeout: Duration,
    /// Whether the run goes on until it is stopped.
    pub(crate) is_service: bool,
}

impl Queue {
    /// Finds the queues, and checks that each can be reached with these credentials. Also returns the number of
    /// messages in them. The results of the checks go to `check_items`.
    pub(crate) async fn open_all(
        mut settings: QueueSettings,
        check_items: &mut Vec<CheckItem>,
    ) -> Result<(Queues, Depth), Error> {
        check_items.push(transport(&settings.urls));
        let mut addresses = std::mem::take(&mut settings.addresses);
        let pulse: Arc<LastAnswer> = Arc::default();
        let mut services: Vec<Arc<Service>> = Vec::new();
        let mut queues: Vec<Self> = Vec::new();
        for address in &mut addresses {
            let service = if let Some(service) = services.iter().find(|service| service.serves(address)) {
                Arc::clone(service)
            } else {
                let service = Arc::new(open_service(&settings, address, &pulse, check_items).await?);
                services.push(Arc::clone(&service));
                service
            };
            let queue = Self::open(&settings, &service, queues.len(), address).await;
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
            let (attributes, depth) =
                queue.check_settings().await.map_err(|failure| queue.explain(&failure))?;
            depth.update_gauges(&queue.name);
            check_items.extend(attributes);
            sum = sum + depth;
        }
        Ok((queues.into(), sum))
    }

    /// Asks for the URL if it isn't given, and records it in `address`.
    async fn open(
        settings: &QueueSettings,
        service: &Arc<Service>,
        number: usize,
        address: &mut Address,
    ) -> Result<Self, SqsError> {
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
            // SQS requires this suffix.
            fifo: address.name.ends_with(FIFO),
            name: address.name.as_str().into(),
            url: url.into(),
            wait: settings.wait.into(),
            visibility: settings.visibility,
            is_service: settings.is_service,
            worked: Arc::default(),
        })
    }

    /// Explains what a failed call to the queue means at a start.
    pub(super) fn explain(&self, failure: &SqsError) -> Error {
        explain(failure, &self.name, &self.service.place())
    }

    /// Checks the queue's settings, and the number of messages in it.
    async fn check_settings(&self) -> Result<(Vec<CheckItem>, Depth), SqsError> {
        let call = self.service.client().get_queue_attributes().queue_url(&*self.url);
        let call = call.attribute_names(QueueAttributeName::All);
        let answer = self.checked("GetQueueAttributes", call.send().await).await?;
        let attributes = Attributes(answer.attributes.unwrap_or_default());
        let depth = attributes.depth();
        let reached = format!(
            "queue {}: {} messages visible, {} hidden, {} delayed",
            self.name, depth.visible, depth.hidden, depth.delayed
        );
        let check_items = vec![
            CheckItem::ok("queue.reachable", reached),
            attributes.visibility(&self.name, self.visibility.as_secs()),
            attributes.redrive_policy(&self.name),
            attributes.retention(&self.name),
            attributes.encryption(&self.name),
        ];
        Ok((check_items, depth))
    }
}

async fn open_service(
    settings: &QueueSettings,
    address: &Address,
    pulse: &Arc<LastAnswer>,
    check_items: &mut Vec<CheckItem>,
) -> Result<Service, Error> {
    let access = Access {
        region: address.region.clone(),
        endpoint: address.endpoint.clone(),
        role: settings.role.clone(),
        receive_timeout: settings.receive_timeout,
        visibility: settings.visibility,
    };
    match Service::open(access, Arc::clone(pulse)).await {
        Ok(service) => {
            let text = format!("credentials for the service {}", service.place());
            check_items.push(CheckItem::ok("aws.credentials", text));
            Ok(service)
        }
        Err(NoAccess::Region) => {
            let text = "no AWS region: set AWS_REGION, or --endpoint-url for an SQS server that is not AWS's";
            check_items.push(CheckItem::failed("aws.region", text));
            // At boot, the instance metadata service may be slower than the loader.
            Err(Error::QueueAway(text.into()))
        }
        Err(NoAccess::Credentials(reason)) => {
            let error = no_credentials(settings.role.as_ref(), &reason);
            check_items.push(CheckItem::failed("aws.credentials", error.to_string()));
            Err(error)
        }
    }
}

/// Checks whether raw events can be read on their way from SQS.
fn transport(urls: &[String]) -> CheckItem {
    const ITEM: &str = "queue.transport";
    if urls.iter().any(|url| is_in_the_open(url)) {
        return CheckItem::warning(
            ITEM,
            "an SQS endpoint begins with http:// and is on another machine. Raw events cross the network unencrypted. Use \
             https://",
        );
    }
    CheckItem::ok(ITEM, "calls to SQS are encrypted, or stay on this machine")
}

/// Refuses a queue that is named twice, for example by its name and by its ARN.
fn refuse_twins(addresses: &[Address]) -> Result<(), Error> {
    let mut seen = HashSet::new();
    for address in addresses {
        if !seen.insert((&address.url, &address.region, &address.endpoint)) {
            return Err(Error::Config(format!("the queue {} is named twice: name it once", address.name)));
        }
    }
    Ok(())
}

async fn queue_url(client: &Client, address: &Address) -> Result<String, SqsError> {
    let call = client.get_queue_url().queue_name(&address.name);
    let call = call.set_queue_owner_aws_account_id(address.account.clone());
    let answer = call.send().await.map_err(|e| SqsError::of("GetQueueUrl", &e))?;
    answer
        .queue_url
        .ok_or_else(|| SqsError::internal("GetQueueUrl", &std::io::Error::other("SQS names no URL")))
}

fn no_credentials(role: Option<&Role>, reason: &str) -> Error {
    if let Some(Role { arn: role, .. }) = role {
        return Error::QueueAway(format!(
            "no AWS credentials for the role {role} ({reason}): check --assume-role-arn and --external-id, the role's trust \
             policy, and the credentials that assume it"
        ));
    }
    // The SDK doesn't say which file it did not find.
    let token = std::env::var("AWS_WEB_IDENTITY_TOKEN_FILE");
    let token =
        token.map_or_else(|_| String::new(), |file| format!("; AWS_WEB_IDENTITY_TOKEN_FILE is {file}"));
    Error::QueueAway(format!(
        "no AWS credentials ({reason}{token}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or \
         run under a role (an SQS server that is not AWS's takes any, such as test and test)"
    ))
}

fn explain(failure: &SqsError, queue: &str, place: &str) -> Error {
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
            "the service {place} cannot be reached ({failure}). Check the endpoint, and that the service is up"
        ))
    }
}
