//! Pages of the client port: health, version, metrics, debug; and the way to the JSON gateway. Pages of the peer port.

mod access;
mod checks;
pub(crate) mod debug;
mod health;
mod metrics;
mod path;
mod peer;
mod query;
mod version;

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderValue, LOCATION};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use self::query::Query;
use crate::config::Role;
use crate::connection::Connection;
use crate::door::Door;
use crate::gateway;
use crate::grpc::reply::{Reply, ReplyBody};

/// Answers one HTTP request.
pub(crate) async fn serve(door: Rc<Door>, connection: Rc<Connection>, request: Request<Incoming>) -> Reply {
    if connection.role == Role::Metrics {
        return serve_metrics(&door, &request).await;
    }
    if let Some(refused) = malformed(&request) {
        return refused;
    }
    if connection.role == Role::Peer {
        return peer::serve(&door, &connection, request).await;
    }
    let config = Arc::clone(&door.config);
    // Nobody else has our certificate: only without TLS may a script have made its own name point here.
    if !connection.is_tls
        && let Some(refused) = access::refusal(&config, &request)
    {
        return refused;
    }
    let origin = request.headers().get(http::header::ORIGIN).cloned();
    let mut reply = if request.method() == Method::OPTIONS {
        empty(StatusCode::OK)
    } else {
        dispatch(&door, &connection, request).await
    };
    // A socket that has been agreed to is no page any more.
    if reply.status() != StatusCode::SWITCHING_PROTOCOLS {
        access::allow_origin(&config, origin.as_ref(), reply.headers_mut());
    }
    reply
}

/// Refuses what no page can make sense of. Source: Go's `http.Server`.
fn malformed(request: &Request<Incoming>) -> Option<Reply> {
    let bad = |text: &'static str| Some(page(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", text));
    if request.version() == Version::HTTP_11 {
        match request.headers().get_all(HOST).iter().count() {
            0 => return bad("400 Bad Request: missing required Host header"),
            1 => {}
            _ => return bad("400 Bad Request: too many Host headers"),
        }
    }
    let expects = request.headers().get(EXPECT).map_or(&b""[..], |value| value.as_bytes());
    if !expects.is_empty() && !expects.eq_ignore_ascii_case(b"100-continue") {
        return Some(empty(StatusCode::EXPECTATION_FAILED));
    }
    let path = request.uri().path();
    match *request.method() {
        Method::CONNECT => Some(not_found()),
        Method::OPTIONS if path == "*" => Some(empty(StatusCode::OK)),
        _ if path.starts_with('/') && path::decode(path).is_some() => None,
        _ => bad("400 Bad Request"),
    }
}

/// The pages of a metrics listener. Source: `facts/http.md` §7.
async fn serve_metrics(door: &Rc<Door>, request: &Request<Incoming>) -> Reply {
    let path = request.uri().path();
    if matches!(path, "/metrics" | "/health") || checks::Suite::at(path).is_some() {
        route(door, path, &Query::parse(request.uri().query().unwrap_or_default()), request.method(), request.headers())
            .await
    } else {
        not_found()
    }
}

async fn dispatch(door: &Rc<Door>, connection: &Rc<Connection>, request: Request<Incoming>) -> Reply {
    let raw = request.uri().path();
    let raw = match raw.strip_prefix("/v3beta/") {
        Some(rest) => format!("/v3/{rest}"),
        None => raw.to_owned(),
    };
    let trees = [(door.config.is_gateway_on, "/v3"), (door.config.is_pprof_on, "/debug/pprof")];
    let trees: Vec<&str> = trees.into_iter().filter_map(|(is_on, tree)| is_on.then_some(tree)).collect();
    if let Some(short) = path::shortest(&raw, &trees) {
        return detour(&short, &request);
    }
    let path = path::decode(&raw).unwrap_or_default();
    if path.starts_with("/v3/") && door.config.is_gateway_on {
        return gateway::serve(door, connection, &path, request).await;
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    route(door, &path, &query, request.method(), request.headers()).await
}

async fn route(door: &Rc<Door>, path: &str, query: &Query, method: &Method, headers: &HeaderMap) -> Reply {
    if path == "/metrics" {
        return metrics::page(door, headers).await;
    }
    let is_get = method == Method::GET;
    if path.starts_with("/debug/") {
        return debug::page(door, path, is_get).await;
    }
    match path {
        "/version" if is_get => version::page(door),
        "/health" if is_get => health::page(door, query).await,
        _ => match checks::Suite::at(path) {
            Some((suite, only)) if is_get => suite.page(door, only, query).await,
            None if !matches!(path, "/version" | "/health") => not_found(),
            // etcd's test for GET is an exact one: HEAD is refused too.
            _ => wrong_method(),
        },
    }
}

/// Sends the client to the shortest form of its path. Source: Go's `http.Redirect`.
fn detour(short: &str, request: &Request<Incoming>) -> Reply {
    let location = match request.uri().query() {
        Some(query) => format!("{}?{query}", escape(short)),
        None => escape(short),
    };
    let mut reply = match *request.method() {
        Method::GET | Method::HEAD => {
            let text = format!("<a href=\"{}\">Temporary Redirect</a>.\n\n", location.replace('&', "&amp;"));
            page(StatusCode::TEMPORARY_REDIRECT, "text/html; charset=utf-8", text)
        }
        _ => empty(StatusCode::TEMPORARY_REDIRECT),
    };
    if let Ok(location) = HeaderValue::try_from(location) {
        reply.headers_mut().insert(LOCATION, location);
    }
    reply
}

/// A path is escaped already; what would mean something in HTML or a header and was let through is, too.
fn escape(path: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~:@!$*+,;=%".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a String takes everything");
        }
    }
    out
}

fn wrong_method() -> Reply {
    only("GET")
}

/// Refuses every method but `method`.
fn only(method: &'static str) -> Reply {
    let mut reply = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(method));
    reply
}

fn not_found() -> Reply {
    error(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Plain text as Go's `http.Error` sends it, whatever the status.
pub(crate) fn error(status: StatusCode, text: impl Into<Bytes>) -> Reply {
    let mut reply = page(status, "text/plain; charset=utf-8", text);
    reply.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    reply
}

fn page(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(ReplyBody::Plain(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(ReplyBody::Empty);
    *reply.status_mut() = status;
    reply
}
