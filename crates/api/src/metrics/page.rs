//! `/metrics`: everything that this member counts, in Prometheus' text format.

use std::sync::Arc;

use super::DoorMetrics;

/// All sources of the page.
pub(crate) struct Page {
    pub(crate) doors: Vec<Arc<DoorMetrics>>,
}

impl Page {
    pub(crate) fn new(_config: &crate::config::ApiConfig, doors: Vec<Arc<DoorMetrics>>) -> Self {
        Self { doors }
    }
}
