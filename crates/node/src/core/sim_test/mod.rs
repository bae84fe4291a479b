//! Whole clusters over the core: a network that loses, doubles and reorders, disks that forget what was not synced.
//!
//! One seed gives one run. After every event: one leader per term; an entry's (index, term) names one content and one
//! predecessor (which is log matching); what is applied anywhere is applied everywhere alike, and only after it is
//! committed and durable there; a read's index covers everything applied anywhere before it was asked for. After each
//! run the network heals and a last proposal must reach every member.
//!
//! A failure names its seed and set-up; `run(set-up, seed)` replays it.

mod events;
mod sim;
mod world;

use super::{Core, CoreConfig, Effect, Input, MEMORY_BYTES_MAX, Proposal, Restart, Role};
use milepost_proto::raftpb;
use world::{Counts, Machine, Setup, Sim};

const ELECTION_TICKS: usize = 10;
/// Message type.
const SNAPSHOT: i32 = 7;
/// "Stand for election now."
const TIMEOUT_NOW: i32 = 14;

fn run(setup: Setup, seed: u64) -> (Counts, u64) {
    struct Named(Setup, u64);
    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("replay with run({:?}, {})", self.0, self.1);
            }
        }
    }
    let _named = Named(setup, seed);
    let mut sim = Sim::new(setup, seed);
    for _ in 0..setup.events {
        sim.event();
    }
    sim.heal();
    (sim.counts, sim.trace)
}

const CALM: Setup = Setup { voters: 1, joiners: 0, events: 600, crash: 0, loss: 0, cut: false, crash_at_sync: None };

#[test]
fn alone_with_crashes() {
    let setup = Setup { events: 4_000, crash: 10, ..CALM };
    for seed in 0..10 {
        let (counts, _) = run(setup, seed);
        if seed == 0 {
            println!("{counts:?}");
        }
        assert!(counts.crashes > 20 && counts.applied > 100 && counts.reads > 50, "{counts:?}");
    }
}

#[test]
fn three_with_loss_and_crashes() {
    let setup = Setup { voters: 3, events: 8_000, crash: 3, loss: 10, ..CALM };
    for seed in 0..20 {
        let (counts, _) = run(setup, seed);
        if seed == 0 {
            println!("{counts:?}");
        }
        assert!(counts.crashes > 0 && counts.lost > 50 && counts.applied > 100, "{counts:?}");
    }
}

/// The growth path: one voter, then learners, then three voters, while everything fails.
#[test]
fn one_becomes_three() {
    let setup = Setup { joiners: 2, events: 6_000, crash: 5, loss: 5, ..CALM };
    let mut grown = 0;
    for seed in 0..20 {
        let (counts, _) = run(setup, seed);
        if seed == 0 {
            println!("{counts:?}");
        }
        grown += u64::from(counts.conf_changes >= 5);
    }
    assert!(grown >= 5, "only {grown} of 20 clusters grew to three");
}

/// Logs are cut, memory holds little: members that fell behind get entries from disk, or snapshots.
#[test]
fn three_with_cut_logs() {
    let setup = Setup { voters: 3, events: 10_000, crash: 2, loss: 15, cut: true, ..CALM };
    let mut all = (0, 0, 0);
    for seed in 0..20 {
        let (counts, _) = run(setup, seed);
        if seed == 0 {
            println!("{counts:?}");
        }
        all = (all.0 + counts.cuts, all.1 + counts.snapshots, all.2 + counts.fetches);
    }
    assert!(all.0 > 500 && all.1 > 20 && all.2 > 20, "cuts, snapshots, fetches: {all:?}");
}

#[test]
fn one_becomes_three_with_cut_logs() {
    let setup = Setup { joiners: 2, events: 8_000, crash: 3, loss: 5, cut: true, ..CALM };
    let mut grown = 0;
    for seed in 0..20 {
        let (counts, _) = run(setup, seed);
        grown += u64::from(counts.conf_changes >= 5 && counts.snapshots > 0);
    }
    assert!(grown >= 3, "only {grown} of 20 clusters grew by snapshots");
}

