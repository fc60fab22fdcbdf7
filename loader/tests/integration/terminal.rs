//! The display of a drain at a terminal and elsewhere.

use std::time::Duration;

use sqs_stub::{Options, Server};

use crate::common::{Loader, World, event};

const MESSAGES: usize = 3000;
/// Escape sequence that erases the cursor's line.
const ERASE: &str = "\x1b[2K";

/// Creates a server with slow calls, so that there's something to see. One message in a hundred isn't an event, which is
/// logged.
fn slow() -> Server {
    let stub = Server::start(Options { delay: Duration::from_millis(100), ..Options::default() }).unwrap();
    stub.fill("slow", MESSAGES, |n| if n % 100 == 0 { "{}".to_owned() } else { event(n) });
    stub
}

fn drain(world: &World, stub: &Server) -> Loader {
    let loader =
        world.loader().at(&stub.url()).env("LOADER_QUEUE", "slow").env("NO_COLOR", "1").env("TERM", "xterm");
    loader.options("--drain --pollers 6 --min-pollers 6 --batch-size 100")
}

#[tokio::test]
async fn a_drain_shows_rate_and_time_left() {
    World::run(async |world| {
        for columns in [80, 30] {
            let stub = slow();
            let ended =
                drain(world, &stub).options("--log-level debug").at_a_terminal(columns).end().await.expect(0);
            let shown = ended.stdout;
            let (bars, lines): (Vec<_>, Vec<_>) = shown
                .split(['\r', '\n'])
                .map(|part| part.strip_prefix(ERASE).unwrap_or(part))
                .filter(|part| !part.is_empty())
                .partition(|part| part.starts_with('['));
            assert!(bars.len() > 5, "{shown}");
            for bar in &bars {
                assert!(bar.chars().count() <= usize::from(columns), "it does not fit: {bar}");
                assert!(!bar.contains(ERASE), "torn: {bar}");
            }
            let wanted = if columns == 80 {
                [" s left, ", "/s, ", " of 3,000 messages"]
            } else {
                [" s left", "%", "[="]
            };
            assert!(!bars[0].contains(" left"), "an estimate out of nothing: {shown}");
            for bar in bars.iter().filter(|_| columns == 80) {
                let words: Vec<_> = bar.split_once(']').unwrap().1.split_whitespace().collect();
                let of = words.iter().position(|word| *word == "of").unwrap();
                let number = |word: &str| word.replace([',', '%'], "").parse::<usize>().unwrap();
                let (percent, done, total) = (number(words[0]), number(words[of - 1]), number(words[of + 1]));
                assert_eq!(percent, (done * 100 / total).min(100), "{bar}");
            }
            assert!(bars.iter().any(|bar| wanted.iter().all(|part| bar.contains(part))), "{shown}");
            // All other output is whole log lines. The last line is the summary that scripts read.
            let (last, log) = lines.split_last().unwrap();
            assert!(log.iter().all(|line| line.starts_with("20") && !line.contains('\x1b')), "{shown}");
            assert!(log.iter().filter(|line| line.contains("batch committed")).count() > 5, "{shown}");
            assert!(last.starts_with("received 3000, stored "), "{shown}");
        }
    })
    .await;
}

#[tokio::test]
async fn where_nothing_can_be_drawn_a_drain_logs_lines() {
    World::run(async |world| {
        let stub = slow();
        let ended = drain(world, &stub).end().await.expect(0).says(&["draining left=3000", "per_second="]);
        assert_eq!(ended.summary().deleted, MESSAGES);
        assert!(!ended.stderr.contains(['\x1b', '\r']), "{}", ended.stderr);

        // A dumb terminal, which can't move its cursor.
        let stub = slow();
        let ended = drain(world, &stub).at_a_terminal(80).env("TERM", "dumb").end().await.expect(0);
        assert!(ended.stdout.contains("draining left=3000"), "{}", ended.stdout);
        assert!(!ended.stdout.contains('\x1b'), "{}", ended.stdout);
    })
    .await;
}
