//! What a client says when it wants a watcher.

use bytes::Bytes;
use milepost_proto::etcdserverpb::{WatchCreateRequest, watch_create_request::FilterType};
use milepost_types::KeyRange;

/// A wish for a watcher. Any values are legal: the hub answers those that cannot be fulfilled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateRequest {
    /// First key; empty: the first key there can be, one zero byte.
    pub key: Bytes,
    /// End of the range as in [`KeyRange::from_wire`].
    pub range_end: Bytes,
    /// First revision of interest; zero: what comes next; above the present: wait for it.
    pub start_revision: i64,
    /// The id to give it; zero: the stream chooses.
    pub watch_id: i64,
    /// Report progress on ticks that follow silence.
    pub progress_notify: bool,
    /// Show what the key held before.
    pub prev_kv: bool,
    /// Cut large replies into fragments.
    pub fragment: bool,
    /// No events of values.
    pub no_put: bool,
    /// No events of deletions.
    pub no_delete: bool,
}

impl CreateRequest {
    /// The first key of interest. Source: etcd `serverWatchStream.recvLoop`.
    #[must_use]
    pub fn first_key(&self) -> &[u8] {
        if self.key.is_empty() { &[0] } else { &self.key }
    }

    /// What is watched; permission to read it is needed.
    #[must_use]
    pub fn range(&self) -> KeyRange<'_> {
        KeyRange::from_wire(self.first_key(), &self.range_end)
    }

    /// True if no key can be in the range.
    #[must_use]
    pub fn is_empty_range(&self) -> bool {
        self.range().is_empty()
    }
}

impl From<WatchCreateRequest> for CreateRequest {
    /// Filters that we do not know are passed over, as in etcd.
    fn from(wire: WatchCreateRequest) -> Self {
        let filtered = |filter: FilterType| wire.filters.contains(&filter.into());
        Self {
            no_put: filtered(FilterType::Noput),
            no_delete: filtered(FilterType::Nodelete),
            key: wire.key,
            range_end: wire.range_end,
            start_revision: wire.start_revision,
            watch_id: wire.watch_id,
            progress_notify: wire.progress_notify,
            prev_kv: wire.prev_kv,
            fragment: wire.fragment,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use milepost_proto::etcdserverpb::WatchCreateRequest;

    use super::CreateRequest;

    #[test]
    fn wire_forms() {
        let wire = WatchCreateRequest { filters: vec![1, 77], prev_kv: true, watch_id: -3, ..Default::default() };
        let request = CreateRequest::from(wire);
        assert_eq!(request, CreateRequest { no_delete: true, prev_kv: true, watch_id: -3, ..Default::default() });
        assert_eq!(request.first_key(), b"\0");
        let range = |key: &'static [u8], end: &'static [u8]| CreateRequest {
            key: Bytes::from_static(key),
            range_end: Bytes::from_static(end),
            ..Default::default()
        };
        assert!(!range(b"", b"\0").is_empty_range() && !range(b"b", b"\0").is_empty_range());
        assert!(range(b"b", b"b").is_empty_range() && range(b"b", b"a").is_empty_range());
        assert!(!range(b"b", b"").is_empty_range());
    }
}