/// A leader whose disk hangs, while a quorum without it goes on, hands leadership over.
#[test]
fn a_leader_that_cannot_persist_gives_way() {
    let mut sim = Sim::new(Setup { voters: 3, ..CALM }, 5);
    sim.heal();
    let leader_of = |sim: &Sim| {
        let leads = |member: &Machine| member.core.as_ref().expect("up").standing().role == Role::Leader;
        sim.members.iter().filter(|(_, member)| leads(member)).map(|(&id, _)| id).collect::<Vec<u64>>()
    };
    let before = leader_of(&sim);
    assert_eq!(before.len(), 1);
    sim.members.get_mut(&before[0]).expect("the leader").stuck = true;
    sim.propose(before[0]);
    let mut ticks = 0;
    while leader_of(&sim) == before {
        ticks += 1;
        assert!(ticks < 6 * ELECTION_TICKS, "it leads still");
        for id in 1..=3 {
            sim.handle(id, Input::Tick);
        }
        for _ in 0..200 {
            sim.deliver();
            for id in 1..=3 {
                sim.sync(id);
                sim.apply(id, 10);
            }
        }
    }
    assert!(ticks > ELECTION_TICKS, "it gave way after {ticks} ticks, before its disk had its time");
    sim.members.get_mut(&before[0]).expect("the old leader").stuck = false;
    sim.heal();
}

/// A conf change that a follower asks for when it has applied the one before, and the leader has not, waits for that. One that
/// is asked for before that is committed does not take place: both were checked against the same members.
#[test]
fn a_conf_change_waits_until_the_one_before_is_applied() {
    let mut sim = Sim::new(Setup { voters: 3, joiners: 3, ..CALM }, 5);
    sim.heal();
    let leads = |(_, member): &(&u64, &Machine)| member.core.as_ref().expect("up").standing().role == Role::Leader;
    let leader = *sim.members.iter().find(leads).expect("a leader").0;
    let followers = [leader % 3 + 1, (leader + 1) % 3 + 1];
    let add = |node: u64| Input::Propose(vec![Proposal { data: world::conf_change(3, node), conf_change: true }]);
    sim.handle(leader, add(4));
    sim.handle(followers[1], add(5));
    while !sim.members[&followers[0]].store.conf_state.learners.contains(&4) {
        sim.deliver();
        (1..=3).for_each(|id| sim.sync(id));
        followers.iter().for_each(|id| sim.apply(*id, 10));
        if sim.network.is_empty() {
            // The commit index travels with it.
            sim.handle(leader, Input::Tick);
        }
    }
    assert!(sim.members[&leader].store.conf_state.learners.is_empty(), "the leader has applied it");
    sim.handle(followers[0], add(6));
    while !sim.network.is_empty() {
        sim.deliver();
    }
    sim.heal();
    for id in [1, 2, 3, 4, 6] {
        assert_eq!(sim.members[&id].store.conf_state.learners, [4, 6], "at {id}");
    }
}

/// A leader that removes itself stops leading once that is applied, and the others go on. (The crate looks for its own
/// progress at every answer and every sync, and panics without it.)
#[test]
fn a_leader_that_removes_itself_gives_way() {
    let mut sim = Sim::new(Setup { voters: 3, ..CALM }, 5);
    sim.heal();
    let leader_of = |sim: &Sim| {
        let leads = |member: &Machine| member.core.as_ref().expect("up").standing().role == Role::Leader;
        sim.members.iter().filter(|(_, member)| leads(member)).map(|(&id, _)| id).collect::<Vec<u64>>()
    };
    let before = leader_of(&sim)[0];
    // More is under way when it is applied.
    let removal = Proposal { data: world::conf_change(1, before), conf_change: true };
    sim.handle(before, Input::Propose(vec![removal]));
    sim.propose(before);
    let mut ticks = 0;
    while leader_of(&sim).iter().all(|&id| id == before) {
        ticks += 1;
        assert!(ticks < 6 * ELECTION_TICKS, "nobody else leads");
        for id in 1..=3 {
            sim.handle(id, Input::Tick);
        }
        for _ in 0..50 {
            sim.deliver();
            sim.apply(before, 1);
            for id in 1..=3 {
                sim.sync(id);
                sim.apply(id, 10);
            }
        }
    }
    let after = leader_of(&sim);
    assert!(!after.contains(&before), "{before} leads still");
    let voters = sim.members[&after[0]].store.conf_state.voters.clone();
    assert!(voters.len() == 2 && !voters.contains(&before), "{voters:?}");
}

