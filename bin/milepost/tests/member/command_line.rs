//! What the server says to words it does not take, and what it prints when asked about itself.

use crate::support::{command, run_to_end};

fn args(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn refused(words: &[&str], code: i32, complaint: &str) {
    let output = run_to_end(&args(words));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{words:?}: {text}");
    assert!(text.contains(complaint), "{words:?}: {text}");
}

#[test]
fn wrong_words_exit_with_etcds_codes() {
    refused(&["--nope"], 2, "flag provided but not defined: -nope");
    refused(&["--snapshot-count=1GB"], 2, "invalid value \"1GB\" for flag -snapshot-count: parse error");
    refused(&["--initial-cluster-state=old"], 2, "\"old\"");
    refused(
        &["--listen-client-urls", "http:/10.240.0.19:2379"],
        2,
        "does not have the form \\\"host:port\\\"".replace('\\', "").as_str(),
    );
    refused(&["stray"], 1, "is not a valid flag");
    refused(&["--listen-client-urls=http://127.0.0.1:1"], 1, "--advertise-client-urls is required");
    refused(&["--log-level=loud"], 2, "unrecognized level");
    refused(&["--name=x", "--initial-cluster=y=http://127.0.0.1:1"], 1, "couldn't find local name");
}

#[test]
fn a_flag_and_its_variable_together_are_refused() {
    let output = command(&args(&["--name=x"])).env("ETCD_NAME", "x").output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("ETCD_NAME"));
}

#[test]
fn version_and_help() {
    let output = run_to_end(&args(&["--version"]));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let labels: Vec<&str> = text.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(labels, ["etcd Version", "Git SHA", "Go Version", "Go OS/Arch"]);
    assert!(text.starts_with("etcd Version: 3.7.1\n") && output.status.success());
    let output = run_to_end(&args(&["--help"]));
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("--data-dir"));
}

#[test]
fn names_of_later_versions_say_so() {
    let output = run_to_end(&args(&["etcdutl", "snapshot", "status", "a"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("etcdutl is not part of this version"));
}

#[test]
fn etcdctl_is_the_first_word() {
    let output = run_to_end(&args(&["etcdctl", "version"]));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success()
            && text.starts_with(
                "etcdctl version: 3.7.1
"
            ),
        "{text}"
    );
}
