//! Tokens for IAM database authentication of Amazon RDS and Aurora: a presigned URL in place of a password. RDS takes one
//! for 15 minutes, so each connection has its own.

use std::error::Error as StdError;
use std::fmt::Write;
use std::time::{Duration, SystemTime};

use aws_config::BehaviorVersion;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use hyper::http::Request;
use tokio::time::timeout;

use super::Host;
use crate::error::Error;
use crate::queue::innermost;

/// How long RDS takes a token.
const EXPIRES: Duration = Duration::from_mins(15);
/// How long the AWS credentials may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Makes a token by AWS's standard chain of credentials.
pub(super) async fn token(host: &Host, user: &str) -> Result<String, Error> {
    let failed = |why: &str| Error::ConnectionFile(format!("--rds-iam: no token for {host}: {why}"));
    let made = timeout(LIMIT, make(host, user)).await;
    made.unwrap_or_else(|_| Err("AWS credentials did not come in time".into()))
        .map_err(|e| failed(&e.to_string()))
}

async fn make(host: &Host, user: &str) -> Result<String, Box<dyn StdError>> {
    let settings = aws_config::load_defaults(BehaviorVersion::v2026_01_12()).await;
    let region = region_of(&host.name).or_else(|| settings.region().map(AsRef::as_ref));
    let region = region.ok_or("no AWS region. Set AWS_REGION")?;
    let provider = settings.credentials_provider().ok_or("no source of AWS credentials")?;
    // The SDK's words can name a file or a URL, and no secret.
    let credentials = provider.provide_credentials().await.map_err(|e| innermost(&e))?;
    presigned(host, user, region, credentials, SystemTime::now())
}

/// Reads the region in the name of an endpoint, as in `db.abc123.eu-west-1.rds.amazonaws.com`, or in China as in
/// `db.abc123.rds.cn-north-1.amazonaws.com.cn`.
fn region_of(host: &str) -> Option<&str> {
    let (before, after) = host.split_once(".rds.")?;
    match after.strip_suffix(".amazonaws.com.cn") {
        Some(region) => Some(region),
        None if after == "amazonaws.com" => before.rsplit('.').next(),
        None => None,
    }
}

fn presigned(
    host: &Host,
    user: &str,
    region: &str,
    credentials: Credentials,
    time: SystemTime,
) -> Result<String, Box<dyn StdError>> {
    let url = format!("https://{host}/?Action=connect&DBUser={}", encoded(user));
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(EXPIRES);
    let identity = credentials.into();
    let parameters = SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("rds-db")
        .time(time)
        .settings(settings)
        .build()?;
    let request = SignableRequest::new("GET", &*url, std::iter::empty(), SignableBody::Bytes(&[]))?;
    let (instructions, _) = sign(request, &parameters.into())?.into_parts();
    let mut request = Request::get(url).body(())?;
    instructions.apply_to_request_http1x(&mut request);
    Ok(request.uri().to_string().trim_start_matches("https://").to_owned())
}

/// Encodes a value for the query of a URL.
fn encoded(value: &str) -> String {
    value.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // A String can always be written.
            _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::primitives::{DateTime, DateTimeFormat};

    use super::*;

    /// Made with botocore 1.44.8 (`SigV4QueryAuth`), for 2026-11-27 12:00:00 UTC.
    #[test]
    fn a_token_is_the_one_that_botocore_makes() {
        let host = Host { name: "db.abc123.eu-west-1.rds.amazonaws.com".into(), address: None, port: 5432 };
        let time = DateTime::from_str("2026-11-27T12:00:00Z", DateTimeFormat::DateTime).unwrap();
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let credentials = |session: Option<&str>| {
            Credentials::new("AKIDEXAMPLE", secret, session.map(str::to_owned), None, "t")
        };
        let start = "db.abc123.eu-west-1.rds.amazonaws.com:5432/?Action=connect&DBUser=my_loader\
             &X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20261127%2Feu-west-1%2Frds-db%2Faws4_request\
             &X-Amz-Date=20261127T120000Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host";
        for (session, end) in [
            (None, "&X-Amz-Signature=7e0c7d4995cadd8637408f71f9ab5b793247cd1128202321ac76c0a119fc62f2"),
            (
                Some("FwoGZXIvYXdzEXAMPLE/+="),
                "&X-Amz-Security-Token=FwoGZXIvYXdzEXAMPLE%2F%2B%3D\
                 &X-Amz-Signature=22b0704bce195ff1786e4faf5a929148badcaea8c72b8e2c47770c3df6a0107c",
            ),
        ] {
            let region = region_of(&host.name).unwrap();
            let token = presigned(&host, "my_loader", region, credentials(session), time.try_into().unwrap())
                .unwrap();
            // The order of parameters has no meaning.
            let parts =
                |url: &str| url.split('&').map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
            assert_eq!(parts(&token), parts(&format!("{start}{end}")));
        }
    }

    #[test]
    fn the_endpoint_tells_its_region() {
        assert_eq!(region_of("c.cluster-x.us-gov-west-1.rds.amazonaws.com"), Some("us-gov-west-1"));
        assert_eq!(region_of("db.x.rds.cn-north-1.amazonaws.com.cn"), Some("cn-north-1"));
        assert_eq!(region_of("db.example"), None);
    }
}
