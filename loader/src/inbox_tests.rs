use super::*;

fn check(before: Option<i64>, row: [i64; 4], sent: usize) -> Result<Counts, Option<i128>> {
    let [statement, stored, duplicate, rejected] = row;
    Accounts { statement, stored, duplicate, rejected }.check(before, sent).map_err(|failed| match failed {
        StoreFailure::Count { accounted } => accounted,
        StoreFailure::Database(_)
        | StoreFailure::Commit(_)
        | StoreFailure::Warned(_)
        | StoreFailure::Replaced(_)
        | StoreFailure::TimedOut { .. } => {
            panic!("not a wrong count")
        }
    })
}

#[test]
fn only_a_new_statement_that_accounts_for_every_event_is_committed() {
    let counts = Counts { stored: 3, duplicate: 2, rejected: 1 };
    assert_eq!(check(None, [1, 3, 2, 1], 6), Ok(counts));
    assert_eq!(check(Some(1), [2, 3, 2, 1], 6), Ok(counts));
    // These are the previous statement's counts, because the triggers did not fire for this one.
    assert_eq!(check(Some(2), [2, 3, 2, 1], 6), Err(None));
    assert_eq!(check(None, [1, 3, 2, 1], 7), Err(Some(6)));
    assert_eq!(check(None, [1, 3, 2, 1], 5), Err(Some(6)));
    assert_eq!(check(None, [1, 7, -1, 0], 6), Err(Some(6)));
}
