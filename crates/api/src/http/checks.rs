//! `/livez` and `/readyz`: named checks, one by one or together. Source: `facts/http.md` §2.

use std::fmt::Write;
use std::rc::Rc;
use std::time::Instant;

use http::StatusCode;
use milepost_proto::etcdserverpb::AlarmType;

use super::query::Query;
use crate::call::Call;
use crate::door::Door;
use crate::grpc::reply::Reply;

/// One thing that can be well or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    SerializableRead,
    LinearizableRead,
    DataCorruption,
    NonLearner,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::DataCorruption => "data_corruption",
            Self::NonLearner => "non_learner",
        }
    }

    async fn run(self, door: &Rc<Door>) -> Result<(), String> {
        match self {
            // A local read fails only with the store, and then the member stops.
            Self::SerializableRead => Ok(()),
            Self::LinearizableRead => {
                let read = door.read_barrier(&Call::internal(Instant::now())).await;
                read.map_err(|why| why.message.into_owned())
            }
            Self::DataCorruption if door.reader().alarms().any(AlarmType::Corrupt) => {
                Err("alarm activated: CORRUPT".into())
            }
            Self::NonLearner if door.backend.standing().is_learner => Err("not supported for learner".into()),
            Self::DataCorruption | Self::NonLearner => Ok(()),
        }
    }
}

/// Which question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    Live,
    Ready,
}

impl Suite {
    /// The suite at `path`, and the one check that is asked for, if only one is. `None`: no such page.
    pub(crate) fn at(path: &str) -> Option<(Self, Option<&str>)> {
        for suite in [Self::Live, Self::Ready] {
            let Some(rest) = path.strip_prefix('/').and_then(|path| path.strip_prefix(suite.name())) else { continue };
            if rest.is_empty() {
                return Some((suite, None));
            }
            let only =
                rest.strip_prefix('/').filter(|only| suite.checks().iter().any(|check| check.name() == *only))?;
            return Some((suite, Some(only)));
        }
        None
    }

    fn name(self) -> &'static str {
        match self {
            Self::Live => "livez",
            Self::Ready => "readyz",
        }
    }

    fn checks(self) -> &'static [Check] {
        match self {
            Self::Live => &[Check::SerializableRead],
            Self::Ready => {
                &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner]
            }
        }
    }

    /// Runs the checks; all lines are shown when one fails or `verbose` is asked for.
    pub(crate) async fn page(self, door: &Rc<Door>, only: Option<&str>, query: &Query) -> Reply {
        let mut lines = String::new();
        let mut is_well = true;
        for check in self.checks() {
            let name = check.name();
            if only.map_or_else(|| query.all("exclude").any(|excluded| excluded == name), |only| only != name) {
                continue;
            }
            let result = check.run(door).await;
            door.page.note_check(self.name(), name, result.is_ok());
            if result.is_ok() {
                door.config
                    .log
                    .debug_with("Health check OK", || [("path", self.name().into()), ("check", name.into())]);
            }
            is_well &= result.is_ok();
            let written = match result {
                Ok(()) => writeln!(lines, "[+]{name} ok"),
                Err(why) => writeln!(lines, "[-]{name} failed: {why}"),
            };
            written.expect("a String takes everything");
        }
        if !is_well {
            return super::error(StatusCode::SERVICE_UNAVAILABLE, lines + "\n");
        }
        let shown = if query.has("verbose") { lines } else { String::new() };
        super::error(StatusCode::OK, shown + "ok\n")
    }
}
