//! A member's life seen from outside: start, serve, stop, start again, and what it refuses to start on.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::support::{Member, files, flags, free_address, run_to_end};

fn refused(dir: &Path, complaint: &str) {
    let output = run_to_end(&flags(dir, &free_address(), &free_address()));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(complaint), "{complaint:?} is not in: {text}");
}

/// A directory in which a member has lived and stopped; `puts` writes were acknowledged.
fn lived(puts: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let member = Member::start(dir.path(), &[]);
    write(&member, puts);
    member.kill();
    dir
}

fn write(member: &Member, puts: u32) {
    let output = member.bench(&["put", "--conns=2", "--clients=8", &format!("--total={puts}")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn only_file(dir: &Path, suffix: &str) -> PathBuf {
    let found: Vec<PathBuf> =
        files(dir).into_iter().map(|(path, _)| path).filter(|p| p.to_string_lossy().ends_with(suffix)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().expect("one")
}

#[test]
fn serves_stops_cleanly_and_comes_back_with_everything() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let member = Member::start(dir.path(), &[]);
    assert_eq!(
        member.http("GET", "/health"),
        ("HTTP/1.1 200 OK".into(), "{\"health\":\"true\",\"reason\":\"\"}".into())
    );
    assert!(member.http("GET", "/version").1.contains("\"etcdserver\":\"3.7.1\""));
    write(&member, 500);
    let revision = member.revision();
    assert_eq!(revision, 501);
    let (status, log) = member.terminate();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15), "{status:?}");
    for message in ["received signal; shutting down", "closing etcd server", "closed etcd server"] {
        assert!(log.iter().any(|line| line.contains(message)), "{message:?} is missing");
    }
    let member = Member::start(dir.path(), &[]);
    assert_eq!(member.revision(), revision);
}

#[test]
fn a_kill_loses_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut revision = 1;
    for _ in 0..3 {
        let member = Member::start(dir.path(), &["--snapshot-count=200"]);
        assert_eq!(member.revision(), revision);
        write(&member, 300);
        revision += 300;
        member.kill();
    }
}

#[test]
fn log_lines_have_etcds_shape() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut member = Member::start(dir.path(), &[]);
    for message in [
        "\"msg\":\"Running: \"",
        "starting an etcd server",
        "became leader at term 2",
        "published local member to cluster through raft",
    ] {
        let line = member.wait_for(message);
        let order: Vec<usize> =
            ["{\"level\":", "\"ts\":", "\"caller\":", "\"msg\":"].iter().filter_map(|key| line.find(key)).collect();
        assert!(order.len() == 4 && order.is_sorted(), "{line}");
    }
}

#[test]
fn a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let member = Member::start(dir.path(), &[]);
    refused(dir.path(), "in use by another process");
    write(&member, 10);
}

#[test]
fn busy_ports_and_unusable_directories_are_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let address = taken.local_addr().expect("it is bound").to_string();
    for args in [flags(dir.path(), &address, &free_address()), flags(dir.path(), &free_address(), &address)] {
        let output = run_to_end(&args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && text.contains(&address), "{text}");
    }
    let file = dir.path().join("a-file");
    fs::write(&file, "x").expect("it can be written");
    refused(&file, "a-file");
    refused(&file.join("below"), "a-file");
}

#[test]
fn directories_of_others_are_left_alone() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let snap = dir.path().join("member/snap");
    fs::create_dir_all(&snap).expect("it can be made");
    let mut page = vec![0u8; 32 * 1024];
    page[16..20].copy_from_slice(&0xED0C_DAEDu32.to_le_bytes());
    fs::write(snap.join("db"), page).expect("it can be written");
    let before = files(dir.path());
    refused(dir.path(), "belongs to etcd");
    assert_eq!(files(dir.path()), before);
}

#[test]
fn a_directory_of_a_newer_version_is_refused() {
    let dir = lived(1);
    let marker = dir.path().join("member/MILEPOST");
    fs::write(&marker, "milepost data directory, format 999\n").expect("it can be written");
    refused(dir.path(), "format 999");
}

#[test]
fn a_flipped_byte_in_the_log_refuses_to_start() {
    let dir = lived(200);
    let log = only_file(&dir.path().join("member/wal"), ".wal");
    let mut bytes = fs::read(&log).expect("it can be read");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("it holds records");
    bytes[used / 2] ^= 0x40;
    fs::write(&log, bytes).expect("it can be written");
    refused(dir.path(), &log.file_name().expect("it has a name").to_string_lossy());
}

#[test]
fn a_torn_tail_is_cut_and_kept() {
    let dir = lived(200);
    let log = only_file(&dir.path().join("member/wal"), ".wal");
    let bytes = fs::read(&log).expect("it can be read");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("it holds records");
    // The last record never arrived whole: the file ends inside it.
    let file = fs::OpenOptions::new().write(true).open(&log).expect("it can be opened");
    file.set_len(used as u64 - 3).expect("it can be cut");
    let member = Member::start(dir.path(), &[]);
    // Eight clients wrote at once, so at most eight writes were in the last record that was synced.
    assert!((193..=201).contains(&member.revision()), "{}", member.revision());
    only_file(&dir.path().join("member/wal"), ".broken");
}

#[test]
fn a_store_in_doubt_is_copied_with_checks() {
    let dir = lived(300);
    let store = dir.path().join("member/store");
    fs::write(store.join("SUSPECT"), "a sync failed").expect("it can be written");
    let mut member = Member::start(dir.path(), &[]);
    member.wait_for("has taken its place");
    assert_eq!(member.revision(), 301);
    assert!(!store.join("SUSPECT").exists());
    assert_eq!(fs::read_to_string(store.join("CURRENT")).expect("it is there").trim(), "2");
}

#[test]
fn a_damaged_snapshot_file_is_not_needed_to_start() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let member = Member::start(dir.path(), &["--snapshot-count=100"]);
    write(&member, 300);
    member.terminate();
    let damaged = files(&dir.path().join("member/snap"))
        .into_iter()
        .rfind(|(path, _)| path.extension().is_some_and(|e| e == "snap"));
    let (path, mut bytes) = damaged.expect("a snapshot was taken");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).expect("it can be written");
    let member = Member::start(dir.path(), &[]);
    assert_eq!(member.revision(), 301);
}
