//! Address of a queue, read from its URL, ARN or name: region, account, endpoint, name.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Address of a queue as the options give it, before any call to AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(super) name: String,
    /// Region to sign for. `None` means the region from AWS's standard chain.
    pub(super) region: Option<String>,
    /// Account that owns the queue. `None` means the account of the credentials.
    pub(super) account: Option<String>,
    /// The service's own endpoint. `None` means the public endpoint of the region.
    pub(super) endpoint: Option<String>,
    /// URL that was given. If it is `None`, SQS is asked for it.
    pub(super) url: Option<String>,
}

impl Address {
    /// Reads a name or an ARN. Returns `None` for an ARN that isn't a queue's.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let named = |name: &str| Self {
            name: name.to_owned(),
            region: None,
            account: None,
            endpoint: None,
            url: None,
        };
        if !name.starts_with("arn:") {
            return Some(named(name));
        }
        let parts: Vec<&str> = name.split(':').collect();
        let &[_, _, "sqs", region, account, name] = parts.as_slice() else { return None };
        let all_there = is_region(region) && is_account(account) && !name.is_empty();
        all_there.then(|| Self {
            region: Some(region.to_owned()),
            account: Some(account.to_owned()),
            ..named(name)
        })
    }

    /// Sends calls to another endpoint.
    pub(crate) fn move_to(&mut self, endpoint: &str) {
        self.endpoint = Some(endpoint.to_owned());
    }

    /// Reads a queue URL.
    pub(crate) fn of_url(url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = host(authority);
        let mut path = path.trim_end_matches('/').rsplit('/');
        let name = path.next().filter(|name| !name.is_empty()).unwrap_or(url);
        let account = path.next().filter(|account| is_account(account));
        let (region, is_public) = region_of(host);
        Self {
            name: name.to_owned(),
            region: region.map(str::to_owned),
            account: account.map(str::to_owned),
            // The SDK knows the public endpoint, and whether a FIPS or dual-stack endpoint is asked for instead.
            endpoint: (!is_public).then(|| format!("{scheme}://{authority}")),
            url: Some(url.to_owned()),
        }
    }
}

/// Whether others on the network can read what is sent to a URL.
pub(super) fn is_in_the_open(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let host = host(rest.split('/').next().unwrap_or(rest));
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let is_local = name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || name.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
    !is_local
}

/// Returns the host of `user@host:port`, without the brackets of an IPv6 address.
fn host(authority: &str) -> &str {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    host.split(':').next().unwrap_or(host)
}

/// Returns the region in a host name, and whether the host is the region's public endpoint.
fn region_of(host: &str) -> (Option<&str>, bool) {
    let labels: Vec<&str> = host.split('.').collect();
    match labels.as_slice() {
        // Older names of the public endpoints.
        ["queue", "amazonaws", "com"] => return (Some("us-east-1"), true),
        [region, "queue", "amazonaws", "com"] if is_region(region) => return (Some(region), true),
        ["sqs", region, rest @ ..] if is_region(region) => {
            let is_public = matches!(rest, ["amazonaws", "com"] | ["amazonaws", "com", "cn"]);
            return (Some(region), is_public);
        }
        _ => {}
    }
    // A FIPS or VPC endpoint: vpce-1a2b.sqs.eu-west-1.vpce.amazonaws.com
    let service = labels.iter().position(|label| ["sqs", "sqs-fips"].contains(label));
    let region = service.and_then(|i| labels.get(i + 1)).copied().filter(|region| is_region(region));
    (region, false)
}

