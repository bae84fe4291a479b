//! Files that change under a running server.

use milepost_api::{ApiConfig, Doors, Listen, Listener, Role, TlsSettings};
use milepost_proto::etcdserverpb as pb;
use std::sync::Arc;

use super::Stage;
use super::authority::Authority;
use super::caller::Caller;
use crate::keys::{PUT, put};
use crate::support::{Member, run};

#[test]
fn a_new_certificate_is_shown_to_the_next_client() {
    run(async {
        let stage = Stage::new();
        let (_server, address) = stage.serve(Role::Mixed, stage.settings());
        stage.caller().puts(address).await;
        let next = Authority::new("next");
        // Half of the pair: the old one stays.
        let identity = next.issue("server", &["localhost"]);
        stage.files.put("cert.pem", &identity.cert_pem);
        stage.caller().puts(address).await;
        assert_eq!(stage.log.count("do not belong together"), 1);
        stage.files.put("key.pem", &identity.key_pem);
        Caller::new(next.der()).puts(address).await;
        stage.caller().refusal(address).await;
        std::fs::remove_file(stage.files.path("key.pem")).unwrap();
        Caller::new(next.der()).puts(address).await;
        assert_eq!(stage.log.count("no such file or directory"), 1);
    });
}

#[test]
fn a_hundred_connections_survive_new_authorities() {
    run(async {
        let stage = Stage::new();
        let (server, address) = stage.serve(Role::Mixed, stage.strict());
        let (old, next) = (stage.authority.issue("old", &[]), Authority::new("next"));
        let old = stage.caller().with(old);
        let mut clients = Vec::new();
        for _ in 0..100 {
            clients.push(old.client(address).await);
        }
        stage.files.put("ca.pem", next.pem());
        let new = stage.caller().with(next.issue("new", &[]));
        new.puts(address).await;
        old.refusal(address).await;
        stage.files.put("ca.pem", "no certificate");
        server.doors.tls_reloader()();
        new.puts(address).await;
        assert_eq!(stage.log.count("no CERTIFICATE block"), 1);
        for client in &mut clients {
            let _: pb::PutResponse = client.unary(PUT, &put("a", "1")).await.unwrap();
        }
    });
}

#[test]
fn what_is_broken_at_start_is_named() {
    let stage = Stage::new();
    let start = |settings: TlsSettings| {
        let address = Listen::Tcp { host: "127.0.0.1".into(), port: 0 };
        let listeners = vec![Listener { address, role: Role::Mixed, is_tls: true }];
        let config = ApiConfig { listeners, doors: 1, tls: Some(settings), ..ApiConfig::default() };
        match Doors::start(config, Arc::new(Member::new())) {
            Ok(_) => panic!("the doors open"),
            Err(why) => why.to_string(),
        }
    };
    let at = |name: &str, bytes: &str| Some(stage.files.put(name, bytes));
    let path = |name: &str| stage.files.path(name);
    let cases: Vec<(TlsSettings, &str)> = vec![
        (TlsSettings { cert_file: path("none"), ..stage.settings() }, "none: no such file or directory"),
        (TlsSettings { cert_file: path("key.pem"), ..stage.settings() }, "key.pem: no CERTIFICATE block"),
        (TlsSettings { key_file: path("cert.pem"), ..stage.settings() }, "no private key in PEM"),
        (TlsSettings { trusted_ca_file: at("x", "x"), ..stage.settings() }, "--trusted-ca-file"),
        (TlsSettings { allowed_hostnames: vec!["a b".into()], ..stage.strict() }, "\"a b\" is no host name"),
        (
            TlsSettings { allowed_hostnames: vec!["a".into()], allowed_cns: vec!["a".into()], ..stage.strict() },
            "mutually exclusive",
        ),
        (
            TlsSettings {
                cipher_suites: vec!["TLS_AES_128_GCM_SHA256".parse().unwrap()],
                max_version: Some("TLS1.2".parse().unwrap()),
                ..stage.settings()
            },
            "leave no way to connect",
        ),
    ];
    for (settings, part) in cases {
        let why = start(settings);
        assert!(why.contains(part), "{why}");
    }
}
