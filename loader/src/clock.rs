//! Times in words, and comparisons of other clocks with this machine's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::check_item::CheckItem;

/// Maximum difference between two clocks in seconds, beyond the time that asking takes.
const SKEW: f64 = 2.0;

/// Formats a time in its two largest units.
pub(crate) fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// Returns the seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Compares a clock, read between `before` and `after`, with this machine's. All times are seconds since 1970.
pub(crate) fn compare_clocks(
    item: &'static str,
    whose: &str,
    theirs: f64,
    before: f64,
    after: f64,
) -> CheckItem {
    let skew = if theirs < before { before - theirs } else { (theirs - after).max(0.0) };
    if skew <= SKEW {
        return CheckItem::ok(item, format!("the clock of {whose} is that of this machine"));
    }
    let which = if theirs < before { "behind" } else { "ahead of" };
    CheckItem::warning(
        item,
        format!(
            "the clock of {whose} is {skew:.0} s {which} this machine's: have both set by NTP. The ages of messages are \
             wrong, and AWS refuses requests of a clock that is five minutes off"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check_item::Status;

    #[test]
    fn clocks_are_compared_by_what_is_sure() {
        let status = |theirs| compare_clocks("c", "w", theirs, 100.0, 101.0).status;
        assert_eq!([98.0, 100.5, 103.0].map(status), [Status::Ok; 3]);
        assert_eq!([97.9, 103.1].map(status), [Status::Warning; 2]);
        assert!(compare_clocks("c", "w", 40.0, 100.0, 101.0).message.contains("60 s behind"));
    }
}
