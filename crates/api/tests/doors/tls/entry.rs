//! Who is let in.

use milepost_api::{Role, TlsSettings};
use rcgen::{ExtendedKeyUsagePurpose, SerialNumber, date_time_ymd};

use super::Stage;
use super::authority::{Authority, params, self_signed};
use crate::support::run;

#[test]
fn without_rules_everybody_is_let_in() {
    run(async {
        let stage = Stage::new();
        let (_server, address) = stage.serve(Role::Mixed, stage.settings());
        stage.caller().puts(address).await;
        stage.caller().old().puts(address).await;
        // A certificate that nobody asked for is not shown.
        stage.caller().with(Authority::new("other").issue("stranger", &[])).puts(address).await;
    });
}

#[test]
fn at_debug_connections_are_told() {
    run(async {
        let stage = Stage::new();
        let (_server, address) = stage.serve(Role::Mixed, stage.strict());
        stage.caller().with(stage.authority.issue("friend", &[])).puts(address).await;
        stage.log.reach(1, "Debug accepted a connection").await;
        stage.log.reach(1, "Debug shook hands with a client").await;
        stage.log.reach(1, "TLSv1_3").await;
        stage.log.reach(1, "friend").await;
    });
}

#[test]
fn authorities_alone_demand_certificates() {
    run(async {
        let stage = Stage::new();
        for client_cert_auth in [false, true] {
            let (_server, address) = stage.serve(Role::Mixed, TlsSettings { client_cert_auth, ..stage.strict() });
            stage.caller().with(stage.authority.issue("friend", &[])).puts(address).await;
            stage.caller().with(stage.authority.issue("friend", &[])).old().puts(address).await;
            let why = stage.caller().refusal(address).await;
            assert!(why.contains("CertificateRequired"), "{why}");
            let why = stage.caller().with(Authority::new("other").issue("stranger", &[])).refusal(address).await;
            assert!(why.contains("UnknownCA"), "{why}");
        }
        stage.log.reach(4, "rejected connection on client endpoint").await;
        stage.log.reach(2, "tls: client didn't provide a certificate").await;
        stage.log.reach(2, "x509: certificate signed by unknown authority").await;
    });
}

#[test]
fn certificates_of_another_time_or_use_are_refused() {
    run(async {
        let stage = Stage::new();
        let (_server, address) = stage.serve(Role::Mixed, stage.strict());
        let mut late = params("late", &[]);
        (late.not_before, late.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        let why = stage.caller().with(stage.authority.sign(&late)).refusal(address).await;
        assert!(why.contains("CertificateExpired"), "{why}");
        let mut server = params("server", &[]);
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        stage.caller().with(stage.authority.sign(&server)).refusal(address).await;
        stage.log.reach(1, "incompatible key usage").await;
    });
}

#[test]
fn who_is_its_own_authority_may_be_listed_as_one() {
    run(async {
        let stage = Stage::new();
        let (friend, stranger) = (self_signed("friend"), self_signed("stranger"));
        stage.files.put("ca.pem", stage.authority.pem() + &friend.cert_pem);
        let (_server, address) = stage.serve(Role::Mixed, stage.strict());
        stage.caller().with(friend).puts(address).await;
        stage.caller().with(stranger).refusal(address).await;
    });
}

#[test]
fn names_decide_if_there_are_rules_for_them() {
    run(async {
        let stage = Stage::new();
        let allowed_hostnames = vec!["a.b.example".to_owned(), "10.1.2.3".to_owned()];
        let (_server, address) = stage.serve(Role::Mixed, TlsSettings { allowed_hostnames, ..stage.strict() });
        for names in [&["a.b.example"][..], &["10.1.2.3"], &["x", "*.b.example"]] {
            stage.caller().with(stage.authority.issue("client", names)).puts(address).await;
        }
        for names in [&[][..], &["b.example", "10.1.2.4"]] {
            // A common name is no host name.
            stage.caller().with(stage.authority.issue("a.b.example", names)).refusal(address).await;
        }
        stage.log.reach(2, "client certificate authentication failed").await;
        let allowed_cns = vec!["alice".to_owned()];
        let (_server, address) = stage.serve(Role::Mixed, TlsSettings { allowed_cns, ..stage.strict() });
        stage.caller().with(stage.authority.issue("alice", &[])).puts(address).await;
        stage.caller().with(stage.authority.issue("mallory", &["alice"])).refusal(address).await;
    });
}

#[test]
fn revoked_certificates_are_refused() {
    run(async {
        let stage = Stage::new();
        let numbered = |serial: u64| {
            let mut params = params("client", &["c.example"]);
            params.serial_number = Some(SerialNumber::from(serial));
            stage.caller().with(stage.authority.sign(&params))
        };
        // Serial numbers with and without a leading zero.
        stage.files.put("crl", stage.authority.revoke(&[0x80ff, 7]));
        let settings = TlsSettings { crl_file: Some(stage.files.path("crl")), ..stage.strict() };
        let (_server, address) = stage.serve(Role::Mixed, settings.clone());
        numbered(8).puts(address).await;
        numbered(7).refusal(address).await;
        numbered(0x80ff).refusal(address).await;
        stage.log.reach(1, "transport: certificate serial 80ff revoked").await;
        stage.log.reach(2, "c.example").await;

        // The list changes; a broken one is not taken.
        stage.files.put("crl", stage.authority.revoke(&[8]));
        numbered(7).puts(address).await;
        numbered(8).refusal(address).await;
        stage.files.put("crl", "rubbish");
        numbered(7).puts(address).await;
        numbered(8).refusal(address).await;
        // Told once.
        stage.log.reach(1, "--client-crl-file").await;

        // Never readable: nobody with a certificate.
        let (_server, address) = stage.serve(Role::Mixed, settings);
        numbered(7).refusal(address).await;
    });
}

#[test]
fn metrics_ask_for_certificates_of_the_callers_address() {
    run(async {
        let stage = Stage::new();
        let (_server, address) = stage.serve(Role::Metrics, stage.strict());
        for names in [&[][..], &["127.0.0.1"], &["10.0.0.1", "localhost"]] {
            let caller = stage.caller().with(stage.authority.issue("prometheus", names)).alpn(&[]);
            assert!(caller.page(address, "/metrics").await.unwrap().contains("etcd_server_has_leader"), "{names:?}");
        }
        stage.caller().with(stage.authority.issue("x", &["10.0.0.1"])).refusal(address).await;
        stage.caller().with(stage.authority.issue("x", &["nowhere.invalid"])).refusal(address).await;
        stage.log.reach(1, "certificate is valid for 10.0.0.1, not 127.0.0.1").await;
        stage.log.reach(1, "does not match any of DNSNames").await;
    });
}
