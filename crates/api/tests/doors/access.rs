//! Host names and origins, and paths that lead elsewhere.

use crate::support::{Member, Page, Server, exchange, run, serve};

async fn get(server: &Server, path: &str, headers: &str) -> Page {
    let text = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    exchange(server.doors.local_addrs()[0], &text).await
}

#[test]
fn listed_hosts_alone() {
    run(async {
        let server = Server::configured(Member::new(), |config| config.host_whitelist = vec!["localhost".into()]);
        let refused = get(&server, "/version", "Host: evil.example:2379\r\n").await;
        assert_eq!(refused.status, 421);
        assert!(refused.body.contains("--host-whitelist \"evil.example\""), "{}", refused.body);
        assert!(!refused.head.contains("access-control"), "{}", refused.head);
        assert_eq!(get(&server, "/version", "Host: localhost:2379\r\n").await.status, 200);
    });
}

#[test]
fn listed_origins_alone() {
    run(async {
        let server = Server::configured(Member::new(), |config| config.cors = vec!["http://a.example".into()]);
        let allowed = get(&server, "/version", "Host: x\r\nOrigin: http://a.example\r\n").await;
        assert!(allowed.head.contains("access-control-allow-origin: http://a.example\r\n"), "{}", allowed.head);
        for other in ["Origin: http://b.example\r\n", ""] {
            let page = get(&server, "/version", &format!("Host: x\r\n{other}")).await;
            assert_eq!((page.status, page.head.contains("access-control")), (200, false));
        }
    });
}

#[test]
fn detours() {
    serve(async |server| {
        for (long, short) in [("/v3", "/v3/"), ("//version", "/version"), ("/v3//kv/put?a=b", "/v3/kv/put?a=b")] {
            let page = get(&server, long, "Host: x\r\n").await;
            assert_eq!(page.status, 307);
            assert!(page.head.contains(&format!("location: {short}\r\n")), "{}", page.head);
            assert!(page.body.contains("Temporary Redirect"));
        }
        let page = get(&server, "/%3Cscript%3E%22//", "Host: x\r\n").await;
        assert!(page.status == 307 && page.body.starts_with("<a href=\"/%3Cscript%3E%22/\">"), "{}", page.body);
    });
}
