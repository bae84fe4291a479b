//! Where a watcher goes on after its stream broke: decided without any IO.

use milepost_proto::etcdserverpb as pb;

/// One watcher as the server is to know it.
#[derive(Debug)]
pub(super) struct Resume {
    /// What is sent to create it, now or again. `start_revision` is the first revision not seen yet; 0 before the
    /// server has said where it begins.
    request: pb::WatchCreateRequest,
    /// Fragments of an update that has not arrived in full.
    partial: Option<pb::WatchResponse>,
}

impl Resume {
    pub(super) fn new(request: pb::WatchCreateRequest) -> Resume {
        Resume { request, partial: None }
    }

    /// What creates the watcher where it is now.
    pub(super) fn request(&self) -> &pb::WatchCreateRequest {
        &self.request
    }

    /// The server has created the watcher. One that begins "now" begins behind the revision of this answer: should the
    /// stream break before the first event, the next one begins there too.
    pub(super) fn created(&mut self, response: &pb::WatchResponse) {
        self.partial = None;
        if self.request.start_revision == 0 {
            self.request.start_revision = revision(response) + 1;
        }
    }

    /// Takes an answer in; gives the update that it completes.
    pub(super) fn take(&mut self, mut response: pb::WatchResponse) -> Option<pb::WatchResponse> {
        if let Some(mut partial) = self.partial.take() {
            partial.events.append(&mut response.events);
            partial.fragment = response.fragment;
            partial.header = response.header;
            response = partial;
        }
        if response.fragment {
            self.partial = Some(response);
            return None;
        }
        let seen = response.events.last().and_then(|event| event.kv.as_ref()).map(|kv| kv.mod_revision);
        let next = seen.unwrap_or_else(|| revision(&response)) + 1;
        // A revision of 0 comes with cancellations; nothing goes back.
        self.request.start_revision = self.request.start_revision.max(next);
        Some(response)
    }
}

fn revision(response: &pb::WatchResponse) -> i64 {
    response.header.as_ref().map_or(0, |header| header.revision)
}

/// Whether `response` only says how far a watcher has come.
pub(super) fn is_progress(response: &pb::WatchResponse) -> bool {
    let quiet = response.events.is_empty() && !response.canceled && !response.created;
    quiet && response.compact_revision == 0 && revision(response) != 0
}

#[cfg(test)]
mod tests {
    use milepost_proto::mvccpb;

    use super::*;

    fn response(header: i64, events: &[i64], fragment: bool) -> pb::WatchResponse {
        let event = |revision: &i64| mvccpb::Event {
            kv: Some(mvccpb::KeyValue { mod_revision: *revision, ..Default::default() }),
            ..Default::default()
        };
        pb::WatchResponse {
            header: Some(pb::ResponseHeader { revision: header, ..Default::default() }),
            events: events.iter().map(event).collect(),
            fragment,
            ..Default::default()
        }
    }

    fn from(start_revision: i64) -> Resume {
        Resume::new(pb::WatchCreateRequest { start_revision, ..Default::default() })
    }

    #[test]
    fn a_watcher_from_now_goes_on_behind_its_creation() {
        let mut watcher = from(0);
        watcher.created(&response(7, &[], false));
        assert_eq!(watcher.request().start_revision, 8);
        // Created again: where it was.
        watcher.created(&response(20, &[], false));
        assert_eq!(watcher.request().start_revision, 8);
    }

    #[test]
    fn events_and_progress_move_it_on_and_nothing_moves_it_back() {
        let mut watcher = from(3);
        watcher.created(&response(9, &[], false));
        assert_eq!(watcher.request().start_revision, 3);
        // The header may be ahead of the events while the watcher catches up.
        assert!(watcher.take(response(9, &[3, 5], false)).is_some());
        assert_eq!(watcher.request().start_revision, 6);
        assert!(watcher.take(response(9, &[], false)).is_some());
        assert_eq!(watcher.request().start_revision, 10);
        assert!(watcher.take(response(0, &[], false)).is_some());
        assert_eq!(watcher.request().start_revision, 10);
    }

    #[test]
    fn fragments_count_when_the_last_has_come() {
        let mut watcher = from(3);
        assert_eq!(watcher.take(response(9, &[3, 4], true)), None);
        assert_eq!(watcher.take(response(9, &[4], true)), None);
        assert_eq!(watcher.request().start_revision, 3);
        let whole = watcher.take(response(9, &[4, 5], false)).unwrap();
        assert_eq!((whole.events.len(), whole.fragment), (5, false));
        assert_eq!(watcher.request().start_revision, 6);
        // A stream that broke in between: the pieces are sent again, all of them.
        assert_eq!(watcher.take(response(9, &[6], true)), None);
        watcher.created(&response(9, &[], false));
        let whole = watcher.take(response(9, &[6, 6], false)).unwrap();
        assert_eq!(whole.events.len(), 2);
    }
}
