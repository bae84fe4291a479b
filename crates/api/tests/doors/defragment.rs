//! Defragment, and what the health service says meanwhile.

use milepost_proto::etcdserverpb as pb;
use milepost_proto::health::{HealthCheckRequest, HealthCheckResponse};

use crate::keys::{PUT, RANGE, get, put};
use crate::support::{Member, Server, limits, run, serve};

const DEFRAGMENT: &str = "/etcdserverpb.Maintenance/Defragment";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";

#[test]
fn it_is_answered_without_a_header() {
    serve(async |server| {
        let mut client = server.client().await;
        let _: pb::PutResponse = client.unary(PUT, &put("a", "1")).await.unwrap();
        let done: pb::DefragmentResponse = client.unary(DEFRAGMENT, &pb::DefragmentRequest {}).await.unwrap();
        assert_eq!(done.header, None);
        let found: pb::RangeResponse = client.unary(RANGE, &get("a")).await.unwrap();
        assert_eq!(found.count, 1);
        *server.member.defragment_gate.lock().unwrap() = Some("no room for 7 bytes".into());
        let failure = client.failure(DEFRAGMENT, &pb::DefragmentRequest {}).await;
        assert_eq!(failure, (2, "no room for 7 bytes".into()));
    });
}

#[test]
fn calls_are_answered_meanwhile_and_health_is_what_the_operator_wants() {
    for (stops, during) in [(false, 1), (true, 2)] {
        run(async {
            let server = Server::configured(Member::new(), |config| {
                config.limits = limits();
                config.stop_serving_on_defragment = stops;
            });
            let mut client = server.client().await;
            let mut health = client.open::<HealthCheckResponse>(HEALTH_WATCH).await;
            health.send_last(&HealthCheckRequest::default());
            assert_eq!(health.next().await.unwrap().unwrap().status, 1);
            let gate = server.member.defragment_gate.clone();
            let (closed, is_closed) = std::sync::mpsc::channel();
            let (open, is_open) = std::sync::mpsc::channel::<()>();
            let keeper = std::thread::spawn(move || {
                let _gate = gate.lock().unwrap();
                closed.send(()).unwrap();
                is_open.recv().unwrap();
            });
            is_closed.recv().unwrap();
            let mut call = client.open::<pb::DefragmentResponse>(DEFRAGMENT).await;
            call.send_last(&pb::DefragmentRequest {});
            if stops {
                assert_eq!(health.next().await.unwrap().unwrap().status, 2);
            }
            let _: pb::PutResponse = client.unary(PUT, &put("a", "1")).await.unwrap();
            let now: HealthCheckResponse = client.unary(CHECK, &HealthCheckRequest::default()).await.unwrap();
            assert_eq!(now.status, during);
            if stops {
                // Who gives up does not end it.
                call.reset();
                let now: HealthCheckResponse = client.unary(CHECK, &HealthCheckRequest::default()).await.unwrap();
                assert_eq!(now.status, 2);
            }
            open.send(()).unwrap();
            keeper.join().unwrap();
            if stops {
                assert_eq!(health.next().await.unwrap().unwrap().status, 1);
            } else {
                assert!(call.next().await.unwrap().is_some());
            }
        });
    }
}
