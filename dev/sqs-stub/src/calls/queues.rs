//! Calls about queues.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::json;

use super::parse;
use crate::broker::{Broker, Queue};
use crate::protocol::{NamedQueue, QueueCall};
use crate::refusal::Refusal;

pub(super) fn create(broker: &Broker, request: &[u8]) -> Result<String, Refusal> {
    let call: NamedQueue = parse(request)?;
    let queue = broker.create(&call.queue_name, call.attributes)?;
    Ok(url_answer(broker, &queue))
}

pub(super) fn url(broker: &Broker, request: &[u8]) -> Result<String, Refusal> {
    let call: NamedQueue = parse(request)?;
    Ok(url_answer(broker, &*broker.queue(&call.queue_name)?))
}

fn url_answer(broker: &Broker, queue: &Queue) -> String {
    json!({ "QueueUrl": broker.url_of(&queue.name) }).to_string()
}

pub(super) fn delete(broker: &Broker, request: &[u8]) -> Result<String, Refusal> {
    let call: QueueCall = parse(request)?;
    broker.remove(&*broker.queue(&call.queue_url)?);
    Ok("{}".into())
}

pub(super) fn purge(broker: &Broker, request: &[u8]) -> Result<String, Refusal> {
    let call: QueueCall = parse(request)?;
    broker.queue(&call.queue_url)?.state().purge();
    Ok("{}".into())
}

pub(super) fn set_attributes(broker: &Broker, request: &[u8]) -> Result<String, Refusal> {
    let call: QueueCall = parse(request)?;
    broker.queue(&call.queue_url)?.set_attributes(call.attributes)?;
    Ok("{}".into())
}

pub(super) fn attributes(broker: &Broker, request: &[u8]) -> Result<String, Refusal> {
    let call: QueueCall = parse(request)?;
    let mut attributes = all_attributes(&*broker.queue(&call.queue_url)?);
    attributes.retain(|name, _| call.attribute_names.iter().any(|asked| asked == name || asked == "All"));
    Ok(if attributes.is_empty() { "{}".into() } else { json!({ "Attributes": attributes }).to_string() })
}

fn all_attributes(queue: &Queue) -> BTreeMap<String, String> {
    let mut attributes = queue.attributes();
    let mut state = queue.state();
    state.advance(Instant::now());
    let seconds = state.settings.visibility.as_secs();
    let depth = state.depth;
    drop(state);
    let mut set = |name: &str, value: String| attributes.insert(name.to_owned(), value);
    set("VisibilityTimeout", seconds.to_string());
    set("QueueArn", format!("arn:aws:sqs:us-east-1:{}:{}", crate::ACCOUNT, queue.name));
    set("ApproximateNumberOfMessages", depth.visible.to_string());
    set("ApproximateNumberOfMessagesNotVisible", depth.hidden.to_string());
    set("ApproximateNumberOfMessagesDelayed", depth.delayed.to_string());
    if queue.fifo {
        set("FifoQueue", "true".to_owned());
    }
    attributes
}
