use super::file::parse;
use super::words::UsageError;

fn refused(text: &str) -> (String, String) {
    match parse(text) {
        Err(UsageError::Refused(refusal)) => (refusal.complaint, refusal.remedy),
        other => panic!("{text}: {other:?}"),
    }
}

/// The file that etcd ships as its sample, with its own shapes.
#[test]
fn a_key_without_effect_is_told() {
    let told = |text: &str| {
        let notes = parse(text).unwrap().notes;
        notes.into_iter().map(|note| note.fields.into_iter().map(|(_, value)| value).collect()).collect::<Vec<Vec<_>>>()
    };
    assert_eq!(told("Snapshot-Cuont: 5"), [["snapshot-cuont", "did you mean snapshot-count?"]]);
    assert_eq!(told("bogus: {a: 1}"), [["bogus"]]);
    assert_eq!(told("cert-file: c"), [["cert-file"]], "it belongs into a map");
    assert_eq!(told("client-transport-security: {cert-fil: c}"), [["client-transport-security.cert-fil"]]);
    assert_eq!(told("socket-options: {port: 1}"), [["socket-options.port"]]);
    assert_eq!(told("discovery-config: {tokn: t}"), [["discovery-config.tokn"]]);
    assert!(
        told("name: n1\nsocket-options: {reuse-port: true}\nclient-transport-security: {auto-tls: true}").is_empty()
    );
}

#[test]
fn every_shape_of_value_is_read() {
    let settings = parse(
        "# a member\n\
         NAME: n1\n\
         data-dir: /d\n\
         snapshot-count: 5_000\n\
         heartbeat-interval: 1e2\n\
         quota-backend-bytes: 0x100\n\
         pre-vote: off\n\
         watch-progress-notify-interval: 600000000000\n\
         listen-client-urls: http://127.0.0.1:1,http://127.0.0.1:2\n\
         log-outputs: [stderr, /tmp/x]\n\
         auto-compaction-retention: '1'\n\
         wal-dir:\n\
         no-such-key: {a: [b]}\n\
         client-transport-security:\n\
         \x20 cert-file: c\n\
         \x20 client-cert-auth: yes\n\
         \x20 allowed-cn: [a, b]\n\
         \x20 allowed-hostname: [h]\n\
         socket-options: {reuse-port: true}\n\
         discovery-config: {token: t, client: {endpoints: [e1, e2], dial-timeout: 7, secure: {cacert: ca, insecure-transport: no}, auth: {username: u, password: p}}}\n\
         experimental-snapshot-catch-up-entries: 7\n\
         cert-file: not-here\n",
    )
    .unwrap();
    for (name, value) in [
        ("name", "n1"),
        ("data-dir", "/d"),
        ("snapshot-count", "5000"),
        ("heartbeat-interval", "100"),
        ("quota-backend-bytes", "256"),
        ("pre-vote", "false"),
        ("watch-progress-notify-interval", "600000000000ns"),
        ("listen-client-urls", "http://127.0.0.1:1,http://127.0.0.1:2"),
        ("log-outputs", "stderr,/tmp/x"),
        ("auto-compaction-retention", "1"),
        ("wal-dir", ""),
        ("cert-file", "c"),
        ("client-cert-auth", "true"),
        ("client-cert-allowed-hostname", "h"),
        ("socket-reuse-port", "true"),
        ("discovery-token", "t"),
        ("discovery-endpoints", "e1,e2"),
        ("discovery-dial-timeout", "7ns"),
        ("discovery-cacert", "ca"),
        ("discovery-insecure-transport", "false"),
        ("discovery-user", "u"),
        ("discovery-password", "p"),
        ("snapshot-catchup-entries", "7"),
    ] {
        assert_eq!(settings.text(name), value, "{name}");
    }
    assert_eq!(settings.client_allowed_cn, ["a", "b"]);
    assert!(settings.is_from_file && !settings.is_given("wal-dir"));
}

