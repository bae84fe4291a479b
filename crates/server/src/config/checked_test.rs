use std::path::PathBuf;
use std::time::Duration;

use super::checked::{Config, DEFAULT_QUOTA_BYTES};
use super::settings::{Note, Settings};
use super::words::{Request, parse};
use super::{CompactionMode, cluster, file};

fn settings(args: &[&str]) -> Settings {
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    match parse(&args, []).expect("well-formed words") {
        Request::Serve(settings) => settings,
        other => panic!("{other:?}"),
    }
}

fn both(args: &[&str]) -> Result<(Config, Vec<Note>), String> {
    Config::new(&settings(args)).map_err(|refusal| refusal.complaint)
}

fn config(args: &[&str]) -> Config {
    both(args).unwrap().0
}

#[test]
fn defaults_are_etcds() {
    let config = config(&[]);
    assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
    assert_eq!((config.snapshot_count, config.catch_up_entries, config.election_ticks), (10_000, 5_000, 10));
    assert_eq!((config.max_snapshots, config.max_wals, config.max_learners), (5, 5, 1));
    assert_eq!(config.quota_bytes, Some(DEFAULT_QUOTA_BYTES));
    assert_eq!(config.compaction(), Ok(CompactionMode::Off));
    assert_eq!(
        (config.watch_progress_interval, config.slow_unary),
        (Duration::from_secs(600), Duration::from_millis(300))
    );
    assert_eq!(
        (config.keepalive_min_time, config.keepalive_interval),
        (Duration::from_secs(5), Duration::from_secs(7200))
    );
    assert_eq!(
        (config.max_txn_ops, config.max_request_bytes, config.max_concurrent_streams),
        (128, 1_572_864, u32::MAX)
    );
    assert!(config.is_gateway_on && config.pre_vote && !config.is_pprof_on && !config.is_metrics_extensive);
    assert_eq!((config.security.cors, config.security.host_whitelist), (vec!["*".to_owned()], vec!["*".to_owned()]));
}

#[test]
fn connections_between_members_may_be_still_for_five_seconds_at_least() {
    let (config, notes) = both(&["--raft-read-timeout=1s", "--raft-write-timeout=9s"]).unwrap();
    assert_eq!(
        (config.peer_patience.read, config.peer_patience.write),
        (Duration::from_secs(5), Duration::from_secs(9))
    );
    assert!(notes.contains(&Note::info("raft-read-timeout increased to minimum value: 5s")), "{notes:?}");
    assert!(!notes.iter().any(|note| note.message.contains("raft-write-timeout")), "{notes:?}");
}

#[test]
fn zeros_stand_for_defaults_where_etcd_has_it_so() {
    let config = config(&[
        "--snapshot-count=0",
        "--snapshot-catchup-entries=0",
        "--warning-unary-request-duration=0",
        "--watch-progress-notify-interval=1ms",
        "--quota-backend-bytes=-1",
        "--election-timeout=1050",
    ]);
    assert_eq!((config.snapshot_count, config.catch_up_entries), (10_000, 5_000));
    assert_eq!(
        (config.slow_unary, config.watch_progress_interval),
        (Duration::from_millis(300), Duration::from_millis(100))
    );
    assert_eq!((config.quota_bytes, config.election), (None, Duration::from_secs(1)));
}

#[test]
fn a_name_alone_makes_its_own_cluster() {
    let config = config(&["--name=n1"]);
    assert_eq!(
        (config.initial_cluster.as_str(), config.data_dir),
        ("n1=http://localhost:2380", PathBuf::from("n1.etcd"))
    );
    let members = cluster::members(&config.initial_cluster).unwrap();
    cluster::check_member("n1", &config.addresses.advertise_peer, &members).unwrap();
}

