//! Many lives of one member, each ended by a power cut at some change of the disk, also during its start.

use crate::world::{Home, PATIENCE, answers, encode, get, put, waiter};
use milepost_node::{Completion, Node};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Draws by counting: a linear congruence, good enough to pick moments.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Puts until the power is gone or `count` is reached; key → last value that was answered, and last one proposed.
fn live(node: &Node, count: u64, draws: &mut Draws, known: &mut BTreeMap<String, (u64, u64)>, next: &mut u64) {
    let (sink, answers) = answers();
    let mut under_way = BTreeMap::new();
    for _ in 0..count {
        *next += 1;
        let key = format!("k{}", draws.below(40));
        known.entry(key.clone()).or_default().1 = *next;
        let id = node.next_request_id();
        node.propose(id, encode(id, put(&key, &next.to_string())), waiter(&sink, *next));
        under_way.insert(*next, key);
        while under_way.len() > 8 && node.stopped().is_none() {
            let Ok((ticket, answer)) = answers.recv_timeout(PATIENCE) else { return };
            let key = under_way.remove(&ticket).expect("one answer each");
            if let Completion::Reply(Ok(_)) = answer {
                known.entry(key).or_default().0 = ticket;
            }
        }
    }
}

#[test]
fn what_was_answered_is_there_in_every_later_life() {
    let (mut lives, mut cuts_at_start, mut answered) = (0, 0, 0);
    for seed in 0..12 {
        let mut draws = Draws(seed);
        let mut home = Home::new();
        home.config.snapshot_count = 30;
        let mut known: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let mut next = 0;
        for _ in 0..8 {
            lives += 1;
            home.disk.cut_power_after(3 + draws.below(150));
            if let Ok(node) = home.start() {
                if node.wait_ready(PATIENCE) {
                    live(&node, draws.below(300), &mut draws, &mut known, &mut next);
                }
                node.stop();
            }
            cuts_at_start += u64::from(next == 0);
            home.disk.crash(draws.below(1 << 30));
            home.engine = Arc::new(home.engine.crash(draws.below(2) == 0));
            let begin = Instant::now();
            let node = home.ready();
            assert!(begin.elapsed() < PATIENCE);
            for (key, &(last_answered, last_proposed)) in &known {
                let found = get(&node, key).kvs.first().map_or(0, |kv| {
                    std::str::from_utf8(&kv.value).ok().and_then(|text| text.parse().ok()).expect("a number")
                });
                assert!(
                    (last_answered..=last_proposed).contains(&found),
                    "{key} is {found}; answered up to {last_answered}, proposed up to {last_proposed} (seed {seed})"
                );
            }
            node.stop();
        }
        answered += known.values().filter(|(answered, _)| *answered > 0).count();
    }
    assert!(lives == 96 && answered > 100 && cuts_at_start > 0, "{lives} lives, {cuts_at_start}, {answered} answered");
}
