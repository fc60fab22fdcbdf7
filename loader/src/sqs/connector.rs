//! The HTTP client for receive calls. It reads an answer once memory has room for it.
//!
//! A receive call reserves memory by a guess from earlier messages. SQS's answer gives its length before its body. An
//! answer that is longer than the guess waits in the network until messages in memory are stored.

use std::cell::Cell;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;

use crate::leases::capacity::Share;

tokio::task_local! {
    /// Memory reserved for the answer to the call that the task makes.
    static MEMORY: Cell<Option<Share>>;
}

/// Makes a call whose answer must fit into `memory`. Returns the answer with the memory that it needed.
pub(super) async fn within<F: Future>(memory: Share, call: F) -> (F::Output, Share) {
    let call = async {
        let answer = call.await;
        (answer, MEMORY.with(Cell::take).unwrap_or_default())
    };
    MEMORY.scope(Cell::new(Some(memory)), call).await
}

/// Returns the SDK's own client, which also waits for memory.
pub(super) fn client() -> SharedHttpClient {
    let client = Builder::new().build_with_connector_fn(|settings, components| {
        let mut connector = Connector::builder().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
        connector.set_connector_settings(settings.cloned());
        connector.set_proxy_config(Some(ProxyConfig::from_env()));
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.build()
    });
    http_client_fn(move |settings, components| {
        SharedHttpConnector::new(Waiting(client.http_connector(settings, components)))
    })
}

/// A connector whose answers wait for memory.
#[derive(Debug)]
struct Waiting(SharedHttpConnector);

impl HttpConnector for Waiting {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await?;
            let length = answer.headers().get("content-length").and_then(|length| length.parse().ok());
            if let Some(length) = length
                && let Ok(Some(memory)) = MEMORY.try_with(Cell::take)
            {
                let memory = memory.grow(length).await;
                MEMORY.with(|place| place.set(Some(memory)));
            }
            Ok(answer)
        })
    }
}
