//! A proxy in front of the real SQS server. It records the calls and passes them on. A test can decide the outcome of each
//! delete.

use std::collections::BTreeSet;
use std::io::Result;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};

use super::http::Message;
use super::{eventually, setting};

/// Receipt with which the loader tries whether it may delete; it belongs to no message.
const TRIED_RECEIPT: &str = "pg_mask-check";

/// A proxy that serves until its test ends.
pub(crate) struct Proxy {
    /// URL of the proxy, used as the loader's SQS endpoint.
    pub(crate) url: String,
    calls: Arc<Calls>,
    asked: AsyncMutex<mpsc::UnboundedReceiver<Delete>>,
}

/// One delivery of a message.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) message_id: String,
    pub(crate) receipt: String,
}

/// An operation, and the credentials and region that a call to it was signed with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Signature {
    pub(crate) operation: String,
    /// Access key id; empty if the call isn't signed.
    pub(crate) key: String,
    pub(crate) region: String,
}

/// Record of the calls, and the changes that a test has asked for.
#[derive(Default)]
struct Calls {
    deliveries: Mutex<Vec<Delivery>>,
    /// Receipts of each delete call.
    deletes: Mutex<Vec<Vec<String>>>,
    /// Message attributes that receive calls asked for.
    attributes: Mutex<BTreeSet<String>>,
    /// External ids with which roles were assumed.
    external_ids: Mutex<BTreeSet<String>>,
    /// Operations and the credentials that they were called with.
    signatures: Mutex<BTreeSet<Signature>>,
    /// Receive calls that aren't answered yet.
    receiving: AtomicUsize,
    /// Operation that is denied.
    denied: Mutex<Option<String>>,
    /// Date that every answer claims.
    date: Mutex<Option<String>>,
}

impl Proxy {
    /// Starts a proxy that passes everything on.
    pub(crate) async fn start() -> Self {
        Self::serve(None).await
    }

    /// Starts a proxy in which each delete waits until the test takes it via `next_delete` and decides its outcome.
    pub(crate) async fn asking() -> Self {
        let (ask, asked) = mpsc::unbounded_channel();
        Self { asked: AsyncMutex::new(asked), ..Self::serve(Some(ask)).await }
    }

    async fn serve(ask: Option<mpsc::UnboundedSender<Delete>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let calls = Arc::new(Calls::default());
        let for_all = Arc::clone(&calls);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let connection = Connection { calls: Arc::clone(&for_all), ask: ask.clone() };
                tokio::spawn(connection.serve(BufReader::new(client)));
            }
        });
        Self { url, calls, asked: AsyncMutex::new(mpsc::unbounded_channel().1) }
    }

    /// Denies an operation from now on, as SQS does for credentials without the privilege.
    pub(crate) fn deny(&self, call: &str) {
        *self.calls.denied.lock().unwrap() = Some(call.to_owned());
    }

    /// Sets the date header of every answer.
    pub(crate) fn pretend_date(&self, date: &str) {
        *self.calls.date.lock().unwrap() = Some(date.to_owned());
    }

    /// Returns all deliveries so far.
    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.calls.deliveries.lock().unwrap().clone()
    }

    /// Returns the receipts of all deliveries so far.
    pub(crate) fn receipts(&self) -> Vec<String> {
        self.deliveries().into_iter().map(|delivery| delivery.receipt).collect()
    }

    /// Returns the message ids that belong to `receipts`.
    pub(crate) fn message_ids(&self, receipts: &[String]) -> Vec<String> {
        let deliveries = self.deliveries();
        let of =
            |receipt: &String| deliveries.iter().find(|d| d.receipt == *receipt).unwrap().message_id.clone();
        receipts.iter().map(of).collect()
    }

    /// Returns the message attributes that receive calls have asked for so far.
    pub(crate) fn attributes(&self) -> BTreeSet<String> {
        self.calls.attributes.lock().unwrap().clone()
    }

    /// Returns the distinct signatures of the calls so far.
    pub(crate) fn signatures(&self) -> BTreeSet<Signature> {
        self.calls.signatures.lock().unwrap().clone()
    }

    /// Returns the external ids with which roles have been assumed so far.
    pub(crate) fn external_ids(&self) -> BTreeSet<String> {
        self.calls.external_ids.lock().unwrap().clone()
    }

    /// Returns the receipts of each delete call so far, whatever its outcome.
    pub(crate) fn deletes(&self) -> Vec<Vec<String>> {
        self.calls.deletes.lock().unwrap().clone()
    }

    /// Waits until a loader that should receive no more has the answers to its last receive calls.
    pub(crate) async fn no_more_receives(&self) {
        let mut quiet_looks = 0;
        // The pause between two receive calls is short, so many quiet looks in a row mean the end.
        eventually("the end of receiving", async || {
            quiet_looks = if self.calls.receiving.load(SeqCst) == 0 { quiet_looks + 1 } else { 0 };
            quiet_looks == 25
        })
        .await;
    }

    /// Waits for a delete. The call hangs until the test decides its outcome. Dropping the `Delete` closes the connection.
    pub(crate) async fn next_delete(&self) -> Delete {
        self.asked.lock().await.recv().await.unwrap()
    }
}