#[test]
fn json_and_nothing_are_files_too() {
    assert_eq!(parse("{\"name\": \"x\", \"max-wals\": 3}").unwrap().text("max-wals"), "3");
    for text in ["", "# only a remark\n", "---\n"] {
        assert_eq!(parse(text).unwrap().text("name"), "default", "{text:?}");
    }
}

/// Each file was given to etcd 3.7.1, too.
#[test]
fn wrong_types_are_told_in_etcds_words() {
    for (text, complaint) in [
        ("name: 5", "number into Go struct field configYAML.Config.name of type string"),
        ("name: y", "bool into Go struct field configYAML.Config.name of type string"),
        (
            "heartbeat-interval: \"100\"",
            "string into Go struct field configYAML.Config.heartbeat-interval of type uint",
        ),
        ("heartbeat-interval: -1", "number -1 into Go struct field configYAML.Config.heartbeat-interval of type uint"),
        (
            "watch-progress-notify-interval: 10m",
            "string into Go struct field configYAML.Config.watch-progress-notify-interval of type time.Duration",
        ),
        ("pre-vote: 1", "number into Go struct field configYAML.Config.pre-vote of type bool"),
        ("pre-vote: \"yes\"", "string into Go struct field configYAML.Config.pre-vote of type bool"),
        ("log-outputs: stderr", "string into Go struct field configYAML.Config.log-outputs of type []string"),
        ("log-outputs: [stderr, 1]", "number into Go struct field configYAML.Config.log-outputs of type string"),
        (
            "quota-backend-bytes: 1.5",
            "number 1.5 into Go struct field configYAML.Config.quota-backend-bytes of type int64",
        ),
        (
            "snapshot-count: 99999999999999999999",
            "number 100000000000000000000 into Go struct field configYAML.Config.snapshot-count of type uint64",
        ),
        (
            "max-concurrent-streams: 4294967296",
            "number 4294967296 into Go struct field configYAML.Config.max-concurrent-streams of type uint32",
        ),
        (
            "listen-client-urls: [http://127.0.0.1:1]",
            "array into Go struct field configYAML.configJSON.listen-client-urls of type string",
        ),
        (
            "peer-transport-security: 1",
            "number into Go struct field configYAML.configJSON.peer-transport-security of type embed.securityConfig",
        ),
        (
            "client-transport-security: {client-cert-auth: 1}",
            "number into Go struct field securityConfig.configJSON.client-transport-security.client-cert-auth of type bool",
        ),
        ("- a", "array into Go value of type embed.configYAML"),
        ("just text", "string into Go value of type embed.configYAML"),
        (
            "{\"name\": 1, \"heartbeat-interval\": \"x\"}",
            "string into Go struct field configYAML.Config.heartbeat-interval of type uint",
        ),
    ] {
        let (got, remedy) = refused(text);
        assert_eq!(got, format!("error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {complaint}"));
        assert!(!remedy.is_empty(), "{text}");
    }
    assert!(refused("watch-progress-notify-interval: 10m").1.contains("600000000000"));
}

#[test]
fn wrong_yaml_is_named_with_its_line() {
    for text in ["name: [a", "name: x\n\tdata-dir: y", "name: a: b"] {
        let (complaint, remedy) = refused(text);
        assert!(complaint.starts_with("error converting YAML to JSON: yaml: line "), "{complaint}");
        assert!(remedy.starts_with("correct line "), "{remedy}");
    }
}

#[test]
fn wrong_values_are_told_in_etcds_words() {
    assert_eq!(refused("feature-gates: X=true").0, "unrecognized feature gate: X");
    assert_eq!(
        parse("listen-client-urls: foo"),
        Err(UsageError::Plain(
            "unexpected error setting up listen-client-urls: URL scheme must be http, https, unix, or unixs: foo"
                .into()
        ))
    );
    assert!(refused("cors: foo").0.starts_with("cors: "));
    // etcd ends in a panic here; the state is checked with the rest.
    assert_eq!(parse("initial-cluster-state: ''").unwrap().text("initial-cluster-state"), "new");
}
