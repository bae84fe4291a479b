//! HTTP/1 on the same port.

use milepost_proto::etcdserverpb as pb;

use crate::keys::{PUT, put};
use crate::support::{Answer, Page, Server, request, serve};

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
        server.member.set(Answer::Fail(milepost_api::NodeError::LeaderChanged));
        let ill = get(&server, "/health?exclude=NOSPACE").await;
        assert_eq!(ill.body, "{\"health\":\"false\",\"reason\":\"RANGE ERROR:etcdserver: leader changed\"}\n");
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
