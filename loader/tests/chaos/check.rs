//! Conditions that must hold at the end of a run.

use tokio::time::{Duration, Instant, sleep};
use tokio_postgres::Client;

use crate::common::Depth;
use crate::load::{Queues, is_reject, number_in};
use crate::loaders::VISIBILITY;

/// Maximum time without progress: long enough for a dead loader's messages to reappear and for a slow machine to process
/// them.
const PATIENCE: Duration = Duration::from_secs(60 + 3 * VISIBILITY.as_secs());

/// Waits until both queues are empty. Returns early if `trouble` holds. Panics when nothing more has been stored or deleted
/// for `PATIENCE`.
pub(crate) async fn until_empty(queues: &Queues, database: &Client, trouble: impl Fn() -> bool) {
    let (mut least, mut most, mut deadline) = (usize::MAX, 0, Instant::now() + PATIENCE);
    loop {
        let depths = queues.depths().await;
        if depths == [Depth::EMPTY; 2] || trouble() {
            return;
        }
        let left = depths.iter().map(|depth| depth.visible + depth.hidden + depth.delayed).sum();
        let stored = rows(database).await;
        if left < least || stored > most {
            deadline = Instant::now() + PATIENCE;
        }
        (least, most) = (least.min(left), most.max(stored));
        let seconds = PATIENCE.as_secs();
        assert!(Instant::now() < deadline, "no progress in {seconds} s; still in the queues: {depths:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn rows(database: &Client) -> i64 {
    let query = "SELECT (SELECT count(*) FROM user_logins) + (SELECT count(*) FROM login_rejects)";
    database.query_one(query, &[]).await.unwrap().get(0)
}

/// Panics unless each of `sent` messages, numbered from 0, is stored exactly once in the right table, and the queues are
/// empty.
pub(crate) async fn each_stored_once(queues: &Queues, database: &Client, sent: usize) {
    let mut logins = vec![0_u32; sent];
    let mut rejects = vec![0_u32; sent];
    for (query, counts) in [
        ("SELECT user_id FROM user_logins", &mut logins),
        ("SELECT unmask_pii(masked_body) FROM login_rejects", &mut rejects),
    ] {
        for row in database.query(query, &[]).await.unwrap() {
            let text: String = row.get(0);
            let number = number_in(&text).unwrap_or_else(|| panic!("not a message of this test: {text}"));
            counts[number] += 1;
        }
    }
    let with = |counts: &dyn Fn(u32, u32) -> bool| {
        let found = (0..sent).filter(|&n| {
            if is_reject(n) { counts(rejects[n], logins[n]) } else { counts(logins[n], rejects[n]) }
        });
        found.collect::<Vec<_>>()
    };
    let lost = with(&|right, wrong| right + wrong == 0);
    let doubled = with(&|right, wrong| right + wrong > 1);
    let misplaced = with(&|_, wrong| wrong > 0);
    let few = |numbers: &[usize]| format!("{:?}", &numbers[..numbers.len().min(10)]);
    assert!(
        lost.is_empty() && doubled.is_empty() && misplaced.is_empty(),
        "of {sent} messages {} are lost, such as {}, {} stored more than once, such as {}, and {} are in the wrong \
         table, such as {}",
        lost.len(),
        few(&lost),
        doubled.len(),
        few(&doubled),
        misplaced.len(),
        few(&misplaced),
    );
    let ids = "SELECT count(DISTINCT message_id) FROM
               (SELECT message_id FROM user_logins UNION ALL SELECT message_id FROM login_rejects) AS ids";
    let ids: i64 = database.query_one(ids, &[]).await.unwrap().get(0);
    assert_eq!(usize::try_from(ids), Ok(sent), "message ids in both tables");
    assert_eq!(queues.depths().await, [Depth::EMPTY; 2], "the queues of the stub and of the server");
    assert_eq!(queues.stub.counters().dead, 0, "dead letters");
}