/// Between a received snapshot's way into the log and its way into the store, what is not applied is no longer in the log.
/// The crate looks for conf changes there before it stands for election, and panics.
#[test]
fn nobody_stands_for_election_while_a_snapshot_is_installed() {
    let conf_state = raftpb::ConfState { voters: vec![1, 2], ..Default::default() };
    let entry = |index| raftpb::Entry { index: Some(index), term: Some(1), r#type: Some(0), data: None };
    let restart = Restart {
        hard_state: raftpb::HardState { term: Some(1), vote: Some(0), commit: Some(3) },
        conf_state: conf_state.clone(),
        entries: (1..=3).map(entry).collect(),
        applied: 1,
        ..Restart::default()
    };
    let config = CoreConfig {
        id: 1,
        seed: 1,
        election_ticks: ELECTION_TICKS,
        heartbeat_ticks: 1,
        pre_vote: true,
        first_read_context: 1,
        memory_bytes_max: MEMORY_BYTES_MAX,
    };
    let mut core = Core::new(config, &restart).expect("it starts");
    let mut effects = Vec::new();
    let mut handle = |core: &mut Core, input: Input| {
        effects.clear();
        core.handle(input, &mut effects).expect("no broken truth");
        effects.clone()
    };
    let message = |kind: i32| raftpb::Message {
        r#type: Some(kind),
        to: Some(1),
        from: Some(2),
        term: Some(1),
        ..raftpb::Message::default()
    };
    let metadata = raftpb::SnapshotMetadata { conf_state: Some(conf_state), index: Some(50), term: Some(1) };
    let snapshot = Some(raftpb::Snapshot { data: None, metadata: Some(metadata) });
    let effects = handle(&mut core, Input::Message(Box::new(raftpb::Message { snapshot, ..message(SNAPSHOT) })));
    let number = effects.iter().find_map(|effect| match effect {
        Effect::Persist(persist) if persist.snapshot.is_some() => Some(persist.number),
        _ => None,
    });
    handle(&mut core, Input::Persisted(number.expect("a snapshot to write")));
    handle(&mut core, Input::Message(Box::new(message(TIMEOUT_NOW))));
    handle(&mut core, Input::Campaign);
    for _ in 0..5 * ELECTION_TICKS {
        handle(&mut core, Input::Tick);
    }
    assert_eq!(core.standing().role, Role::Follower);
    handle(&mut core, Input::Applied(50));
    handle(&mut core, Input::Message(Box::new(message(TIMEOUT_NOW))));
    assert_eq!(core.standing().role, Role::Candidate, "installed: it may stand");
}

/// A lone voter leads from inside one Ready. Until that is durable, its learner must hear nothing: after a crash the same
/// term comes again, with other entries.
#[test]
fn a_lone_voter_tells_its_learner_nothing_of_a_term_that_it_may_forget() {
    let mut sim = Sim::new(Setup { joiners: 1, ..CALM }, 3);
    while sim.members[&2].store.conf_state.learners.is_empty() {
        sim.handle(1, Input::Tick);
        sim.grow(1);
        for _ in 0..20 {
            sim.sync(1);
            sim.apply(1, 10);
            sim.deliver();
            sim.sync(2);
            sim.apply(2, 10);
        }
    }
    for _ in 0..50 {
        sim.crash(1);
        for _ in 0..10 {
            sim.propose(1);
            sim.apply(1, 10);
            sim.deliver();
            sim.sync(2);
        }
    }
    sim.heal();
}

/// A lone voter with a learner crashes at each of its syncs in turn: what it sent must stay true.
#[test]
fn a_lone_voter_with_a_learner_crashes_at_every_sync() {
    for at in 1..=60 {
        let setup = Setup { joiners: 1, loss: 2, crash_at_sync: Some(at), ..CALM };
        run(setup, 7);
    }
}

#[test]
fn three_crash_at_every_sync() {
    for at in 1..=60 {
        let setup = Setup { voters: 3, loss: 5, crash_at_sync: Some(at), events: 1_500, ..CALM };
        run(setup, 11);
    }
}

#[test]
fn one_seed_one_trace() {
    let setup = Setup { voters: 3, events: 3_000, crash: 3, loss: 10, ..CALM };
    let first = run(setup, 42);
    assert_eq!(first, run(setup, 42), "the same seed gave two traces");
    assert_ne!(first.1, run(setup, 43).1, "two seeds gave one trace");
}