/// A `DeleteMessageBatch` call that waits in the proxy.
pub(crate) struct Delete {
    /// Receipts of the messages to delete.
    pub(crate) receipts: Vec<String>,
    decide: oneshot::Sender<Decision>,
}

enum Decision {
    Pass,
    Status(u16),
    /// Fails these receipts and passes only the other entries on.
    Fail(Vec<String>),
    Pretend,
}

impl Delete {
    /// Passes the call on.
    pub(crate) fn pass(self) {
        self.decide(Decision::Pass);
    }

    /// Answers with this HTTP status and deletes nothing.
    pub(crate) fn answer_status(self, status: u16) {
        self.decide(Decision::Status(status));
    }

    /// Reports these receipts as failed, with an error that isn't the sender's fault. Passes the other entries on.
    pub(crate) fn fail_for(self, receipts: &[String]) {
        self.decide(Decision::Fail(receipts.to_vec()));
    }

    /// Reports success but deletes nothing. SQS may redeliver a message although it was deleted.
    pub(crate) fn pretend(self) {
        self.decide(Decision::Pretend);
    }

    fn decide(self, decision: Decision) {
        // A loader that was killed meanwhile doesn't wait for the answer.
        _ = self.decide.send(decision);
    }
}

/// One connection from the loader.
struct Connection {
    calls: Arc<Calls>,
    ask: Option<mpsc::UnboundedSender<Delete>>,
}

impl Connection {
    async fn serve(self, mut client: BufReader<TcpStream>) -> Result<()> {
        while let Some(request) = Message::read(&mut client).await? {
            let operation = operation(&request);
            let operation = operation.as_deref();
            self.note_signature(operation, &request);
            let denied = operation.is_some() && self.calls.denied.lock().unwrap().as_deref() == operation;
            let answer = match operation {
                _ if denied => Some(denial(&request)),
                Some("ReceiveMessage") => {
                    self.note_attributes(&request.json());
                    self.calls.receiving.fetch_add(1, SeqCst);
                    let answer = pass(&request).await;
                    self.calls.receiving.fetch_sub(1, SeqCst);
                    let answer = answer?;
                    self.note_deliveries(&answer.json());
                    Some(answer)
                }
                Some("DeleteMessageBatch") => self.delete(request).await?,
                _ => Some(pass(&request).await?),
            };
            let Some(mut answer) = answer else { break };
            if let Some(date) = self.calls.date.lock().unwrap().as_deref() {
                answer.set_header("date", date);
            }
            answer.write(&mut client, true).await?;
        }
        Ok(())
    }

    fn note_signature(&self, operation: Option<&str>, request: &Message) {
        if let Some(id) = std::str::from_utf8(&request.body).ok().and_then(|form| field(form, "ExternalId="))
        {
            self.calls.external_ids.lock().unwrap().insert(id);
        }
        // AWS4-HMAC-SHA256 Credential=KEY/20261124/us-east-1/sqs/aws4_request, …
        let scope = request.header("authorization").and_then(|value| value.split_once("Credential="));
        let mut scope = scope.map_or("", |(_, scope)| scope).split('/');
        let (key, region) = (scope.next().unwrap_or_default(), scope.nth(1).unwrap_or_default());
        self.calls.signatures.lock().unwrap().insert(Signature {
            operation: operation.unwrap_or_default().to_owned(),
            key: key.to_owned(),
            region: region.to_owned(),
        });
    }

