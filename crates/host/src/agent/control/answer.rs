//! From a call to its answer.
//!
//! Must not know: connections.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::route::{BadRequest, Call, Endpoint, route};
use super::{Agent, LogBytes, Refusal};
use crate::agent::metrics;

/// How long the agent may take for an answer, or to begin one.
const PATIENCE: Duration = Duration::from_secs(30);

/// The body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, crate::Error>;

/// Where the offset of a log's first byte stands in an answer.
pub(super) const OFFSET: &str = "logchain-offset";

/// An answer, and whether it lasts: a log may be read for as long as its client likes.
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    pub(super) is_stream: bool,
}

/// Answers a request. `streams`: how many logs may be read at once.
pub(super) async fn answer<B>(
    agent: &dyn Agent,
    request: &Request<B>,
    endpoint: Endpoint,
    streams: &Arc<Semaphore>,
) -> Answer {
    let uri = request.uri();
    let call = match route(request.method(), uri.path(), uri.query(), endpoint) {
        Ok(call) => call,
        Err(no) => return bad_request(&no).into(),
    };
    let late = || {
        let what = format!("the agent did not answer within {} s", PATIENCE.as_secs());
        error(StatusCode::GATEWAY_TIMEOUT, &what).into()
    };
    let answered = timeout(PATIENCE, called(agent, call, streams)).await;
    answered.unwrap_or_else(|_| late())
}

async fn called(agent: &dyn Agent, call: Call, streams: &Arc<Semaphore>) -> Answer {
    match call {
        Call::Metrics => {
            let page = Bytes::from(agent.metrics());
            with_type(StatusCode::OK, metrics::CONTENT_TYPE, page).into()
        }
        Call::Health => {
            let health = agent.health().await;
            let status = match health.is_healthy() {
                true => StatusCode::OK,
                false => StatusCode::SERVICE_UNAVAILABLE,
            };
            let said = json!({ "healthy": health.is_healthy(), "reasons": health.reasons });
            as_json(status, &said).into()
        }
        Call::Status => as_json(StatusCode::OK, &agent.status().await).into(),
        Call::Drain => done(agent.drain().await).into(),
        Call::Reload => done(agent.reload().await).into(),
        Call::Log(request) => {
            let Ok(permit) = Arc::clone(streams).try_acquire_owned() else {
                let what = "too many logs are being read; try again when one of them has ended";
                return error(StatusCode::SERVICE_UNAVAILABLE, what).into();
            };
            match agent.log(request).await {
                Ok(log) => stream(log, permit),
                Err(refusal) => refused(&refusal).into(),
            }
        }
    }
}

fn stream(log: LogBytes, permit: tokio::sync::OwnedSemaphorePermit) -> Answer {
    let frames = log.bytes.map_ok(Frame::data).map(move |frame| {
        // It is held as long as the log is read.
        let _ = &permit;
        if let Err(e) = &frame {
            tracing::warn!(error = %e.sentence(), "a log that a client reads broke off");
        }
        frame
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(OFFSET, HeaderValue::from(log.offset));
    Answer {
        response,
        is_stream: true,
    }
}

impl From<Response<Body>> for Answer {
    fn from(response: Response<Body>) -> Self {
        Self {
            response,
            is_stream: false,
        }
    }
}

fn done<T: Serialize>(result: Result<T, Refusal>) -> Response<Body> {
    match result {
        Ok(done) => as_json(StatusCode::OK, &done),
        Err(refusal) => refused(&refusal),
    }
}

fn refused(refusal: &Refusal) -> Response<Body> {
    let status = match refusal {
        Refusal::NoSuchLog(_) => StatusCode::NOT_FOUND,
        Refusal::Expired(_) => StatusCode::GONE,
        Refusal::NotNow(_) => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Wrong(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    error(status, &refusal.to_string())
}

fn bad_request(no: &BadRequest) -> Response<Body> {
    match no {
        BadRequest::Path => error(
            StatusCode::NOT_FOUND,
            "there is nothing at this path; begin with /metrics or /healthz",
        ),
        BadRequest::Method(wants) => {
            let what = format!("this path takes {wants} alone");
            let mut response = error(StatusCode::METHOD_NOT_ALLOWED, &what);
            let allow = HeaderValue::from_static(wants);
            response.headers_mut().insert(ALLOW, allow);
            response
        }
        BadRequest::Wrong(what) => error(StatusCode::BAD_REQUEST, what),
    }
}

/// A failure, and why.
pub(super) fn error(status: StatusCode, what: &str) -> Response<Body> {
    as_json(status, &json!({ "error": what }))
}

fn as_json(status: StatusCode, what: &impl Serialize) -> Response<Body> {
    // Its keys are names and its numbers finite: writing to memory cannot fail.
    let mut text = serde_json::to_vec(what).unwrap_or_default();
    text.push(b'\n');
    with_type(status, "application/json", text.into())
}

fn with_type(status: StatusCode, kind: &'static str, text: Bytes) -> Response<Body> {
    let body = Full::new(text).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