/// Whether a text is a region, such as `eu-west-1`, `us-gov-east-1` or `us-isob-east-1`.
fn is_region(text: &str) -> bool {
    let mut parts = text.split('-');
    let ends_in_number =
        parts.next_back().is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    let words: Vec<&str> = parts.collect();
    let is_word = |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
    ends_in_number && words.len() >= 2 && words.iter().all(is_word)
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// Returns names for metrics and logs. Queues with equal names also get the region, account or host by which they differ.
pub(super) fn labels(addresses: &[Address]) -> Vec<String> {
    let label = |(i, address): (usize, &Address)| {
        let others = || {
            let named = |(k, other): &(usize, &Address)| *k != i && other.name == address.name;
            addresses.iter().enumerate().filter(named).map(|(_, other)| other)
        };
        let region = address.region.as_deref().filter(|_| others().any(|o| o.region != address.region));
        let account = address.account.as_deref().filter(|_| others().any(|o| o.account != address.account));
        let has_twin = others().any(|o| o.region == address.region && o.account == address.account);
        let endpoint = address.endpoint.as_deref().filter(|_| has_twin);
        let host = endpoint.map(|url| url.split_once("://").map_or(url, |(_, host)| host));
        let words = [region, account, host, Some(&address.name)];
        words.into_iter().flatten().collect::<Vec<_>>().join("/")
    };
    addresses.iter().enumerate().map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_url_tells_region_account_and_endpoint() {
        const ACCOUNT: &str = "123456789012";
        for (host, region, endpoint) in [
            ("https://sqs.eu-west-1.amazonaws.com", Some("eu-west-1"), None),
            ("https://sqs.cn-north-1.amazonaws.com.cn", Some("cn-north-1"), None),
            ("https://sqs.us-gov-west-1.amazonaws.com", Some("us-gov-west-1"), None),
            ("https://queue.amazonaws.com", Some("us-east-1"), None),
            ("https://eu-west-1.queue.amazonaws.com", Some("eu-west-1"), None),
            ("https://sqs.eu-west-1.api.aws", Some("eu-west-1"), Some("")),
            ("https://sqs-fips.us-east-2.amazonaws.com", Some("us-east-2"), Some("")),
            ("https://sqs-fips.us-east-2.api.aws", Some("us-east-2"), Some("")),
            ("https://sqs.cn-north-1.api.amazonwebservices.com.cn", Some("cn-north-1"), Some("")),
            ("https://sqs.us-isob-east-1.sc2s.sgov.gov", Some("us-isob-east-1"), Some("")),
            ("https://sqs.eusc-de-east-1.amazonaws.eu", Some("eusc-de-east-1"), Some("")),
            ("https://vpce-0a1b-2c3d.sqs.eu-west-1.vpce.amazonaws.com", Some("eu-west-1"), Some("")),
            (
                "https://vpce-0a1b-2c3d-us-east-1a.sqs.us-east-1.vpce.amazonaws.com",
                Some("us-east-1"),
                Some(""),
            ),
            ("https://vpce-0a1b.sqs-fips.us-east-1.vpce.amazonaws.com", Some("us-east-1"), Some("")),
            ("http://sqs.us-east-2.localhost.localstack.cloud:4566", Some("us-east-2"), Some("")),
            ("http://localhost:9324", None, Some("")),
            ("http://[::1]:9324", None, Some("")),
            ("https://sqs.example.com", None, Some("")),
            ("https://sqs.internal", None, Some("")),
        ] {
            let url = format!("{host}/{ACCOUNT}/logins.fifo");
            let expected = Address {
                name: "logins.fifo".to_owned(),
                region: region.map(str::to_owned),
                account: Some(ACCOUNT.to_owned()),
                endpoint: endpoint.map(|_: &str| host.to_owned()),
                url: Some(url.clone()),
            };
            assert_eq!(Address::of_url(&url), expected);
        }
        // A server with its own path.
        let own = Address::of_url("http://localhost:9324/queue/logins");
        assert_eq!((own.name.as_str(), own.account), ("logins", None));
    }

    #[test]
    fn an_arn_tells_region_and_account() {
        let named = Address::of_name("logins").unwrap();
        assert_eq!((named.name.as_str(), named.region, named.account), ("logins", None, None));
        for partition in ["aws", "aws-cn", "aws-us-gov"] {
            let queue =
                Address::of_name(&format!("arn:{partition}:sqs:eu-west-1:123456789012:logins")).unwrap();
            assert_eq!((queue.name.as_str(), queue.region.as_deref()), ("logins", Some("eu-west-1")));
            assert_eq!((queue.account.as_deref(), queue.url), (Some("123456789012"), None));
        }
        for wrong in [
            "arn:aws:sns:eu-west-1:123456789012:logins",
            "arn:aws:sqs:eu-west-1:123456789012",
            "arn:aws:sqs::123456789012:logins",
            "arn:aws:sqs:eu-west-1:1234:logins",
            "arn:aws:sqs:eu-west-1:123456789012:",
            "arn:aws:sqs:eu-west-1:123456789012:logins:more",
        ] {
            assert_eq!(Address::of_name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_label_distinguishes_only_queues_that_share_a_name() {
        let labels = |urls: &[&str]| labels(&urls.iter().map(|url| Address::of_url(url)).collect::<Vec<_>>());
        let (a, b) = ("https://sqs.eu-west-1.amazonaws.com", "https://sqs.eu-west-2.amazonaws.com");
        let url = |host: &str, path: &str| format!("{host}/{path}");
        let [here, there] = [a, b].map(|host| url(host, "111111111111/logins"));
        let other = url(a, "222222222222/logins");
        let alone = url(b, "333333333333/payments");
        assert_eq!(labels(&[&here, &alone]), ["logins", "payments"]);
        assert_eq!(labels(&[&here, &there, &alone]), ["eu-west-1/logins", "eu-west-2/logins", "payments"]);
        assert_eq!(labels(&[&here, &other]), ["111111111111/logins", "222222222222/logins"]);
        let endpoint = "https://vpce-1.sqs.eu-west-1.vpce.amazonaws.com/111111111111/logins";
        assert_eq!(labels(&[&here, endpoint]), ["logins", "vpce-1.sqs.eu-west-1.vpce.amazonaws.com/logins"]);
    }

    #[test]
    fn http_is_insecure_except_to_this_machine() {
        for url in ["http://sqs:9324", "http://10.0.0.1/q", "http://sqs.eu-west-1.amazonaws.com/1/q"] {
            assert!(is_in_the_open(url), "{url}");
        }
        for url in [
            "https://sqs.example",
            "http://localhost:9324/q",
            "http://127.0.0.2:1",
            "http://[::1]:1",
            "http://a.localhost",
        ] {
            assert!(!is_in_the_open(url), "{url}");
        }
    }
}
