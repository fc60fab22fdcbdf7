//! Messages: their content, their queues, and a slow feed of them.

use std::sync::Mutex;
use std::time::Duration;

use sqs_stub::{Faults, Options, Server};
use tokio::time::sleep;

use crate::common::{Depth, Queue, event};
use crate::form::Form;

/// Name of both queues.
pub(crate) const QUEUE: &str = "chaos";
/// Dead-letter queue of the stub, which must stay empty.
const DEAD_LETTERS: &str = "chaos-dead";
/// Maximum receives of a message. Only a message that is never deleted reaches it here.
const TOO_OFTEN: u32 = 200;
/// One message in this many can't become a login.
const REJECT_EVERY: usize = 50;
/// Number of slices that a portion is sent in.
const SLICES: usize = 8;
const BETWEEN_SLICES: Duration = Duration::from_millis(50);

/// Whether message `n` is one that can't become a login.
pub(crate) fn is_reject(n: usize) -> bool {
    n % REJECT_EVERY == REJECT_EVERY / 2
}

/// Returns the body of message `n`, which contains the number.
pub(crate) fn body(n: usize) -> String {
    let mut body = event(n);
    if is_reject(n) {
        match n / REJECT_EVERY % 3 {
            // Three kinds of reject: cut off after the number, of the wrong type, and with a value too long for its column.
            0 => body.truncate(body.find(',').unwrap()),
            1 => body = format!("[{body}]"),
            _ => body = body.replace("RU", &"RU".repeat(100)),
        }
    }
    body
}

/// Returns the number in a body or a user id.
pub(crate) fn number_in(text: &str) -> Option<usize> {
    let digits = text.split_once("user-")?.1;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// Both queues. The stub has the messages from number 0, the real server has the ones that follow.
pub(crate) struct Queues {
    pub(crate) stub: Server,
    pub(crate) sqs: Queue,
    /// Access keys that the stub refuses.
    refused: Mutex<Vec<String>>,
}

impl Queues {
    /// Creates both queues.
    pub(crate) async fn make(endpoint: &str, seed: u64) -> Self {
        let stub = Server::start(Options { seed, ..Options::default() }).unwrap();
        stub.create_queue(DEAD_LETTERS, &[]).unwrap();
        let policy = format!(
            r#"{{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:{DEAD_LETTERS}","maxReceiveCount":{TOO_OFTEN}}}"#
        );
        stub.create_queue(QUEUE, &[("RedrivePolicy", &policy)]).unwrap();
        Self { stub, sqs: Queue::create(endpoint, QUEUE).await, refused: Mutex::default() }
    }

    /// Turns the stub's faults on or off. Refused access keys stay refused.
    pub(crate) fn set_faults(&self, on: bool) {
        let faults = Faults {
            throttle: 0.02,
            server_error: 0.02,
            lost_answer: 0.02,
            hang: 0.001,
            partial_delete: 0.02,
            partial_extend: 0.05,
            duplicate: 0.01,
            expire: 0.01,
            ..Faults::default()
        };
        let expired_keys = self.refused.lock().unwrap().clone();
        self.stub.set_faults(Faults { expired_keys, ..if on { faults } else { Faults::default() } });
    }

    /// Makes the stub refuse an access key, and turns its other faults on.
    pub(crate) fn refuse_key(&self, key: String) {
        self.refused.lock().unwrap().push(key);
        self.set_faults(true);
    }

    /// Sends portion `part` of `parts` in slices, with pauses.
    pub(crate) async fn feed(&self, form: &Form, part: usize, parts: usize) {
        let (parts, first) = (parts * SLICES, part * SLICES);
        for part in first..first + SLICES {
            let of = |all: usize| all * part / parts..all * (part + 1) / parts;
            let (stub, sqs) = (of(form.of_stub), of(form.of_sqs));
            self.stub.fill(QUEUE, stub.len(), |i| body(stub.start + i));
            let bodies: Vec<String> = sqs.map(|n| body(form.of_stub + n)).collect();
            self.sqs.send(&bodies).await;
            sleep(BETWEEN_SLICES).await;
        }
    }

    /// Returns the depths of both queues.
    pub(crate) async fn depths(&self) -> [Depth; 2] {
        let stub = self.stub.depth(QUEUE).unwrap();
        let number = |n: u64| usize::try_from(n).unwrap();
        let stub = Depth {
            visible: number(stub.visible),
            hidden: number(stub.hidden),
            delayed: number(stub.delayed),
        };
        [stub, self.sqs.depth().await]
    }
}

#[test]
fn a_body_tells_its_number() {
    for n in [0, 25, 75, 125, 4711] {
        assert_eq!(number_in(&body(n)), Some(n));
    }
}