/// Each command line was given to etcd 3.7.1, too: exit code 1 and `failed to verify flags` with this error.
#[test]
fn complaints_are_etcds() {
    for (args, complaint) in [
        (
            &["--discovery-fallback=proxy"][..],
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
        ),
        (
            &["--listen-client-urls=http://127.0.0.1:1"],
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (&["--listen-client-urls="], "--advertise-client-urls is required when --listen-client-urls is set explicitly"),
        (&["--heartbeat-interval=0"], "--heartbeat-interval must be >0 (set to 0ms)"),
        (&["--election-timeout=0"], "--election-timeout must be >0 (set to 0ms)"),
        (
            &["--election-timeout=400"],
            "--election-timeout[400ms] should be at least as 5 times as --heartbeat-interval[100ms]",
        ),
        (&["--election-timeout=60000"], "--election-timeout[60000ms] is too long, and should be set less than 50000ms"),
        (&["--auto-compaction-mode="], "undefined auto-compaction-mode"),
        (&["--auto-compaction-mode=sometimes"], "unknown auto-compaction-mode \"sometimes\""),
        (&["--compact-hash-check-time=0"], "--compact-hash-check-time must be >0 (set to 0s)"),
        (&["--compact-hash-check-time=-90s"], "--compact-hash-check-time must be >0 (set to -1m30s)"),
        (&["--discovery-token=x"], "both --discovery-token and --discovery-endpoints must be set"),
        (
            &["--initial-cluster=default=http://localhost:2380", "--discovery-srv=x"],
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"",
        ),
        (
            &["--feature-gates=LeaseCheckpointPersist=true"],
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ),
        (&["--tls-min-version=TLS1.1"], "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)"),
        (
            &["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            &["--tls-min-version=TLS1.3", "--cipher-suites=TLS_X"],
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
    ] {
        assert_eq!(both(args).unwrap_err(), complaint, "{args:?}");
    }
}

#[test]
fn what_this_version_cannot_keep_its_word_on_is_refused() {
    let why = both(&["--auth-token=jwt,pub-key=a,sign-method=RS256"]).unwrap_err();
    assert!(why.contains("--auth-token") && why.contains("no effect"), "{why}");
}

#[test]
fn who_is_discovered_is_not_named() {
    let (config, notes) = both(&["--name=x", "--discovery-endpoints=b,a", "--discovery-token=t"]).unwrap();
    assert_eq!((config.initial_cluster.as_str(), config.token.as_str()), ("", "t"));
    assert_eq!(config.discovery.service.endpoints, ["a", "b"]);
    assert!(notes.iter().all(|note| !note.message.contains("no effect")), "{notes:?}");
    let (config, _) = both(&["--name=x", "--discovery-srv=example.com", "--discovery-srv-name=blue"]).unwrap();
    assert_eq!((config.initial_cluster.as_str(), config.token.as_str()), ("", "etcd-cluster"));
    assert_eq!((config.discovery.srv.as_str(), config.discovery.srv_name.as_str()), ("example.com", "blue"));
    let why = both(&["--discovery-endpoints=a", "--discovery-token=t", "--discovery-user=u"]).unwrap_err();
    assert!(why.contains("--discovery-user=u"), "{why}");
}

#[test]
fn a_file_needs_no_advertised_urls() {
    let settings = file::parse("listen-client-urls: http://127.0.0.1:1\nname: f\n").unwrap();
    let (config, _) = Config::new(&settings).unwrap();
    assert_eq!(config.addresses.advertise_client[0].as_str(), "http://localhost:2379");
    let refusal = Config::new(&file::parse("initial-cluster-state: foo").unwrap()).unwrap_err();
    assert_eq!(refusal.complaint, "unexpected clusterState \"foo\"");
}

#[test]
fn unusual_values_are_told() {
    let (_, notes) = both(&[
        "--name=x",
        "--data-dir=/d",
        "--quota-backend-bytes=10000000000",
        "--max-request-bytes=11000000",
        "--max-snapshots=3",
        "--memory-mlock",
        "--enable-distributed-tracing",
    ])
    .unwrap();
    let told: Vec<&str> = notes.iter().map(|note| note.message.as_str()).collect();
    assert_eq!(
        told,
        [
            "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.",
            "some flags are accepted and have no effect",
            "quota exceeds the maximum value",
            "exceeded recommended request limit",
        ]
    );
}
