//! Which call a request is. Pure.
//!
//! Must not know: connections, answers.

use hyper::Method;

use super::LogRequest;

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// The control socket, which knows its callers.
    Socket,
    /// The address for Prometheus, which does not.
    Network,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Metrics,
    Health,
    Status,
    Handoffs,
    Log(LogRequest),
    Drain,
    Reload,
}

/// Why a request is no call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BadRequest {
    /// There is no such path.
    Path,
    /// The path wants this method.
    Method(&'static str),
    /// A part of it is wrong.
    Wrong(String),
}

/// The call that a request is. `endpoint`: where it came in.
pub(super) fn route(
    method: &Method,
    path: &str,
    query: Option<&str>,
    endpoint: Endpoint,
) -> Result<Call, BadRequest> {
    let parts: Vec<_> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    let (call, wants) = match (parts.as_slice(), endpoint) {
        (["metrics"], _) => (Call::Metrics, Method::GET),
        (["healthz"], _) => (Call::Health, Method::GET),
        (_, Endpoint::Network) => return Err(BadRequest::Path),
        (["v1", "status"], _) => (Call::Status, Method::GET),
        (["v1", "drain"], _) => (Call::Drain, Method::POST),
        (["v1", "reload"], _) => (Call::Reload, Method::POST),
        (["v1", "handoffs"], _) => (Call::Handoffs, Method::GET),
        (["v1", "log", domain], _) => (log(domain, None, query)?, Method::GET),
        (["v1", "log", domain, console], _) => (log(domain, Some(console), query)?, Method::GET),
        _ => return Err(BadRequest::Path),
    };
    // What changes nothing is asked for by GET, what changes something by POST.
    if *method == wants || (wants == Method::GET && *method == Method::HEAD) {
        Ok(call)
    } else if wants == Method::GET {
        Err(BadRequest::Method("GET"))
    } else {
        Err(BadRequest::Method("POST"))
    }
}

fn log(domain: &str, console: Option<&str>, query: Option<&str>) -> Result<Call, BadRequest> {
    let request = LogRequest::read(domain, console, query);
    request.map(Call::Log).map_err(BadRequest::Wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_call() {
        let of = |method: Method, path: &str, query: Option<&str>| {
            route(&method, path, query, Endpoint::Socket)
        };
        assert_eq!(of(Method::GET, "/metrics", None), Ok(Call::Metrics));
        assert_eq!(of(Method::HEAD, "/healthz", None), Ok(Call::Health));
        assert_eq!(of(Method::GET, "/v1/status", None), Ok(Call::Status));
        assert_eq!(of(Method::POST, "/v1/drain", None), Ok(Call::Drain));
        assert_eq!(of(Method::POST, "/v1/reload", None), Ok(Call::Reload));
        assert_eq!(
            of(Method::GET, "/v1/drain", None),
            Err(BadRequest::Method("POST"))
        );
        assert_eq!(
            of(Method::POST, "/v1/status", None),
            Err(BadRequest::Method("GET"))
        );
        assert_eq!(of(Method::GET, "/v1/handoffs", None), Ok(Call::Handoffs));
        for path in [
            "",
            "/",
            "/v1",
            "/v1/status/",
            "//metrics",
            "/v1/log",
            "/v1/log/x/y/z",
        ] {
            assert_eq!(of(Method::GET, path, None), Err(BadRequest::Path), "{path}");
        }
    }

    #[test]
    fn the_network_has_metrics_and_health_alone() {
        let of = |method: Method, path: &str| route(&method, path, None, Endpoint::Network);
        assert_eq!(of(Method::GET, "/metrics"), Ok(Call::Metrics));
        assert_eq!(of(Method::GET, "/healthz"), Ok(Call::Health));
        for path in [
            "/v1/status",
            "/v1/handoffs",
            "/v1/drain",
            "/v1/reload",
            "/v1/log/x",
            "/v1/log/x/y",
        ] {
            assert_eq!(of(Method::GET, path), Err(BadRequest::Path));
            assert_eq!(of(Method::POST, path), Err(BadRequest::Path));
        }
    }

    #[test]
    fn a_log_is_asked_for_by_domain_and_console() {
        let of = |path: &str| route(&Method::GET, path, Some("from=42"), Endpoint::Socket);
        for (path, console) in [
            ("/v1/log/vm1", None),
            ("/v1/log/vm1/serial0", Some("serial0")),
        ] {
            let Ok(Call::Log(request)) = of(path) else {
                panic!("{path} is no log");
            };
            assert_eq!(request.domain, "vm1");
            assert_eq!(request.console.as_ref().map(|c| c.as_str()), console);
        }
        assert!(matches!(
            of("/v1/log/vm1/..%2F.."),
            Err(BadRequest::Wrong(_))
        ));
    }
}
