//! The paths below `/_stub/`, through which benchmarks in other languages control the server.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Response, StatusCode};
use serde::Deserialize;

use crate::broker::Broker;
use crate::calls::{json, parse};
use crate::faults::Faults;
use crate::http::{refuse, respond};
use crate::refusal::Refusal;

/// Size of a generated body in bytes, unless the command sets one.
const BODY_SIZE: usize = 220;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delay {
    ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fill {
    queue: String,
    count: usize,
    /// Size of the generated bodies, in bytes.
    size: Option<usize>,
    /// The body, with `{n}` in place of the message's number.
    template: Option<String>,
    /// Number of a FIFO queue's message groups, which are used in turn.
    groups: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reset {
    queue: String,
}

/// Performs a command. The delay and the faults do not affect it.
pub(crate) fn answer(broker: &Broker, method: &Method, command: &str, body: &[u8]) -> Response<Full<Bytes>> {
    let result = match (method, command) {
        (&Method::GET, "counters") => json(&broker.tally.counters()),
        (&Method::POST, "delay") => parse(body).map(|Delay { ms }| {
            broker.set_delay(Duration::from_millis(ms));
            "{}".into()
        }),
        (&Method::POST, "faults") => parse(body).and_then(|faults: Faults| {
            if !faults.is_sound() {
                return Err(Refusal::bad_value("faults", "not from 0 to 1"));
            }
            broker.set_faults(faults);
            Ok("{}".into())
        }),
        (&Method::POST, "fill") => parse(body).and_then(|fill| self::fill(broker, &fill)),
        (&Method::POST, "reset") => parse(body).and_then(|Reset { queue }| {
            broker.queue(&queue)?.state().purge();
            Ok("{}".into())
        }),
        _ => Err(Refusal::unknown_action()),
    };
    match result {
        Ok(json) => respond(StatusCode::OK, json),
        Err(refusal) => refuse(&refusal),
    }
}

fn fill(broker: &Broker, fill: &Fill) -> Result<String, Refusal> {
    let queue = broker.ensure(&fill.queue)?;
    let groups = fill.groups.unwrap_or(1);
    if let Some(template) = &fill.template {
        broker.fill(&queue, fill.count, groups, |n| template.replace("{n}", &n.to_string()));
    } else {
        let size = fill.size.unwrap_or(BODY_SIZE);
        broker.fill(&queue, fill.count, groups, |n| body_of(n, size));
    }
    Ok("{}".into())
}

/// Returns a JSON object with this number. Its length is `size` bytes, unless the number needs more.
fn body_of(n: usize, size: usize) -> String {
    let start = format!("{{\"n\":{n},\"pad\":\"");
    let pad = size.saturating_sub(start.len() + 2);
    format!("{start}{:x<pad$}\"}}", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_body_has_its_size() {
        assert_eq!(body_of(7, 220).len(), 220);
        assert_eq!(body_of(7, 0), r#"{"n":7,"pad":""}"#);
    }
}
