//! Rewriting the store of a running member.

use crate::world::{Home, PATIENCE, get, put, reply};
use std::sync::mpsc::channel;

#[test]
fn everybody_who_asks_is_answered_and_nothing_is_lost() {
    let home = Home::new();
    let node = home.ready();
    for number in 0..100 {
        reply(&node, put(&format!("k{number}"), "v")).expect("put");
    }
    let (done, is_done) = channel();
    for _ in 0..5 {
        let done = done.clone();
        node.defragment(Box::new(move |result| done.send(result).expect("somebody listens")));
        reply(&node, put("meanwhile", "v")).expect("put");
    }
    for _ in 0..5 {
        assert_eq!(is_done.recv_timeout(PATIENCE).expect("an answer"), Ok(()));
    }
    assert_eq!(get(&node, "k7").count + get(&node, "meanwhile").count, 2);
    assert!(home.lines.has("finished defragmenting directory"), "{:#?}", home.lines.all());
    node.stop();
    let (done, is_done) = channel();
    node.defragment(Box::new(move |result| done.send(result).expect("somebody listens")));
    assert!(is_done.recv_timeout(PATIENCE).expect("an answer").expect_err("stopped").contains("closed"));
}

#[test]
fn a_member_that_stops_answers_who_waits() {
    let home = Home::new();
    let node = home.ready();
    reply(&node, put("a", "v")).expect("put");
    let (done, is_done) = channel();
    for _ in 0..20 {
        let done = done.clone();
        node.defragment(Box::new(move |result| done.send(result).expect("somebody listens")));
    }
    node.stop();
    for _ in 0..20 {
        // Begun with or not: an answer comes.
        let _ = is_done.recv_timeout(PATIENCE).expect("an answer");
    }
}

#[test]
fn a_start_rewrites_the_store_only_if_that_is_worth_it() {
    let mut home = Home::new();
    home.ready().stop();
    for (threshold, line) in [(0, None), (1 << 40, Some("Skipping defragmentation"))] {
        home.config.bootstrap_defragment_bytes = threshold;
        home.ready().stop();
        assert_eq!(home.lines.has("efragment"), line.is_some(), "{:#?}", home.lines.all());
        assert!(line.is_none_or(|line| home.lines.has(line)));
    }
}
