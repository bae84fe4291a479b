//! How far another member is, and whether its clock goes with ours. Nothing depends on it. Source: etcd
//! `rafthttp/probing_status.go`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::exchange::Whole;
use crate::kept::Kept;
use crate::peer::Peer;
use crate::transport::Shared;

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(4);
/// How often that is told while all is well, in questions.
const TELL_EVERY: u32 = 7;
/// Clocks may differ by this.
const DRIFT_MAX: Duration = Duration::from_secs(1);
/// etcd's name for the connections of the streams.
const ROUND_TRIPPER: (&str, &str) = ("round-tripper-name", "ROUND_TRIPPER_RAFT_MESSAGE");

/// The answer to a probe.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reply {
    #[serde(rename = "OK")]
    ok: bool,
    #[serde(rename = "Now")]
    now: jiff::Timestamp,
}

impl Reply {
    /// Ours, at `unix` since 1970.
    pub(crate) fn at(unix: Duration) -> String {
        let reply = Self { ok: true, now: timestamp(unix) };
        let mut text = serde_json::to_string(&reply).expect("two plain fields");
        text.push('\n');
        text
    }
}

fn timestamp(unix: Duration) -> jiff::Timestamp {
    let since = jiff::SignedDuration::try_from(unix).unwrap_or(jiff::SignedDuration::ZERO);
    jiff::Timestamp::from_duration(since).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

/// What one question found out.
struct Finding {
    round_trip: Duration,
    drift: Duration,
}

/// Asks `peer` forever.
pub(crate) async fn run(shared: Arc<Shared>, peer: Arc<Peer>) {
    let mut kept = Kept::new(shared.dialler.clone());
    let mut asked = 0;
    // The first finding is told early.
    sleep(EVERY).await;
    loop {
        let result = ask(&shared, &peer, &mut kept).await;
        let to = ("remote-peer-id", peer.id.to_string());
        let name = (ROUND_TRIPPER.0, ROUND_TRIPPER.1.to_owned());
        match result {
            Err(why) => {
                asked = 0;
                let fields = [name, to, ("rtt", "0s".into()), ("error", why)];
                shared.journal.warn("prober detected unhealthy status", &fields);
            }
            Ok(finding) => {
                if asked % TELL_EVERY == 0 {
                    peer.row.round_trip.observe(finding.round_trip);
                    if finding.drift > DRIFT_MAX {
                        let drift = ("clock-drift", format!("{:?}", finding.drift));
                        let fields = [name, to, drift, ("rtt", format!("{:?}", finding.round_trip))];
                        shared.journal.warn("prober found high clock drift", &fields);
                    }
                }
                asked += 1;
            }
        }
        sleep(EVERY).await;
    }
}

async fn ask(shared: &Shared, peer: &Peer, kept: &mut Kept) -> Result<Finding, String> {
    let url = peer.picker.pick();
    let request = shared.identity.request(Method::GET, &url, "/raft/probing");
    let request = request.body(Whole::new(Bytes::new())).map_err(|why| why.to_string())?;
    let start = shared.clock.monotonic();
    let answer = kept.ask(&url, request).await?;
    let round_trip = shared.clock.monotonic().saturating_sub(start);
    if answer.status != 200 {
        return Err(format!("unhandled http status {}", answer.status));
    }
    let reply: Reply = serde_json::from_slice(&answer.body).map_err(|why| why.to_string())?;
    let drift = drift(timestamp(shared.clock.unix()), reply.now, round_trip);
    Ok(Finding { round_trip, drift })
}

/// How far their clock is off for certain: they looked at it at some moment of the round trip that ends `now`.
fn drift(now: jiff::Timestamp, theirs: jiff::Timestamp, round_trip: Duration) -> Duration {
    let half = round_trip / 2;
    let middle = now.as_duration() - jiff::SignedDuration::try_from(half).unwrap_or_default();
    (middle - theirs.as_duration()).unsigned_abs().saturating_sub(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_is_no_drift() {
        let at = |millis| timestamp(Duration::from_millis(millis));
        let ms = Duration::from_millis;
        // Asked at 1000, answered at 5000.
        for theirs in [1000, 3000, 5000] {
            assert_eq!(drift(at(5000), at(theirs), ms(4000)), Duration::ZERO, "{theirs}");
        }
        assert_eq!(drift(at(5000), at(7500), ms(4000)), ms(2500));
        assert_eq!(drift(at(5000), at(100), ms(100)), ms(4800));
    }

    #[test]
    fn answers_are_as_gos() {
        let text = Reply::at(Duration::new(1_700_000_000, 5_000_000));
        assert_eq!(text, "{\"OK\":true,\"Now\":\"2023-11-14T22:13:20.005Z\"}\n");
        let theirs: Reply =
            serde_json::from_str("{\"OK\":true,\"Now\":\"2023-11-14T23:13:20.005000001+01:00\"}").unwrap();
        assert_eq!(theirs.now.as_second(), 1_700_000_000);
    }
}
