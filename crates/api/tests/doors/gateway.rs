//! The JSON gateway over HTTP/1.

use milepost_machine::Config;
use serde_json::{Value, json};

use crate::support::{Answer, Exchange, Member, Page, Server, exchange, limits, post, request, run, serve};

async fn call(server: &Server, path: &str, body: &str) -> Page {
    post(server.doors.local_addrs()[0], path, "", body).await
}

/// The header of an answer by the member of the tests.
fn header(revision: &str) -> Value {
    json!({"cluster_id": "7", "member_id": "8", "revision": revision, "raft_term": "2"})
}

/// As etcd 3.7.1 answers, but for ids.
#[test]
fn keys() {
    serve(async |server| {
        let put = call(&server, "/v3/kv/put", r#"{"key":"YQ==","value":"Yg=="}"#).await;
        assert_eq!((put.status, put.json()), (200, json!({"header": header("2")})));
        for line in ["content-type: application/json", "grpc-metadata-content-type: application/grpc"] {
            assert!(put.head.contains(line), "{}", put.head);
        }
        let range = call(&server, "/v3/kv/range", r#"{"key":"YQ=="}"#).await;
        let kv = json!({"key": "YQ==", "create_revision": "2", "mod_revision": "2", "version": "1", "value": "Yg=="});
        assert_eq!(range.json(), json!({"header": header("2"), "kvs": [kv], "count": "1"}));
        let txn = r#"{"compare":[{"key":"YQ==","result":"EQUAL","target":"CREATE","create_revision":"2"}],
            "success":[{"requestDeleteRange":{"key":"YQ=="}}]}"#;
        let deleted = json!({"response_delete_range": {"header": {"revision": "3"}, "deleted": "1"}});
        let answer = call(&server, "/v3/kv/txn", txn).await.json();
        assert_eq!(answer, json!({"header": header("3"), "succeeded": true, "responses": [deleted]}));
        let old = call(&server, "/v3beta/kv/range", r#"{"key":"YQ=="}"#).await;
        assert_eq!(old.json(), json!({"header": header("3")}));
        let compaction = call(&server, "/v3/kv/compaction", r#"{"revision":"3"}"#).await;
        assert_eq!(compaction.status, 200);
        let compacted = call(&server, "/v3/kv/range", r#"{"key":"YQ==","revision":2}"#).await;
        let text = "etcdserver: mvcc: required revision has been compacted";
        assert_eq!((compacted.status, compacted.json()), (400, json!({"code": 11, "message": text})));
    });
}

#[test]
fn every_service_answers() {
    serve(async |server| {
        let lease = call(&server, "/v3/lease/grant", r#"{"TTL":60,"ID":"77"}"#).await.json();
        assert_eq!(lease, json!({"header": header("1"), "ID": "77", "TTL": "60"}));
        for path in ["/v3/lease/timetolive", "/v3/kv/lease/timetolive"] {
            assert_eq!(call(&server, path, r#"{"ID":77}"#).await.json()["grantedTTL"], "60");
        }
        let leases = call(&server, "/v3/lease/leases", "").await.json();
        assert_eq!(leases["leases"], json!([{"ID": "77"}]));
        assert_eq!(call(&server, "/v3/kv/lease/revoke", r#"{"ID":77}"#).await.status, 200);
        let gone = call(&server, "/v3/lease/revoke", r#"{"ID":77}"#).await;
        let text = "etcdserver: requested lease not found";
        assert_eq!((gone.status, gone.json()), (404, json!({"code": 5, "message": text})));
        let status = call(&server, "/v3/maintenance/status", "{}").await.json();
        assert_eq!((&status["version"], &status["downgradeInfo"]), (&json!("3.7.1"), &json!({})));
        assert!(call(&server, "/v3/maintenance/hashkv", "{}").await.json()["hash"].is_u64());
        assert_eq!(call(&server, "/v3/cluster/member/list", "{}").await.status, 200);
        assert_eq!(call(&server, "/v3/auth/status", "{}").await.json()["authRevision"], "1");
        let nobody = call(&server, "/v3/maintenance/transfer-leadership", "{}").await;
        assert_eq!((nobody.status, &nobody.json()["code"]), (400, &json!(9)));
        let lock = call(&server, "/v3/lock/lock", r#"{"name":"YQ=="}"#).await.json();
        let key = lock["key"].as_str().expect("a key").to_owned();
        assert_eq!(call(&server, "/v3/lock/unlock", &json!({"key": key}).to_string()).await.status, 200);
    });
}

#[test]
fn bad_requests() {
    serve(async |server| {
        let address = server.doors.local_addrs()[0];
        let cases: &[(&str, &str, u16, u64, &str)] = &[
            ("/v3/kv/zap", "{}", 404, 5, "Not Found"),
            ("/v3/", "{}", 404, 5, "Not Found"),
            ("/v3/kv/put/", "{}", 404, 5, "Not Found"),
            ("/v3/kv/put", "{}", 400, 3, "etcdserver: key is not provided"),
            ("/v3/kv/put", "", 400, 3, "etcdserver: key is not provided"),
            ("/v3/kv/put", r#"{"key":"YQ=="#, 400, 3, "unexpected EOF"),
            ("/v3/kv/put", "xx", 400, 3, ""),
            ("/v3/kv/put", r#"{"key":"Y"}"#, 400, 3, ""),
            ("/v3/kv/put", r#"{"key":"YQ==","lease":"1"}"#, 404, 5, "etcdserver: requested lease not found"),
            (
                "/v3/kv/range",
                r#"{"key":"YQ==","revision":9}"#,
                400,
                11,
                "etcdserver: mvcc: required revision is a future revision",
            ),
            ("/v3/kv/range", r#"{"key":"YQ==","sort_order":9}"#, 400, 3, "etcdserver: invalid sort option"),
        ];
        for (path, body, status, code, message) in cases {
            let page = call(&server, path, body).await;
            let answer = page.json();
            assert_eq!((page.status, answer["code"].as_u64()), (*status, Some(*code)), "{path} {body}");
            assert!(message.is_empty() || answer["message"] == *message, "{path} {body}: {answer}");
            assert!(page.head.contains("content-type: application/json") && !page.head.contains("grpc-metadata"));
        }
        for verb in ["GET", "PUT", "DELETE", "PATCH"] {
            let page = request(address, verb, "/v3/kv/range").await;
            assert_eq!((page.status, page.json()), (501, json!({"code": 12, "message": "Method Not Allowed"})));
            assert_eq!(request(address, verb, "/v3/kv/zap").await.status, 404);
        }
        let form = "Content-Type: application/x-www-form-urlencoded\r\nX-HTTP-Method-Override: get\r\n";
        assert_eq!(post(address, "/v3/kv/range", form, "{}").await.status, 501);
        for kind in ["text/plain", "application/xml; charset=x", "nonsense"] {
            let page = post(address, "/v3/kv/range", &format!("Content-Type: {kind}\r\n"), r#"{"key":"YQ=="}"#).await;
            assert_eq!(page.status, 200, "the content type is of no interest");
        }
        let trailing = call(&server, "/v3/kv/put", r#"{"key":"YQ=="} and more"#).await;
        assert_eq!(trailing.status, 200);
        let long = format!(r#"{{"key":"YQ==","value":"{}"}}"#, "A".repeat(3 << 20));
        let page = call(&server, "/v3/kv/put", &long).await;
        let text = format!("grpc: received message larger than max ({} vs. 2097152)", (3 << 20) / 4 * 3 + 8);
        assert_eq!((page.status, page.json()), (429, json!({"code": 8, "message": text})));
        let head = "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\nConnection: close\r\n\r\n";
        let page = exchange(address, head).await;
        assert_eq!((page.status, &page.json()["code"]), (429, &json!(8)));
        let head = "POST /v3/kv/put%zz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        assert_eq!(exchange(address, head).await.status, 400);
        assert_eq!(call(&server, "/v3/kv/r%61nge", r#"{"key":"YQ=="}"#).await.status, 200);
    });
}

#[test]
fn metadata() {
    serve(async |server| {
        let address = server.doors.local_addrs()[0];
        let late = post(address, "/v3/kv/range", "Grpc-Timeout: 1n\r\n", r#"{"key":"YQ=="}"#).await;
        assert_eq!((late.status, late.json()), (504, json!({"code": 4, "message": "context deadline exceeded"})));
        let wrong = post(address, "/v3/kv/range", "Grpc-Timeout: soon\r\n", "{}").await;
        assert_eq!((wrong.status, wrong.json()), (400, json!({"code": 3, "message": "invalid grpc-timeout: soon"})));
        server.member.stand(|standing| standing.leader = 0);
        let wanted = "Grpc-Metadata-Hasleader: true\r\n";
        let page = post(address, "/v3/kv/range", wanted, r#"{"key":"YQ==","serializable":true}"#).await;
        assert_eq!((page.status, page.json()), (503, json!({"code": 14, "message": "etcdserver: no leader"})));
        let page = post(address, "/v3/watch", wanted, r#"{"create_request":{"key":"YQ=="}}"#).await;
        let failure = json!({"error": {"code": 14, "message": "etcdserver: no leader"}});
        assert_eq!((page.status, page.json()), (503, failure));
        server.member.stand(|standing| standing.leader = 8);
        // An answer that never comes ends with the client's patience.
        server.member.set(Answer::Never);
        let late = post(address, "/v3/kv/put", "Grpc-Timeout: 50m\r\n", r#"{"key":"YQ=="}"#).await;
        assert_eq!(late.status, 504);
        let metrics = request(address, "GET", "/metrics").await.body;
        let line = |name, code, method, count| {
            let labels = format!(
                "grpc_code=\"{code}\",grpc_method=\"{method}\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\""
            );
            format!("\n{name}{{{labels}}} {count}\n")
        };
        assert!(metrics.contains(&line("grpc_server_handled_total", "Unavailable", "Range", 1)), "counted as gRPC's");
    });
}

#[test]
fn a_full_store_and_a_long_list() {
    run(async {
        let member = Member::with(Config { quota_bytes: 1, ..Config::default() });
        let server = Server::with(limits(), member);
        let page = call(&server, "/v3/kv/put", r#"{"key":"YQ=="}"#).await;
        let text = "etcdserver: mvcc: database space exceeded";
        assert_eq!((page.status, page.json()), (429, json!({"code": 8, "message": text})));
    });
    serve(async |server| {
        let value = "QUFB".repeat(100_000);
        for key in ["YQ==", "Yg==", "Yw=="] {
            let page = call(&server, "/v3/kv/put", &json!({"key": key, "value": value}).to_string()).await;
            assert_eq!(page.status, 200);
        }
        let all = call(&server, "/v3/kv/range", r#"{"key":"YQ==","range_end":"AA=="}"#).await.json();
        let values: Vec<_> = all["kvs"].as_array().unwrap().iter().map(|kv| kv["value"] == *value).collect();
        assert_eq!(values, [true; 3]);
    });
}

#[test]
fn watching() {
    serve(async |server| {
        let mut watch = Exchange::begin(server.doors.local_addrs()[0], "/v3/watch").await;
        watch.send(r#"{"create_request":{"key":"#).await;
        watch.send(r#""YQ=="}} {"create_request":{"key":"Yg==","watch_id":"5"}}"#).await;
        assert_eq!(watch.line().await, json!({"result": {"header": header("1"), "created": true}}));
        let created = json!({"result": {"header": header("1"), "created": true, "watch_id": "5"}});
        assert_eq!(watch.line().await, created);
        call(&server, "/v3/kv/put", r#"{"key":"Yg==","value":"Yg=="}"#).await;
        let kv = json!({"key": "Yg==", "create_revision": "2", "mod_revision": "2", "version": "1", "value": "Yg=="});
        let event = json!({"result": {"header": header("2"), "watch_id": "5", "events": [{"kv": kv}]}});
        assert_eq!(watch.line().await, event);
        watch.send(r#"{"cancel_request":{"watch_id":5}}"#).await;
        assert_eq!(watch.line().await["result"]["canceled"], true);
        // The end of the requests is not the end of the watch.
        watch.send("").await;
        call(&server, "/v3/kv/deleterange", r#"{"key":"YQ=="}"#).await;
        call(&server, "/v3/kv/put", r#"{"key":"YQ=="}"#).await;
        call(&server, "/v3/kv/deleterange", r#"{"key":"YQ=="}"#).await;
        assert_eq!(watch.line().await["result"]["events"][0]["kv"]["mod_revision"], "3");
        let deleted = json!({"type": "DELETE", "kv": {"key": "YQ==", "mod_revision": "4"}});
        assert_eq!(watch.line().await["result"]["events"], json!([deleted]));
    });
}

#[test]
fn streams_that_end() {
    serve(async |server| {
        let alive = call(&server, "/v3/lease/keepalive", r#"{"ID":1}{"ID":"2"}"#).await;
        let lines: Vec<Value> = alive.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let line = |id: &str| json!({"result": {"header": header("1"), "ID": id}});
        assert_eq!((alive.status, lines), (200, vec![line("1"), line("2")]));
        let silent = call(&server, "/v3/lease/keepalive", "").await;
        assert_eq!((silent.status, silent.body.as_str()), (200, ""));
        assert!(!silent.head.contains("\r\ncontent-type:"));
        for (body, status) in [("{\"ID\":x}", 400), ("x", 400), ("{\"ID\":1", 400)] {
            let page = call(&server, "/v3/lease/keepalive", body).await;
            assert_eq!((page.status, &page.json()["error"]["code"]), (status, &json!(3)), "{body}");
        }
        // Behind a good request a broken one, and what follows it, is passed over.
        let broken = call(&server, "/v3/lease/keepalive", r#"{"ID":1}{"ID":[]}{"ID":2}"#).await;
        assert_eq!((broken.status, broken.json()), (200, line("1")));
        let address = server.doors.local_addrs()[0];
        let late = post(address, "/v3/watch", "Grpc-Timeout: 50m\r\n", r#"{"create_request":{"key":"YQ=="}}"#).await;
        let last: Value = serde_json::from_str(late.body.lines().last().unwrap()).unwrap();
        assert_eq!((late.status, &last["error"]["code"]), (200, &json!(4)));
        let late = post(address, "/v3/watch", "Grpc-Timeout: 50m\r\n", "").await;
        assert_eq!((late.status, &late.json()["error"]["code"]), (504, &json!(4)));
        // A body without an end is not waited for any longer than its answer.
        let endless = "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nGrpc-Timeout: 50m\r\nConnection: close\r\nContent-Length: 9\r\n\r\n{";
        let late = exchange(address, endless).await;
        assert_eq!((late.status, &late.json()["code"]), (504, &json!(4)));
        let mut watch = Exchange::begin(address, "/v3/watch").await;
        watch.send(r#"{"create_request":{"key":"YQ=="}}"#).await;
        watch.line().await;
        let Server { doors, member: _member } = server;
        tokio::task::spawn_blocking(move || doors.stop(std::time::Duration::from_secs(5)));
        let stopped = json!({"error": {"code": 14, "message": "etcdserver: server stopped"}});
        assert_eq!(watch.line().await, stopped);
    });
}

#[test]
fn without_a_gateway() {
    run(async {
        let server = Server::configured(Member::new(), |config| config.is_gateway_on = false);
        let page = call(&server, "/v3/kv/range", "{}").await;
        assert_eq!((page.status, page.body.as_str()), (404, "404 page not found\n"));
    });
}
