//! HTTP/1 on the same port.

use std::io::Read;

use milepost_proto::etcdserverpb as pb;

use crate::keys::{PUT, put};
use crate::support::{Answer, Member, Page, Server, exchange, exchange_bytes, request, run, serve};

async fn get(server: &Server, path: &str) -> Page {
    request(server.doors.local_addrs()[0], "GET", path).await
}

#[test]
fn version_and_strangers() {
    serve(async |server| {
        let page = get(&server, "/version").await;
        assert_eq!(
            (page.status, page.body.as_str()),
            (200, r#"{"etcdserver":"3.7.1","etcdcluster":"not_decided","storage":"unknown"}"#)
        );
        assert!(page.head.contains("content-type: application/json"), "{}", page.head);
        assert!(page.head.contains("access-control-allow-origin: *"), "{}", page.head);
        for path in ["/", "/v2/keys", "/livez/zzz", "/config/local/log"] {
            let page = get(&server, path).await;
            assert_eq!((page.status, page.body.as_str()), (404, "404 page not found\n"), "{path}");
        }
        for (method, path) in [("POST", "/version"), ("HEAD", "/health"), ("PUT", "/readyz")] {
            let page = request(server.doors.local_addrs()[0], method, path).await;
            assert_eq!(page.status, 405);
            assert!(page.head.contains("allow: get") && page.head.contains("nosniff"), "{}", page.head);
        }
        let page = request(server.doors.local_addrs()[0], "OPTIONS", "/anything").await;
        assert_eq!((page.status, page.body.as_str()), (200, ""));
    });
}

#[test]
fn health() {
    serve(async |server| {
        let well = get(&server, "/health").await;
        assert_eq!((well.status, well.body.as_str()), (200, r#"{"health":"true","reason":""}"#));
        assert!(well.head.contains("content-type: text/plain; charset=utf-8"), "{}", well.head);
        let alarm = pb::AlarmRequest { action: 1, member_id: 8, alarm: 1 };
        let _: pb::AlarmResponse =
            server.client().await.unary("/etcdserverpb.Maintenance/Alarm", &alarm).await.unwrap();
        let ill = get(&server, "/health").await;
        assert_eq!((ill.status, ill.body.as_str()), (503, "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n"));
        assert_eq!(get(&server, "/health?exclude=CORRUPT&exclude=NOSPACE").await.status, 200);
        server.member.stand(|standing| standing.leader = 0);
        let ill = get(&server, "/health?exclude=NOSPACE").await;
        assert_eq!(ill.body, "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n");
        assert_eq!(get(&server, "/health?exclude=NOSPACE&serializable=true").await.status, 200);
        server.member.stand(|standing| standing.leader = 8);
        server.member.set(Answer::Fail(milepost_api::NodeError::TooManyRequests));
        let ill = get(&server, "/health?exclude=NOSPACE").await;
        assert_eq!(ill.body, "{\"health\":\"false\",\"reason\":\"RANGE ERROR:etcdserver: too many requests\"}\n");
        let metrics = get(&server, "/metrics").await.body;
        assert!(
            metrics.contains("\netcd_server_health_success 3\n")
                && metrics.contains("\netcd_server_health_failures 3\n")
        );
    });
}

#[test]
fn live_and_ready() {
    serve(async |server| {
        for path in ["/livez", "/readyz", "/readyz/linearizable_read", "/livez?exclude=serializable_read"] {
            let page = get(&server, path).await;
            assert_eq!((page.status, page.body.as_str()), (200, "ok\n"), "{path}");
        }
        let page = get(&server, "/readyz?verbose&exclude=linearizable_read").await;
        assert_eq!(page.body, "[+]data_corruption ok\n[+]serializable_read ok\n[+]non_learner ok\nok\n");
        server.member.stand(|standing| standing.is_learner = true);
        let page = get(&server, "/readyz/non_learner").await;
        assert_eq!((page.status, page.body.as_str()), (503, "[-]non_learner failed: not supported for learner\n\n"));
        let metrics = get(&server, "/metrics").await.body;
        assert!(metrics.contains("etcd_server_healthcheck{name=\"non_learner\",type=\"readyz\"} 0"));
    });
}

#[test]
fn metrics_count_calls() {
    serve(async |server| {
        let mut client = server.client().await.with("client-api-version", "3.7");
        let _: pb::PutResponse = client.unary(PUT, &put("a", "1")).await.unwrap();
        client.failure(PUT, &put("", "1")).await;
        let page = get(&server, "/metrics").await;
        assert!(page.head.contains("text/plain; version=0.0.4; charset=utf-8; escaping=underscores"), "{}", page.head);
        for line in [
            "grpc_server_started_total{grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",grpc_method=\"Put\"} 2",
            "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
            "grpc_server_handled_total{grpc_code=\"InvalidArgument\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
            "grpc_server_handled_total{grpc_code=\"DataLoss\",grpc_method=\"Check\",grpc_service=\"grpc.health.v1.Health\",grpc_type=\"unary\"} 0",
            "etcd_server_client_requests_total{client_api_version=\"3.7\",type=\"unary\"} 2",
            "etcd_mvcc_put_total 1",
            "etcd_debugging_mvcc_keys_total 1",
            "etcd_debugging_mvcc_total_put_size_in_bytes 2",
            "etcd_debugging_auth_revision 1",
            "etcd_server_quota_backend_bytes 2147483648",
            "etcd_debugging_mvcc_current_revision 2",
            "etcd_server_version{server_version=\"3.7.1\"} 1",
        ] {
            assert!(page.body.lines().any(|l| l == line), "{line} is missing");
        }
        assert!(!page.body.contains("v3lockpb"), "recipes appear with their first use");
        let types = page.body.lines().filter(|line| line.starts_with("# TYPE")).count();
        let mut names: Vec<&str> = page.body.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        names.sort_unstable();
        names.dedup_by_key(|line| line.split(' ').next().unwrap());
        assert_eq!(names.len(), types, "no family twice");
    });
}

#[test]
fn debug_variables() {
    serve(async |server| {
        let page = get(&server, "/debug/vars").await;
        assert!(page.status == 200 && page.head.contains("content-type: application/json; charset=utf-8"));
        let vars = page.json();
        assert!(vars["cmdline"][0].is_string() && vars["file_descriptor_limit"].is_u64());
        assert!(vars["memstats"]["Sys"].as_u64() > Some(1 << 20), "{}", vars["memstats"]);
        let raft = &vars["raft.status"];
        assert_eq!((&raft["id"], &raft["lead"], &raft["term"]), (&"8".into(), &"8".into(), &2.into()));
        assert_eq!(request(server.doors.local_addrs()[0], "POST", "/debug/vars").await.status, 405);
        for path in ["/debug/pprof/", "/debug/pprof", "/debug/requests", "/debug/events", "/debug/", "/debug/vars/"] {
            assert_eq!(get(&server, path).await.status, 404, "{path}");
        }
    });
}

#[test]
fn debug_pages_when_asked_for() {
    run(async {
        let server = Server::configured(Member::new(), |config| {
            (config.is_pprof_on, config.is_tracing_on) = (true, true);
        });
        assert_eq!(get(&server, "/debug/pprof").await.status, 307);
        assert!(get(&server, "/debug/pprof/").await.body.contains("href='goroutine'"));
        let threads = get(&server, "/debug/pprof/goroutine?debug=1").await.body;
        assert!(threads.contains(" door-0 ") && threads.contains(" door-1 "), "{threads}");
        assert!(get(&server, "/debug/pprof/heap").await.body.contains("VmRSS:"));
        assert_eq!(get(&server, "/debug/pprof/symbol").await.body, "num_symbols: 0\n");
        let none = get(&server, "/debug/pprof/profile?seconds=1").await;
        assert!(none.status == 501 && none.body.contains("perf record"), "{}", none.body);
        assert_eq!(get(&server, "/debug/pprof/zzz").await.body, "Unknown profile\n");
        let _: pb::PutResponse = server.client().await.unary(PUT, &put("a", "1")).await.unwrap();
        server.client().await.failure(PUT, &put("", "1")).await;
        let calls = get(&server, "/debug/requests").await.body;
        assert!(calls.contains("<b>/etcdserverpb.KV/Put</b>  2 calls, 0 active"), "{calls}");
        assert!(calls.contains("InvalidArgument  took"), "{calls}");
    });
}

#[test]
fn metrics_in_gzip() {
    serve(async |server| {
        let head = "GET /metrics HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n";
        let plain = get(&server, "/metrics").await.body;
        let packed = exchange_bytes(server.doors.local_addrs()[0], head).await;
        let start = packed.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8_lossy(&packed[..start]).to_lowercase();
        assert!(head.contains("content-encoding: gzip") && head.contains("version=0.0.4"), "{head}");
        let mut text = String::new();
        flate2::read::GzDecoder::new(&packed[start..]).read_to_string(&mut text).unwrap();
        let names = |text: &str| text.lines().filter(|line| line.starts_with("# TYPE")).count();
        assert_eq!(names(&text), names(&plain));
    });
}

#[test]
fn what_no_page_can_make_sense_of() {
    serve(async |server| {
        let address = server.doors.local_addrs()[0];
        for (head, status) in [
            ("GET /version HTTP/1.1\r\nConnection: close\r\n", 400),
            ("GET /version HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n", 400),
            ("GET /version HTTP/1.0\r\n", 200),
            ("GET /%zz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", 400),
            ("GET http://a/version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", 200),
            ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", 404),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", 200),
            ("GET /version HTTP/1.1\r\nHost: a\r\nExpect: wonders\r\nConnection: close\r\n", 417),
            ("GET /livez/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", 404),
        ] {
            assert_eq!(exchange(address, &format!("{head}\r\n")).await.status, status, "{head}");
        }
        let broken =
            "POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
        let page = exchange(address, broken).await;
        assert_eq!((page.status, &page.json()["code"]), (400, &3.into()));
    });
}
