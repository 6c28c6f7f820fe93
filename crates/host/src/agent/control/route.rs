//! Which call a request is. Pure.
//!
//! Must not know: connections, answers.

use hyper::Method;
use logchain_core::ids::ConsoleName;
use percent_encoding::percent_decode_str;
use uuid::Uuid;

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
        (["v1", "log", domain, console], _) => {
            (Call::Log(log(domain, console, query)?), Method::GET)
        }
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

fn log(domain: &str, console: &str, query: Option<&str>) -> Result<LogRequest, BadRequest> {
    let wrong = |what: String| BadRequest::Wrong(what);
    let domain = Uuid::parse_str(domain)
        .map_err(|_| wrong(format!("{domain:?} is no UUID; give the domain's UUID")))?;
    let console = percent_decode_str(console).decode_utf8_lossy();
    let console: ConsoleName = console
        .parse()
        .map_err(|e| wrong(format!("{console:?} is no console: {e}")))?;
    let mut request = LogRequest {
        domain,
        console,
        from: None,
        follow: false,
    };
    let pairs = query.unwrap_or_default().split('&');
    for pair in pairs.filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match (name, value) {
            ("from", value) => {
                let offset = value.parse();
                request.from = Some(offset.map_err(|_| {
                    wrong(format!(
                        "from={value:?} is no offset; give a number of bytes"
                    ))
                })?);
            }
            ("follow", "true" | "1" | "") => request.follow = true,
            ("follow", "false" | "0") => request.follow = false,
            _ => {
                return Err(wrong(format!(
                    "{pair:?} is not known; give from=OFFSET and follow=true"
                )));
            }
        }
    }
    Ok(request)
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
        for path in ["", "/", "/v1", "/v1/status/", "//metrics", "/v1/log/x"] {
            assert_eq!(of(Method::GET, path, None), Err(BadRequest::Path), "{path}");
        }
    }

    #[test]
    fn the_network_has_metrics_and_health_alone() {
        let of = |method: Method, path: &str| route(&method, path, None, Endpoint::Network);
        assert_eq!(of(Method::GET, "/metrics"), Ok(Call::Metrics));
        assert_eq!(of(Method::GET, "/healthz"), Ok(Call::Health));
        for path in ["/v1/status", "/v1/drain", "/v1/reload", "/v1/log/x/y"] {
            assert_eq!(of(Method::GET, path), Err(BadRequest::Path));
            assert_eq!(of(Method::POST, path), Err(BadRequest::Path));
        }
    }

    #[test]
    fn a_log_is_asked_for_by_offset() {
        let of = |console: &str, query| {
            let path = format!("/v1/log/{}/{console}", Uuid::nil());
            route(&Method::GET, &path, query, Endpoint::Socket)
        };
        let Ok(Call::Log(request)) = of("serial0", Some("from=42&follow=true")) else {
            panic!("no log");
        };
        assert_eq!((request.from, request.follow), (Some(42), true));
        assert_eq!(request.console.as_str(), "serial0");
        let Ok(Call::Log(request)) = of("serial0", None) else {
            panic!("no log");
        };
        assert_eq!((request.from, request.follow), (None, false));
        for query in ["from=-1", "from=", "from=1&to=2", "follow=maybe"] {
            let found = of("serial0", Some(query));
            assert!(matches!(found, Err(BadRequest::Wrong(_))), "{query}");
        }
        assert!(matches!(of("..%2F..", None), Err(BadRequest::Wrong(_))));
        let no_uuid = route(&Method::GET, "/v1/log/vm1/serial0", None, Endpoint::Socket);
        assert!(matches!(no_uuid, Err(BadRequest::Wrong(_))));
    }
}