    fn note_attributes(&self, call: &Value) {
        let names = call["MessageAttributeNames"].as_array().into_iter().flatten();
        let names = names.map(|name| name.as_str().unwrap().to_owned());
        self.calls.attributes.lock().unwrap().extend(names);
    }

    fn note_deliveries(&self, answer: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let messages = answer["Messages"].as_array().into_iter().flatten();
        self.calls.deliveries.lock().unwrap().extend(messages.map(|message| Delivery {
            message_id: text(&message["MessageId"]),
            receipt: text(&message["ReceiptHandle"]),
        }));
    }

    /// Returns the answer to a delete, or `None` to close the connection instead.
    async fn delete(&self, mut request: Message) -> Result<Option<Message>> {
        let mut call = request.json();
        let entries = call["Entries"].as_array().cloned().unwrap_or_default();
        let receipt = |entry: &Value| entry["ReceiptHandle"].as_str().unwrap_or_default().to_owned();
        let receipts: Vec<String> = entries.iter().map(receipt).collect();
        // A loader that starts tries whether it may delete.
        if receipts == [TRIED_RECEIPT] {
            return pass(&request).await.map(Some);
        }
        self.calls.deletes.lock().unwrap().push(receipts.clone());
        let Some(ask) = &self.ask else { return pass(&request).await.map(Some) };
        let (decide, decision) = oneshot::channel();
        _ = ask.send(Delete { receipts, decide });
        let answer = match decision.await {
            Err(_) => return Ok(None),
            Ok(Decision::Pass) => pass(&request).await?,
            Ok(Decision::Status(status)) => {
                Message::answer(status, &json!({"__type": "InternalFailure", "message": "made by a test"}))
            }
            Ok(Decision::Pretend) => {
                let done: Vec<Value> = entries.iter().map(|entry| json!({"Id": entry["Id"]})).collect();
                Message::answer(200, &json!({"Successful": done, "Failed": []}))
            }
            Ok(Decision::Fail(receipts)) => {
                let (fail, keep): (Vec<Value>, Vec<Value>) =
                    entries.into_iter().partition(|entry| receipts.contains(&receipt(entry)));
                let fail = fail
                    .iter()
                    .map(|entry| json!({"Id": entry["Id"], "Code": "InternalError", "SenderFault": false}));
                let mut answer = if keep.is_empty() {
                    json!({"Successful": [], "Failed": []})
                } else {
                    call["Entries"] = Value::Array(keep);
                    request.body = call.to_string().into_bytes();
                    pass(&request).await?.json()
                };
                answer["Failed"].as_array_mut().unwrap().extend(fail);
                Message::answer(200, &answer)
            }
        };
        Ok(Some(answer))
    }
}

/// Returns an access-denied error: JSON for SQS, XML for STS.
fn denial(request: &Message) -> Message {
    if request.header("x-amz-target").is_some() {
        let denial = json!({"__type": "com.amazonaws.sqs#AccessDeniedException", "message": "denied"});
        return Message::answer(403, &denial);
    }
    let error = "<Error><Type>Sender</Type><Code>AccessDenied</Code><Message>denied</Message></Error>";
    Message::xml(403, format!("<ErrorResponse>{error}</ErrorResponse>"))
}

/// Returns the operation of a request. SQS has it in a header, STS in a form field.
fn operation(request: &Message) -> Option<String> {
    if let Some(target) = request.header("x-amz-target") {
        return target.split('.').next_back().map(str::to_owned);
    }
    let form = std::str::from_utf8(&request.body).ok()?;
    field(form, "Action=")
}

fn field(form: &str, name: &str) -> Option<String> {
    form.split('&').find_map(|field| field.strip_prefix(name)).map(str::to_owned)
}

/// Sends a request to the real server on a connection of its own, and returns the answer.
async fn pass(request: &Message) -> Result<Message> {
    let endpoint = setting("AWS_ENDPOINT_URL");
    let server = endpoint.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = BufReader::new(TcpStream::connect(server).await?);
    request.write(&mut stream, false).await?;
    let answer = Message::read(&mut stream).await?;
    Ok(answer.unwrap_or_else(|| Message::answer(502, &json!({"__type": "NoAnswer"}))))
}
