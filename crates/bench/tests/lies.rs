//! A right server passes, a lying one does not: each way to answer wrongly ends in exit status 1.

mod liar;

use std::ffi::OsString;

use liar::Lie;

/// Runs `milepost bench` with `line` against a server that lies as told, and returns the exit status.
fn status(lie: Lie, line: &str) -> i32 {
    let address = liar::start(lie).to_string();
    let words = line.split_whitespace().chain(["--json", "--endpoints", &address]);
    milepost_bench::run(words.map(OsString::from).collect())
}

#[test]
fn a_right_server_passes_every_command() {
    for line in [
        "put --total 500 --clients 20",
        "put --total 500 --clients 20 --conns 4 --threads 2 --val-size 100000",
        "put --total 200 --rate 5000 --clients 4",
        "put --total 100 --clients 1 --val-size 0 --key-size 1",
        "txn-put --total 100 --clients 5 --key-space-size 50",
        "range --total 500 --clients 20 --key-space-size 1000",
        "range --total 500 --clients 20 --key-space-size 1000 --consistency s --warmup 50ms",
        "list --total 20 --clients 2 --key-space-size 1000",
        "load --key-space-size 1000 --revisions 2 --clients 3",
        "list --total 20 --clients 2 --key-space-size 1000 --limit 30",
    ] {
        assert_eq!(status(Lie::None, line), 0, "{line}");
    }
}

#[test]
fn lost_puts_are_found_by_reading_back() {
    assert_eq!(status(Lie::LosesPuts, "put --total 500 --clients 20"), 1);
    assert_eq!(status(Lie::LosesPuts, "put --total 500 --clients 20 --sample 0"), 0, "nobody looked");
}

#[test]
fn changed_values_are_found() {
    assert_eq!(status(Lie::FlipsBytes, "put --total 100 --clients 5"), 1);
    assert_eq!(status(Lie::FlipsBytes, "txn-put --total 10 --clients 5"), 1);
    assert_eq!(status(Lie::FlipsBytes, "range --total 100 --clients 5 --key-space-size 100"), 1);
    assert_eq!(status(Lie::FlipsBytes, "list --total 100 --clients 5 --key-space-size 100"), 1);
}

#[test]
fn short_lists_are_found() {
    assert_eq!(status(Lie::ShortensLists, "list --total 10 --clients 2 --key-space-size 100"), 1);
}

#[test]
fn refusals_silence_and_broken_connections_are_failures() {
    assert_eq!(status(Lie::RefusesPuts, "put --total 500 --clients 20"), 1);
    assert_eq!(status(Lie::FallsSilent, "put --total 500 --clients 20 --timeout 300ms"), 1);
    assert_eq!(status(Lie::HangsUp, "put --total 500 --clients 20"), 1);
    assert_eq!(status(Lie::HangsUp, "put --total 500 --clients 20 --rate 10000"), 1);
}

#[test]
fn methods_that_the_server_lacks_are_failures() {
    for line in ["lock --total 10 --clients 2", "snapshot --total 1", "compact", "defragment"] {
        assert_eq!(status(Lie::None, line), 1, "{line}");
    }
    assert_eq!(status(Lie::None, "lease-expire --leases 5 --ttl 2s --timeout 300ms"), 1);
    assert_eq!(status(Lie::None, "lease-keepalive --total 10 --clients 1"), 1);
}

#[test]
fn a_server_that_never_confirms_a_watcher_is_a_failure() {
    assert_eq!(status(Lie::None, "watch --total 10 --watchers 5 --streams 1 --timeout 300ms"), 1);
}

#[test]
fn tls_with_a_server_that_speaks_none_is_a_failure() {
    let address = liar::start(Lie::None);
    let line = format!("put --total 10 --clients 1 --insecure-skip-tls-verify --endpoints https://{address}");
    assert_eq!(milepost_bench::run(line.split_whitespace().map(OsString::from).collect()), 1);
}

#[test]
fn wrong_flags_have_a_status_of_their_own() {
    assert_eq!(status(Lie::None, "put --conns 0"), 2);
    assert_eq!(status(Lie::None, "help"), 0);
}
