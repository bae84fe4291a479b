//! One figure from a server's `/metrics`.

use std::time::Duration;

use milepost_client::{Client, Deadline};

const NAME: &str = "process_resident_memory_bytes";

/// Time for the whole answer.
const WITHIN: Duration = Duration::from_secs(10);

/// The memory that the server at the client's first endpoint takes, in bytes.
///
/// # Errors
/// Why it is not known.
pub(super) async fn resident_bytes(client: &Client) -> Result<f64, String> {
    let page = client.page("/metrics", Deadline::after(WITHIN)).await;
    find(&page.map_err(|error| format!("fetch error: {error}"))?)
}

fn find(page: &str) -> Result<f64, String> {
    let value = page.lines().find_map(|line| line.strip_prefix(NAME));
    let value = value.ok_or_else(|| format!("could not find: {NAME}"))?.trim();
    value.parse().map_err(|error| format!("parse error: {error}: {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_found_or_missed() {
        let page = "# TYPE process_resident_memory_bytes gauge\nother 1\nprocess_resident_memory_bytes 2.5e+07\n";
        assert_eq!(find(page), Ok(25_000_000.0));
        assert!(find("other 1\n").unwrap_err().starts_with("could not find"));
    }
}
