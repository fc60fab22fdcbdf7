//! Message bodies.

use std::path::Path;

/// An event that becomes a login.
pub(crate) fn event(n: usize) -> String {
    format!(
        r#"{{"user_id":"user-{n}","app_version":"2.3.0","device_type":"android","ip":"10.1.{}.{}","locale":"RU","device_id":"593-47-{n:04}"}}"#,
        n / 256 % 256,
        n % 256
    )
}

/// `count` events that become logins.
pub(crate) fn events(count: usize) -> Vec<String> {
    (0..count).map(event).collect()
}

/// The events of the demo, with all their odd cases.
pub(crate) fn demo_events() -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev/events.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    // A line feed ends a body, and only that: a carriage return may be part of one.
    text.split_terminator('\n').map(str::to_owned).collect()
}

/// A value that is found again wherever it turns up.
pub(crate) struct Canary {
    /// What all values made from this canary begin with, and nothing else in the world.
    pub(crate) marker: String,
}

impl Canary {
    /// One that was never there before.
    pub(crate) fn new() -> Self {
        Self { marker: format!("canary{:016x}", fastrand::u64(..)) }
    }

    /// Value `n`.
    pub(crate) fn value(&self, n: usize) -> String {
        format!("{}-{n}", self.marker)
    }

    /// An event whose PII, and nothing else, are values of the canary.
    pub(crate) fn event(&self, n: usize) -> String {
        self.event_from("DE", n)
    }

    /// Such an event, from `locale`.
    pub(crate) fn event_from(&self, locale: &str, n: usize) -> String {
        let value = self.value(n);
        format!(
            r#"{{"user_id":"user-{n}","app_version":"2.3.0","device_type":"ios","ip":"{value}-ip","locale":"{locale}","device_id":"{value}-device"}}"#
        )
    }

    /// `count` events that become logins.
    pub(crate) fn events(&self, count: usize) -> Vec<String> {
        (0..count).map(|n| self.event(n)).collect()
    }

    /// An event of each kind that becomes a reject, with the canary wherever it can stand.
    pub(crate) fn rejects(&self) -> Vec<String> {
        let canary = &self.marker;
        let long = format!("{canary}-").repeat(20);
        vec![
            // Broken JSON, in several places.
            format!(r#"{{"user_id":"u","ip":"{canary}"#),
            format!(r#"{{"user_id":"u","ip":"{canary}"}} {canary}"#),
            format!("{canary}"),
            format!(r#"{{"user_id":"u","ip":"\u{{{canary}}}"}}"#),
            // JSON that is no object.
            format!(r#"["{canary}"]"#),
            format!(r#""{canary}""#),
            // A wrong type of message.
            format!(r#"{{"foo":"{canary}","bar":"123"}}"#),
            // Too long, as it is and masked.
            format!(r#"{{"user_id":"u","locale":"{long}"}}"#),
            format!(r#"{{"user_id":"u","ip":"{long}"}}"#),
            format!(r#"{{"user_id":"u","device_id":"{long}"}}"#),
            // A version that is none, and one past its column's type.
            format!(r#"{{"user_id":"u","app_version":"{canary}","ip":"{canary}"}}"#),
            format!(r#"{{"user_id":"u","app_version":"99.999.999999","ip":"{canary}"}}"#),
            // A NUL, which no text of PostgreSQL's holds.
            format!(r#"{{"user_id":"u","device_id":"{canary}\u0000"}}"#),
            format!(r#"{{"user_id":"{canary}\u0000","ip":"{canary}"}}"#),
            // An array and an object in the place of a value.
            format!(r#"{{"user_id":"u","ip":["{canary}"]}}"#),
            format!(r#"{{"user_id":"u","device_id":{{"{canary}":1}}}}"#),
        ]
    }
}
