//! The paths below `/_stub/` and the program, which benchmarks in other languages use.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use serde_json::Value;
use sqs_stub::{Options, Server};

/// Status and body of the answer.
fn call(url: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}");
    write!(stream, "{head}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[test]
fn a_server_is_steered_from_outside() {
    let server = Server::start(Options { threads: 2, ..Options::default() }).unwrap();
    let post = |path: &str, body: &str| call(&server.url(), "POST", path, body).0;
    assert_eq!(post("/_stub/fill", r#"{"queue":"q","count":1000,"template":"{\"n\":{n}}"}"#), 200);
    assert_eq!(post("/_stub/fill", r#"{"queue":"q","count":1,"size":300}"#), 200);
    assert_eq!(server.depth("q").unwrap().visible, 1001);
    let (status, counters) = call(&server.url(), "GET", "/_stub/counters", "");
    assert_eq!((status, &counters["sent"]), (200, &Value::from(1001)));
    assert_eq!(post("/_stub/reset", r#"{"queue":"q"}"#), 200);
    assert_eq!(server.depth("q").unwrap().total(), 0);
    assert_eq!(post("/_stub/delay", r#"{"ms":1}"#), 200);
    assert_eq!(post("/_stub/faults", r#"{"throttle":0.5}"#), 200);
    assert_eq!(post("/_stub/faults", r#"{"throttle":2}"#), 400);
    assert_eq!(post("/_stub/faults", r#"{"trottle":1}"#), 400);
    assert_eq!(post("/_stub/nothing", ""), 400);
}

#[test]
fn the_program_prints_its_url_and_ends_with_its_standard_input() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_sqs-stub"))
        .arg("--until-stdin-closes")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(program.stdout.take().unwrap()).read_line(&mut url).unwrap();
    assert_eq!(call(url.trim(), "GET", "/_stub/counters", "").0, 200);
    drop(program.stdin.take());
    assert!(program.wait().unwrap().success());
}
