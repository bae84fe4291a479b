//! What kind of world a seed makes, and the bugs that can be planted in it.

use crate::network::Weather;
use crate::rng::Rng;

/// A bug that the simulation must find. It sits in the simulation's own hands between the node and the world, never in
/// the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The door answers a write once the leader's own log has it.
    AnswerBeforeQuorum,
    /// Raft hears that a new term or vote is durable before it is, so that messages leave too early.
    SendBeforeSync,
    /// What is applied depends on the member's clock.
    ApplyReadsClock,
    /// The door answers linearizable reads without asking the leader.
    UnconfirmedReads,
    /// A clock runs half as fast again: leases end early.
    FastClock,
    /// A disk says that a sync is done and does nothing: every promise after it may be lost.
    LyingDisk,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::AnswerBeforeQuorum,
        Self::SendBeforeSync,
        Self::ApplyReadsClock,
        Self::UnconfirmedReads,
        Self::FastClock,
        Self::LyingDisk,
    ];

    /// As the command line spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AnswerBeforeQuorum => "answer-before-quorum",
            Self::SendBeforeSync => "send-before-sync",
            Self::ApplyReadsClock => "apply-reads-clock",
            Self::UnconfirmedReads => "unconfirmed-reads",
            Self::FastClock => "fast-clock",
            Self::LyingDisk => "lying-disk",
        }
    }
}

/// A seed's world.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Members that found the cluster.
    pub founders: u64,
    /// A lone founder grows to three, and crashes at this one of its syncs.
    pub crash_at_sync: Option<u64>,
    /// Simulated time of trouble, in microseconds; after it everything heals.
    pub trouble: u64,
    /// The network at its best.
    pub weather: Weather,
    /// Of a thousand syncs so many end in a power cut.
    pub crash_per_mille: u64,
    /// Time between two blows of fate, in microseconds, on average.
    pub chaos_every: u64,
    /// Time between two changes of membership.
    pub admin_every: u64,
    /// `--snapshot-count`.
    pub snapshot_count: u64,
    /// `--snapshot-catchup-entries`.
    pub catch_up: u64,
    /// Bytes of entries in memory.
    pub log_memory: usize,
    /// Bytes of a log segment.
    pub segment_bytes: u64,
    /// `--pre-vote`.
    pub pre_vote: bool,
    /// How many clients.
    pub clients: usize,
}

impl Plan {
    /// Draws a world.
    pub fn draw(seed: u64, rng: &mut Rng) -> Self {
        let grows = seed % 4 == 1;
        let founders = if grows { 1 } else { rng.pick(&[3, 3, 3, 4, 5, 2]).unwrap_or(3) };
        Self {
            founders,
            crash_at_sync: grows.then_some(seed / 4 % 64 + 1),
            trouble: 14_000_000,
            weather: Weather {
                lost: rng.pick(&[0, 5, 30, 120]).unwrap_or(0),
                doubled: rng.pick(&[0, 10, 50]).unwrap_or(0),
                late: rng.pick(&[0, 5, 40]).unwrap_or(0),
                delay: rng.pick(&[200, 1_000, 8_000]).unwrap_or(200),
                ..Weather::default()
            },
            crash_per_mille: rng.pick(&[0, 3, 12]).unwrap_or(0),
            chaos_every: rng.between(250_000, 1_200_000),
            admin_every: rng.between(700_000, 3_000_000),
            snapshot_count: rng.between(15, 120),
            catch_up: rng.pick(&[0, 5, 40]).unwrap_or(5),
            log_memory: rng.pick(&[600, 4_000, 64 << 20]).unwrap_or(4_000),
            segment_bytes: rng.pick(&[4_096, 32_768, 1 << 20]).unwrap_or(32_768),
            pre_vote: rng.chance(4, 5),
            clients: rng.between(3, 6) as usize,
        }
    }
}
