//! From a call to its answer.
//!
//! Must not know: connections.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::route::{BadRequest, Call, Endpoint, route};
use super::{Agent, Frame, Frames, Head, Refusal, Slot, Start};
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
            let page = Bytes::from(agent.metrics().await);
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
        Call::Handoffs => as_json(StatusCode::OK, &agent.handoffs().await).into(),
        Call::Drain => done(agent.drain().await).into(),
        Call::Reload => done(agent.reload().await).into(),
        Call::Log(request) => {
            let Ok(permit) = Arc::clone(streams).try_acquire_owned() else {
                let what = "too many logs are being read; try again when one of them has ended";
                return error(StatusCode::SERVICE_UNAVAILABLE, what).into();
            };
            let slot = Slot(Arc::new(permit));
            let framed = request.framed;
            match agent.log(request, slot.clone()).await {
                Ok(frames) if framed => in_frames(frames, slot),
                Ok(frames) => as_bytes(frames, slot).await,
                Err(refusal) => refused(&refusal).into(),
            }
        }
    }
}

fn in_frames(frames: Frames, slot: Slot) -> Answer {
    let frames = frames.map(move |frame| {
        // It is held as long as the log is read.
        let _ = &slot;
        Ok(Frame::encoded(&frame))
    });
    let kind = "application/vnd.logchain.frames";
    stream(kind, frames)
}

/// The log's bytes alone. The answer ends where bytes are missing, so that none are taken to
/// follow others: a request from there on says how the log goes on.
async fn as_bytes(mut frames: Frames, slot: Slot) -> Answer {
    let Some(Frame::Head(head)) = frames.next().await else {
        let what = "the log cannot be read";
        return error(StatusCode::INTERNAL_SERVER_ERROR, what).into();
    };
    let Head { start, end, .. } = *head;
    let offset = match start {
        Start::NoSuchBoot => {
            let what = "the log of that boot is not there";
            return error(StatusCode::GONE, what).into();
        }
        Start::At(offset) => offset,
        Start::Expired(next) => {
            let what = format!("that offset has expired: the first one still there is {next}");
            return error(StatusCode::GONE, &what).into();
        }
        Start::Arriving(_) => {
            let what = "that offset is not there yet: history is being put in place; try again";
            return error(StatusCode::SERVICE_UNAVAILABLE, what).into();
        }
        Start::Beyond => {
            let what = format!("that offset is not there yet: the log ends at {end}");
            return error(StatusCode::UNPROCESSABLE_ENTITY, &what).into();
        }
    };
    let bytes = frames
        .scan(offset, move |at, frame| {
            // It is held as long as the log is read.
            let _ = &slot;
            let next = match frame {
                Frame::Bytes { offset, bytes } => {
                    *at = offset.saturating_add(bytes.len() as u64);
                    Some(Some(Ok(bytes)))
                }
                // A gap before the first byte is one of an unknown size at the offset that was
                // asked for.
                Frame::Missing { next, .. } if next == offset && *at == offset => Some(None),
                Frame::Missing { .. } | Frame::End { .. } => None,
                Frame::Head(_) | Frame::CaughtUp => Some(None),
                Frame::Failed(why) => {
                    tracing::warn!(error = why, "a log that a client reads broke off");
                    Some(Some(Err(crate::Error::Refused(why))))
                }
            };
            std::future::ready(next)
        })
        .filter_map(std::future::ready);
    let mut answer = stream("application/octet-stream", bytes);
    let headers = answer.response.headers_mut();
    headers.insert(OFFSET, HeaderValue::from(offset));
    answer
}

fn stream(
    kind: &'static str,
    bytes: impl Stream<Item = Result<Bytes, crate::Error>> + Send + 'static,
) -> Answer {
    let frames = bytes.map_ok(hyper::body::Frame::data);
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
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
