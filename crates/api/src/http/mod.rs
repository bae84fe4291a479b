//! HTTP/1 on the client port: health, version, metrics. The JSON gateway will join them.

mod checks;
mod health;
mod query;
mod version;

use std::rc::Rc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use self::query::Query;
use crate::config::Role;
use crate::connection::Connection;
use crate::door::Door;
use crate::grpc::reply::{Reply, ReplyBody};

/// Answers one HTTP/1 request.
pub(crate) async fn serve(door: Rc<Door>, connection: Rc<Connection>, request: Request<Incoming>) -> Reply {
    if connection.role == Role::Metrics {
        return route_metrics(&door, &request).await;
    }
    let mut reply =
        if request.method() == Method::OPTIONS { empty(StatusCode::OK) } else { route(&door, &request).await };
    let headers = reply.headers_mut();
    // With no origins configured etcd tells every browser that it may call. Source: `facts/http.md` §4.
    headers.insert("access-control-allow-origin", HeaderValue::from_static("*"));
    headers.insert("access-control-allow-methods", HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"));
    headers.insert("access-control-allow-headers", HeaderValue::from_static("accept, content-type, authorization"));
    reply
}

/// The pages of a metrics listener. Source: `facts/http.md` §7.
async fn route_metrics(door: &Rc<Door>, request: &Request<Incoming>) -> Reply {
    let path = request.uri().path();
    if matches!(path, "/metrics" | "/health") || checks::Suite::at(path).is_some() {
        route(door, request).await
    } else {
        not_found()
    }
}

async fn route(door: &Rc<Door>, request: &Request<Incoming>) -> Reply {
    let (path, query) = (request.uri().path(), Query::parse(request.uri().query().unwrap_or_default()));
    if path == "/metrics" {
        let text = door.page.render(&*door.backend);
        return page(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", text);
    }
    let is_get = request.method() == Method::GET;
    match path {
        "/version" if is_get => version::page(door),
        "/health" if is_get => health::page(door, &query).await,
        _ => match checks::Suite::at(path) {
            Some((suite, only)) if is_get => suite.page(door, only, &query).await,
            None if !matches!(path, "/version" | "/health") => not_found(),
            // etcd's test for GET is an exact one: HEAD is refused too.
            _ => wrong_method(),
        },
    }
}

fn wrong_method() -> Reply {
    let mut reply = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    reply
}

fn not_found() -> Reply {
    error(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Plain text as Go's `http.Error` sends it, whatever the status.
fn error(status: StatusCode, text: impl Into<Bytes>) -> Reply {
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
