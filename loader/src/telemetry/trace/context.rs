//! The W3C trace context in a message: <https://www.w3.org/TR/trace-context/>.
//!
//! Producers put it into message attributes with the type String, as OpenTelemetry's instrumentations of the AWS SDKs do. The
//! system attribute `AWSTraceHeader` is X-Ray's own, and is not read.

use std::collections::HashMap;

use aws_sdk_sqs::types::MessageAttributeValue;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;

use super::export::tracer;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// Bytes of a traceparent with version 00. A later version has at least as many.
const LENGTH: usize = 55;
/// Maximum bytes of a tracestate. W3C requires propagating at least 512. Longer values are dropped, because one is kept
/// for each message in flight.
const LONGEST_STATE: usize = 512;

/// Returns the message attributes to ask SQS for. Without exported traces there are none, because each one costs on
/// every call.
pub(crate) fn message_attributes() -> Option<Vec<String>> {
    tracer().map(|_| vec![TRACEPARENT.to_owned(), TRACESTATE.to_owned()])
}

/// Returns the context in a message's attributes, if it is valid.
pub(super) fn of(attributes: &HashMap<String, MessageAttributeValue>) -> Option<Context> {
    let attributes = Attributes(attributes);
    // The propagator would accept numbers of any length.
    if !attributes.get(TRACEPARENT).is_some_and(is_well_formed) {
        return None;
    }
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &attributes);
    context.has_active_span().then_some(context)
}

struct Attributes<'m>(&'m HashMap<String, MessageAttributeValue>);

impl Extractor for Attributes<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let value = self.0.get(key)?.string_value()?;
        (key != TRACESTATE || value.len() <= LONGEST_STATE).then_some(value)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

/// Whether there are as many lowercase hexadecimal digits between the hyphens as there must be.
fn is_well_formed(traceparent: &str) -> bool {
    let (known, rest) = traceparent.as_bytes().split_at(traceparent.len().min(LENGTH));
    let fits = |(place, byte): (usize, &u8)| match place {
        2 | 35 | 52 => *byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    // A later version may continue after another hyphen.
    let ends = rest.is_empty() || (rest.starts_with(b"-") && !known.starts_with(b"00"));
    known.len() == LENGTH && known.iter().enumerate().all(fits) && ends
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::SpanContext;

    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(attributes: &[(&str, &str)]) -> Option<SpanContext> {
        let value =
            |text: &str| MessageAttributeValue::builder().data_type("String").string_value(text).build();
        let attributes =
            attributes.iter().map(|(name, text)| ((*name).to_owned(), value(text).unwrap())).collect();
        of(&attributes).map(|context| context.span().span_context().clone())
    }

    #[test]
    fn a_trace_context_is_read_from_message_attributes() {
        let context = read(&[("traceparent", VALID), ("tracestate", "a=1, b=2"), ("other", "x")]).unwrap();
        assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.span_id().to_string(), "b7ad6b7169203331");
        assert!(context.is_sampled() && context.is_remote());
        assert_eq!(context.trace_state().header(), "a=1,b=2");
        assert!(!read(&[("traceparent", &VALID.replace("-01", "-00"))]).unwrap().is_sampled());
        // A later version may have more fields.
        assert!(read(&[("traceparent", &(VALID.replace("00-", "cc-") + "-more"))]).is_some());
    }

    #[test]
    fn an_invalid_traceparent_is_ignored() {
        for traceparent in [
            "",
            "soon",
            "00-1-1-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            &(VALID.to_owned() + "-"),
            &(VALID.to_owned() + "-more"),
            &(VALID.replace("00-", "cc-") + "more"),
            &"é".repeat(28),
        ] {
            assert_eq!(read(&[("traceparent", traceparent)]), None, "{traceparent}");
        }
        assert_eq!(read(&[("tracestate", "a=1")]), None);
        assert_eq!(read(&[("Traceparent", VALID)]), None, "names of attributes have cases");
    }

    #[test]
    fn a_tracestate_that_is_invalid_or_long_leaves_the_trace_as_it_is() {
        let long = ["a", "b", "c"].map(|key| format!("{key}={}", "x".repeat(200))).join(",");
        for state in ["no pair", &long] {
            let context = read(&[("traceparent", VALID), ("tracestate", state)]).unwrap();
            assert_eq!(context.trace_state().header(), "");
        }
    }
}
