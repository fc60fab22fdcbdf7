//! Tokens for IAM database authentication in Amazon RDS and Aurora: a presigned URL in place of a password. RDS accepts
//! a token for 15 minutes, so each connection has its own.

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

use libpq_connect::{Error, TokenFuture, TokenSource};

use crate::error::innermost;

/// Time for which RDS accepts a token.
const EXPIRES: Duration = Duration::from_mins(15);
/// Maximum time for making a token, including the AWS credentials.
const LIMIT: Duration = Duration::from_secs(10);

/// Makes tokens with credentials from AWS's standard chain.
pub(crate) struct RdsTokens;

impl TokenSource for RdsTokens {
    fn token<'t>(&'t self, host: &'t str, port: u16, user: &'t str) -> TokenFuture<'t> {
        Box::pin(async move {
            let made = timeout(LIMIT, make(host, port, user)).await;
            made.unwrap_or_else(|_| Err("AWS credentials did not come in time".into()))
                .map_err(|e| Error::File(format!("--rds-iam: no token for {host}:{port}: {e}")))
        })
    }

    fn advice(&self) -> String {
        "that the AWS credentials are allowed rds-db:connect for it, that it has the role rds_iam, and that IAM \
         authentication is on (--rds-iam)"
            .into()
    }
}

async fn make(host: &str, port: u16, user: &str) -> Result<String, Box<dyn StdError + Send + Sync>> {
    let settings = aws_config::load_defaults(BehaviorVersion::v2026_01_12()).await;
    let region = region_of(host).or_else(|| settings.region().map(AsRef::as_ref));
    let region = region.ok_or("no AWS region. Set AWS_REGION")?;
    let provider = settings.credentials_provider().ok_or("no source of AWS credentials")?;
    // The SDK's text can name a file or a URL, but no secret.
    let credentials = provider.provide_credentials().await.map_err(|e| innermost(&e))?;
    presigned(&format!("{host}:{port}"), user, region, credentials, SystemTime::now())
}

/// Reads the region from the name of an endpoint, such as `db.abc123.eu-west-1.rds.amazonaws.com`. In China it is like
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
    server: &str,
    user: &str,
    region: &str,
    credentials: Credentials,
    time: SystemTime,
) -> Result<String, Box<dyn StdError + Send + Sync>> {
    let url = format!("https://{server}/?Action=connect&DBUser={}", encoded(user));
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

/// Percent-encodes a value for the query of a URL.
fn encoded(value: &str) -> String {
    value.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String doesn't fail.
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
        let host = "db.abc123.eu-west-1.rds.amazonaws.com";
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
            let region = region_of(host).unwrap();
            let token = presigned(
                &format!("{host}:5432"),
                "my_loader",
                region,
                credentials(session),
                time.try_into().unwrap(),
            )
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
