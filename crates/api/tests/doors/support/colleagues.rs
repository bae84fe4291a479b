//! Other members, as far as a door notices them.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Mutex;
use std::time::Duration;

use milepost_api::{Asked, Colleagues, Unheard};
use milepost_proto::etcdserverpb as pb;
use milepost_types::{LeaseId, MemberId};

/// They are there for as long as they are said to be, and answer what they are told to.
#[derive(Default)]
pub struct Others {
    pub active: Mutex<BTreeMap<u64, Duration>>,
    /// What was asked, and where: taken from the end.
    pub asked: Mutex<Vec<String>>,
    /// What they answer, from the end; then they are lost.
    pub answers: Mutex<Vec<Result<i64, Unheard>>>,
}

impl Others {
    /// These have been there for a minute.
    pub fn with(ids: &[u64]) -> Self {
        let active = ids.iter().map(|&id| (id, Duration::from_secs(60))).collect();
        Self { active: Mutex::new(active), ..Self::default() }
    }

    pub fn answer(&self, answer: Result<i64, Unheard>) {
        self.answers.lock().unwrap().insert(0, answer);
    }

    fn ask(&self, what: String) -> Result<i64, Unheard> {
        self.asked.lock().unwrap().push(what);
        self.answers.lock().unwrap().pop().unwrap_or_else(|| Err(Unheard::Lost("nobody there".into())))
    }
}

/// The status and text of a refusal.
pub fn refused(status: u16, body: &str) -> Result<i64, Unheard> {
    Err(Unheard::Refused { status, body: body.into() })
}

impl Colleagues for Others {
    fn active_for(&self, member: MemberId) -> Option<Duration> {
        self.active.lock().unwrap().get(&member.0).copied()
    }

    fn promote(&self, urls: &[String], id: MemberId) -> Asked<Vec<pb::Member>> {
        let answer = self.ask(format!("promote {id} at {}", urls.join(" ")));
        Box::pin(ready(answer.map(|id| vec![pb::Member { id: id.unsigned_abs(), ..pb::Member::default() }])))
    }

    fn renew_lease(&self, urls: &[String], id: LeaseId) -> Asked<i64> {
        Box::pin(ready(self.ask(format!("renew {id} at {}", urls.join(" ")))))
    }

    fn lease_time_to_live(
        &self,
        urls: &[String],
        request: pb::LeaseTimeToLiveRequest,
    ) -> Asked<pb::LeaseTimeToLiveResponse> {
        let answer = self.ask(format!("look at {} at {}", LeaseId(request.id), urls.join(" ")));
        let told = |ttl| pb::LeaseTimeToLiveResponse {
            header: Some(pb::ResponseHeader { revision: 99, ..Default::default() }),
            id: request.id,
            ttl,
            granted_ttl: 60,
            keys: Vec::new(),
        };
        Box::pin(ready(answer.map(told)))
    }
}
