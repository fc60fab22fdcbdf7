use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::options::OPTIONS;

/// Returns all options that a string sets, in the order of their names.
fn said(text: &str) -> Result<Vec<(&'static str, String)>, ParseError> {
    let values = parse(text)?;
    let mut all: Vec<_> = OPTIONS
        .iter()
        .filter_map(|option| Some((option.name, values.get(option.name)?.to_owned())))
        .collect();
    all.sort_unstable();
    Ok(all)
}

#[test]
fn strings_are_read_as_libpq_reads_them() {
    for (text, expected) in [
        ("", vec![]),
        ("postgres://", vec![]),
        ("postgresql://h", vec![("host", "h")]),
        ("postgresql://h:7/d", vec![("dbname", "d"), ("host", "h"), ("port", "7")]),
        ("postgresql://u@h", vec![("host", "h"), ("user", "u")]),
        ("postgresql://u:p@/d", vec![("dbname", "d"), ("password", "p"), ("user", "u")]),
        ("postgresql://:p@h", vec![("host", "h"), ("password", "p")]),
        ("postgresql://u%40v:p%3A%2F%25@h", vec![("host", "h"), ("password", "p:/%"), ("user", "u@v")]),
        // The first : ends the user's name, the first @ the password.
        ("postgresql://u:a:b?c@h", vec![("host", "h"), ("password", "a:b?c"), ("user", "u")]),
        ("postgresql://[::1]", vec![("host", "::1")]),
        ("postgresql://[::1]:7,h/d", vec![("dbname", "d"), ("host", "::1,h"), ("port", "7,")]),
        ("postgresql://h1,h2", vec![("host", "h1,h2"), ("port", ",")]),
        ("postgresql://%2Frun%2Fpg/d", vec![("dbname", "d"), ("host", "/run/pg")]),
        ("postgresql:///d?host=/run&port=1", vec![("dbname", "d"), ("host", "/run"), ("port", "1")]),
        ("postgresql://h?user=u%26&user=v", vec![("host", "h"), ("user", "v")]),
        ("postgresql://h?", vec![("host", "h")]),
        ("postgresql://h?user=u&", vec![("host", "h"), ("user", "u")]),
        ("postgresql://h?ssl=true", vec![("host", "h"), ("sslmode", "require")]),
        ("postgresql://h/a%40b", vec![("dbname", "a@b"), ("host", "h")]),
        ("host=h", vec![("host", "h")]),
        ("  host = h \t port=\n7 ", vec![("host", "h"), ("port", "7")]),
        (r"password='a b\'c\\d' user=x\ y", vec![("password", r"a b'c\d"), ("user", "x y")]),
        ("password=a=b@c", vec![("password", "a=b@c")]),
        ("password='' user=u", vec![("user", "u")]),
        ("user='a'host=h", vec![("host", "h"), ("user", "a")]),
        (r"user=a\", vec![("user", "a")]),
    ] {
        let said = said(text).unwrap_or_else(|wrong| panic!("{text}: {wrong}"));
        let said: Vec<_> = said.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(said, expected, "{text}");
    }
}

#[test]
fn conninfo_that_libpq_refuses_is_refused() {
    for text in [
        "h",
        "host",
        "host=h user",
        "host h=1",
        "user='a",
        "nosuch=1",
        "HOST=h",
        "postgresql://h?nosuch=1",
        "postgresql://h?user",
        "postgresql://h?user=a=b",
        "postgresql://h?user=u&&",
        "postgresql://[::1",
        "postgresql://[]",
        "postgresql://[::1]x",
        "postgresql://%zz",
        "postgresql://%4",
        "postgresql://%00",
        "postgresql://%ff",
        // libpq accepts these, with the host "b@h" and the database "b@h".
        "postgresql://u:a@b@h",
        "postgresql://u:1/b@h",
    ] {
        assert!(said(text).is_err(), "{text}");
    }
}

/// Generates values as people write them, and other text.
fn any_value() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9/.-]{1,12}", "[ '\\\\=@:/?&%,#\\[\\]a\t\u{e4}]{1,12}", "[^\0]{1,12}"]
}

fn any_values() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    prop::collection::btree_map(0..OPTIONS.len(), any_value(), 0..8)
        .prop_map(|map| map.into_iter().map(|(i, value)| (OPTIONS[i].name, value)).collect())
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        _ = write!(encoded, "%{byte:02X}");
        encoded
    })
}

proptest! {
    #[test]
    fn any_values_survive_being_written_in_either_form(mut values in any_values()) {
        let pairs = values.iter().fold(String::new(), |mut text, (name, value)| {
            let quoted = value.replace('\\', r"\\").replace('\'', r"\'");
            _ = write!(text, " {name} = '{quoted}'");
            text
        });
        let parameters: Vec<_> =
            values.iter().map(|(name, value)| format!("{name}={}", percent_encoded(value))).collect();
        let uri = format!("postgresql://?{}", parameters.join("&"));
        values.sort_unstable();
        prop_assert_eq!(&said(&pairs).unwrap(), &values);
        prop_assert_eq!(&said(&uri).unwrap(), &values);
    }

    #[test]
    fn a_user_and_a_password_of_any_kind_can_stand_in_a_uri(user in any_value(), password in any_value()) {
        let uri = format!("postgresql://{}:{}@h/d", percent_encoded(&user), percent_encoded(&password));
        let expected =
            [("dbname", "d".to_owned()), ("host", "h".to_owned()), ("password", password), ("user", user)];
        prop_assert_eq!(said(&uri).unwrap(), expected);
    }

    #[test]
    fn no_text_makes_it_panic(text in "(postgres(ql)?://)?[a-c=@:/?&%,'\\\\ \\[\\]\u{e4}0-9]{0,40}") {
        _ = parse(&text);
    }
}
