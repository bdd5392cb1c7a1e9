//! News to a webhook: one request, no redirects, no second attempt, and never a word about where it went but the host.
//!
//! Belongs here: the request. Does not: what is said, and when ([`crate::observe`]).

use std::{fmt, sync::atomic::AtomicBool, time::Duration};

use reqwest::{Url, header::CONTENT_TYPE};
use serde::Deserialize;
use tokio::time::timeout;

use super::{client::Clients, config, config::SourceConfig, failure};
use crate::{
    error::{Error, ErrorKind, Result},
    host::asked,
};

/// The address of a webhook. Whoever knows it may use it, so it is never shown: not in messages, logs or `Debug`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Webhook(String);

impl Webhook {
    /// An address as it stands in a file.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// Whether it can be used. Opens no connection.
    ///
    /// # Errors
    /// `config` for what is no address, or neither https nor plain http to this very machine. The address isn't in it.
    pub fn check(&self) -> Result<()> {
        self.url().map(|_| ())
    }

    fn url(&self) -> Result<Url> {
        config::endpoint(&self.0).map_err(|_| {
            Error::new(ErrorKind::Config, "is not the address of a webhook that may be used")
                .hint("it must be a whole https address; plain http is accepted to 127.0.0.1, [::1] and localhost")
        })
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Webhook(…)")
    }
}

/// Sends a JSON text there. Done means that the server answered with a status of 200 to 299.
///
/// The certificate must be one that the system or `source.ca_file` vouches for. The call blocks for `limit` at most,
/// and no longer than until `leave` becomes true.
///
/// # Errors
/// `config`, or a `fetch-…` kind that says what went wrong, with the host's name and nothing else of the address.
pub fn post(source: &SourceConfig, webhook: &Webhook, body: String, limit: Duration, leave: &AtomicBool) -> Result<()> {
    let url = webhook.url().map_err(|e| Error { message: format!("the configured address {}", e.message), ..e })?;
    let host = url.host_str().unwrap_or_default().to_owned();
    let failed = |kind, what: &str| Error::new(kind, format!("the webhook at {host}: {what}"));
    let clients = Clients::straight(source)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|e| failed(ErrorKind::Internal, &crate::error::io_reason(&e)))?;
    let request = clients.towards(&url).post(url.clone()).header(CONTENT_TYPE, "application/json").body(body);
    let answer = runtime.block_on(async {
        tokio::select! {
            answer = timeout(limit, request.send()) => Some(answer),
            () = asked(leave) => None,
        }
    });
    // As in `fetch`: the thread that resolves names can't be stopped.
    runtime.shutdown_background();
    let Some(answer) = answer else {
        return Err(failed(
            ErrorKind::FetchTimeout,
            "it was not waited for any longer, because edgeallow was asked to end",
        ));
    };
    match answer {
        Err(_) => Err(failed(ErrorKind::FetchTimeout, &format!("no answer within {}", failure::seconds(limit)))),
        Ok(Err(e)) => {
            let what = failure::transport(&e, &url, source.connect_timeout);
            Err(failed(ErrorKind::FetchConnect, what.what()))
        }
        Ok(Ok(response)) if response.status().is_success() => Ok(()),
        Ok(Ok(response)) if response.status().is_redirection() => {
            let what = format!("it answered {}, and redirects are not followed", response.status());
            Err(failed(ErrorKind::FetchRedirect, &what))
        }
        Ok(Ok(response)) => Err(failed(ErrorKind::FetchStatus, &format!("it answered {}", response.status()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_or_this_very_machine_and_nothing_of_it_is_shown() {
        for good in ["https://hooks.example/services/T0/B0/secret", " http://127.0.0.1:9/secret\n"] {
            assert_eq!(Webhook::new(good).check(), Ok(()), "{good}");
        }
        for bad in ["http://hooks.example/secret", "secret", "", "file:///secret", "https://"] {
            let error = Webhook::new(bad).check().unwrap_err();
            assert!(error.kind == ErrorKind::Config && !format!("{error:?}").contains("secret"), "{error:?}");
        }
        let webhook: Webhook = serde_json::from_str("\"https://hooks.example/secret\"").unwrap();
        assert_eq!(format!("{webhook:?}"), "Webhook(…)");
    }
    #[test]
    fn it_is_given_up_when_we_are_asked_to_end() {
        // It takes connections, and answers nobody.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let webhook = Webhook::new(&format!("http://{}/secret", silent.local_addr().unwrap()));
        let (leave, began) = (AtomicBool::new(false), std::time::Instant::now());
        let error = std::thread::scope(|scope| {
            let told = scope.spawn(|| {
                post(&SourceConfig::default(), &webhook, "{}".to_owned(), Duration::from_secs(60), &leave).unwrap_err()
            });
            let held = silent.accept().unwrap();
            leave.store(true, std::sync::atomic::Ordering::SeqCst);
            let error = told.join().unwrap();
            drop(held);
            error
        });
        assert!(error.message.contains("because edgeallow was asked to end"), "{error}");
        assert!(!format!("{error:?}").contains("secret") && began.elapsed() < Duration::from_secs(20), "{error:?}");
    }
}
