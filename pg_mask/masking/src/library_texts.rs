//! Errors that a library tells apart only by its text.
//!
//! An upgrade can change a text in silence. So each one has a test here, in which the library itself writes it.

/// Returns the field that an object has twice, if that is the error. Text of serde 1.0's derived `Deserialize`
/// (`de::Error::duplicate_field`).
pub(crate) fn field_given_twice<'f>(error: &serde_json::Error, fields: &[&'f str]) -> Option<&'f str> {
    let text = error.to_string();
    fields.iter().copied().find(|field| text.starts_with(&format!("duplicate field `{field}`")))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Pair {
        #[expect(dead_code, reason = "it is only parsed")]
        id: u8,
        #[expect(dead_code, reason = "it is only parsed")]
        key: u8,
    }

    #[test]
    fn serde_names_a_field_that_is_given_twice() {
        let twice = |json: &str| {
            let error = serde_json::from_str::<Pair>(json).err().expect("an error");
            field_given_twice(&error, &["id", "key"])
        };
        assert_eq!(twice(r#"{"id": 1, "key": 2, "key": 3}"#), Some("key"));
        assert_eq!(twice(r#"{"id": 1, "id": 2}"#), Some("id"));
        assert_eq!(twice(r#"{"id": 1}"#), None);
        assert_eq!(twice(r#"{"id": "duplicate field `id`"}"#), None);
    }
}
