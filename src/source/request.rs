//! One document: asked for, asked for again where that makes sense, and read within limits.
//!
//! Belongs here: attempts, pauses, time and size. Does not: what a failure means ([`super::failure`]), nor what stands
//! in the document.

use std::time::Duration;

use reqwest::{
    Response, StatusCode, Url,
    header::{ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED},
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    Fault, Validator,
    client::Clients,
    config::{self, SourceConfig},
    failure::{self, Again, Failure},
};

/// The largest body, after decompression. Cloudflare's documents have less than 1 KiB.
const BODY_LIMIT: usize = 64 * 1024;
/// How often a document is asked for at most.
const ATTEMPTS: u32 = 3;
/// The longest pause that a server may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What came.
pub(super) enum Answer {
    /// The whole body, and what to ask with next time.
    Document { body: Vec<u8>, validator: Option<Validator> },
    /// What is stored is still current.
    NotModified,
}

/// Fetches one document. `stored` is only used if it came from this very address.
pub(super) async fn document(
    clients: &Clients,
    config: &SourceConfig,
    url: &Url,
    stored: Option<&Validator>,
) -> Result<Answer, Fault> {
    let stored = stored.filter(|v| v.is_for(url));
    let mut left = config.timeout;
    let mut attempt = 1;
    loop {
        tracing::debug!(url = config::shown(url), attempt, "asking");
        let began = Instant::now();
        let outcome = timeout(left, once(clients, config, url, stored))
            .await
            .unwrap_or_else(|_| Err(Failure::out_of_time(config.timeout)));
        left = left.saturating_sub(began.elapsed());
        let failure = match outcome {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        let pause = match failure.again {
            Again::Never => None,
            Again::After(pause) => Some(pause),
            Again::Soon => {
                let pause = backoff(config.retry_wait, attempt);
                left = left.saturating_sub(pause);
                Some(pause)
            }
        };
        match pause {
            Some(pause) if attempt < ATTEMPTS && !left.is_zero() => {
                tracing::debug!(?failure, ?pause, "trying again");
                sleep(pause).await;
                attempt += 1;
            }
            _ => return Err(failure.into_fault(url, attempt)),
        }
    }
}

/// Doubles with each attempt, and varies from half to one and a half of that, lest all machines come back at once.
fn backoff(first: Duration, attempt: u32) -> Duration {
    first.saturating_mul(1 << (attempt - 1)).mul_f64(0.5 + fastrand::f64())
}

async fn once(
    clients: &Clients,
    config: &SourceConfig,
    url: &Url,
    stored: Option<&Validator>,
) -> Result<Answer, Failure> {
    let mut request = clients.towards(url).get(url.clone());
    match stored {
        Some(Validator { etag: Some(etag), .. }) => request = request.header(IF_NONE_MATCH, etag),
        Some(Validator { last_modified: Some(date), .. }) => request = request.header(IF_MODIFIED_SINCE, date),
        _ => {}
    }
    let response = request.send().await.map_err(|e| failure::transport(&e, url, config.connect_timeout))?;
    match response.status() {
        StatusCode::OK => {
            let validator = validator(url, response.headers());
            Ok(Answer::Document { body: body(response).await?, validator })
        }
        StatusCode::NOT_MODIFIED if stored.is_some() => Ok(Answer::NotModified),
        StatusCode::NOT_MODIFIED => Err(Failure::unasked_304()),
        other => Err(failure::status(other, response.headers(), LONGEST_WAIT)),
    }
}

/// Reads piece by piece and stops at the limit, so that neither an endless body nor a compressed bomb costs memory.
async fn body(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    if response.content_length().is_some_and(|n| n > BODY_LIMIT as u64) {
        return Err(Failure::too_large(BODY_LIMIT));
    }
    while let Some(piece) = response.chunk().await.map_err(|e| failure::body(&e))? {
        if body.len() + piece.len() > BODY_LIMIT {
            return Err(Failure::too_large(BODY_LIMIT));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

fn validator(url: &Url, headers: &HeaderMap) -> Option<Validator> {
    let text = |name: HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let (etag, last_modified) = (text(ETAG), text(LAST_MODIFIED));
    (etag.is_some() || last_modified.is_some()).then(|| Validator::new(url, etag, last_modified))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_vary() {
        let first = Duration::from_millis(100);
        let (mut shortest, mut longest) = (Duration::MAX, Duration::ZERO);
        for _ in 0..200 {
            let pause = backoff(first, 1);
            (shortest, longest) = (shortest.min(pause), longest.max(pause));
            let second = backoff(first, 2);
            assert!((first..first * 3).contains(&second), "{second:?}");
        }
        assert!(shortest >= first / 2 && longest < first * 3 / 2);
        assert!(longest - shortest > first / 4, "they don't vary: {shortest:?} to {longest:?}");
    }
}
