//! Message bodies.

use std::path::Path;

/// Returns an event that becomes a login.
pub(crate) fn event(n: usize) -> String {
    format!(
        r#"{{"user_id":"user-{n}","app_version":"2.3.0","device_type":"android","ip":"10.1.{}.{}","locale":"RU","device_id":"593-47-{n:04}"}}"#,
        n / 256 % 256,
        n % 256
    )
}

/// Returns `count` events that become logins.
pub(crate) fn events(count: usize) -> Vec<String> {
    (0..count).map(event).collect()
}

/// Returns the demo's events, with all their odd cases.
pub(crate) fn demo_events() -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev/events.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    // Only a line feed ends a body: a carriage return may be part of one.
    text.split_terminator('\n').map(str::to_owned).collect()
}

/// A unique marker for values, so that a test finds them wherever they turn up.
pub(crate) struct Canary {
    /// Start of all values of this canary. Nothing else in the world contains it.
    pub(crate) marker: String,
}

impl Canary {
    /// Creates a canary with a random marker.
    pub(crate) fn new() -> Self {
        Self { marker: format!("canary{:016x}", fastrand::u64(..)) }
    }

    /// Returns value `n` of the canary.
    pub(crate) fn value(&self, n: usize) -> String {
        format!("{}-{n}", self.marker)
    }

    /// Returns an event in which exactly the PII fields hold values of the canary.
    pub(crate) fn event(&self, n: usize) -> String {
        self.event_from("DE", n)
    }

    /// Returns an event from `locale` in which exactly the PII fields hold values of the canary.
    pub(crate) fn event_from(&self, locale: &str, n: usize) -> String {
        let value = self.value(n);
        format!(
            r#"{{"user_id":"user-{n}","app_version":"2.3.0","device_type":"ios","ip":"{value}-ip","locale":"{locale}","device_id":"{value}-device"}}"#
        )
    }

    /// Returns `count` events that become logins.
    pub(crate) fn events(&self, count: usize) -> Vec<String> {
        (0..count).map(|n| self.event(n)).collect()
    }

    /// Returns one event of each kind that becomes a reject, with the canary in each possible place.
    pub(crate) fn rejects(&self) -> Vec<String> {
        let canary = &self.marker;
        let long = format!("{canary}-").repeat(20);
        vec![
            // Broken JSON, in several places.
            format!(r#"{{"user_id":"u","ip":"{canary}"#),
            format!(r#"{{"user_id":"u","ip":"{canary}"}} {canary}"#),
            format!("{canary}"),
            format!(r#"{{"user_id":"u","ip":"\u{{{canary}}}"}}"#),
            // JSON that isn't an object.
            format!(r#"["{canary}"]"#),
            format!(r#""{canary}""#),
            // A wrong type of message.
            format!(r#"{{"foo":"{canary}","bar":"123"}}"#),
            // Values that are too long: one stored plain, the others masked.
            format!(r#"{{"user_id":"u","locale":"{long}"}}"#),
            format!(r#"{{"user_id":"u","ip":"{long}"}}"#),
            format!(r#"{{"user_id":"u","device_id":"{long}"}}"#),
            // A version that isn't one, and a version that its column's type can't hold.
            format!(r#"{{"user_id":"u","app_version":"{canary}","ip":"{canary}"}}"#),
            format!(r#"{{"user_id":"u","app_version":"99.999.999999","ip":"{canary}"}}"#),
            // A NUL, which `PostgreSQL` can't store in a text.
            format!(r#"{{"user_id":"u","device_id":"{canary}\u0000"}}"#),
            format!(r#"{{"user_id":"{canary}\u0000","ip":"{canary}"}}"#),
            // An array and an object in place of a value.
            format!(r#"{{"user_id":"u","ip":["{canary}"]}}"#),
            format!(r#"{{"user_id":"u","device_id":{{"{canary}":1}}}}"#),
        ]
    }
}
