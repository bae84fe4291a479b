//! What the data directory holds before a member touches it. Source: etcd `identifyDataDirOrDie`.

use std::io;
use std::path::Path;

use milepost_node::log::Log;

use crate::config::system_words;

/// Who was here before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// A member.
    Member,
    /// Nobody.
    Nobody,
    /// A v2 proxy, which no etcd runs any more.
    Proxy,
}

/// Looks into `dir` and warns of strangers in it.
///
/// # Errors
/// It cannot be read, or holds a member and a proxy: the message and the error.
pub fn look(dir: &Path, log: &dyn Log) -> Result<Before, (&'static str, String)> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Before::Nobody),
        Err(error) => {
            let verb = if error.kind() == io::ErrorKind::NotADirectory { "readdirent" } else { "open" };
            let why = format!("{verb} {}: {}", dir.display(), system_words(&error));
            return Err(("failed to list data directory", why));
        }
    };
    let (mut has_member, mut has_proxy) = (false, false);
    for entry in entries.flatten() {
        match entry.file_name().to_string_lossy().as_ref() {
            "member" => has_member = true,
            "proxy" => has_proxy = true,
            // Certificates that we made ourselves.
            "fixtures" => {}
            stranger => log.warn(
                "found invalid file under data directory",
                &[("filename", stranger.into()), ("data-dir", dir.display().to_string().into())],
            ),
        }
    }
    match (has_member, has_proxy) {
        (true, true) => Err(("invalid datadir; both member and proxy directories exist", String::new())),
        (true, false) => Ok(Before::Member),
        (false, true) => Ok(Before::Proxy),
        (false, false) => Ok(Before::Nobody),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use milepost_node::log::NoLog;

    #[test]
    fn the_names_inside_tell() {
        let dir = tempfile::tempdir().unwrap();
        let look = |path: &Path| look(path, &NoLog).map_err(|(message, _)| message);
        assert_eq!(look(&dir.path().join("none")), Ok(Before::Nobody));
        assert_eq!(look(dir.path()), Ok(Before::Nobody));
        std::fs::create_dir(dir.path().join("proxy")).unwrap();
        assert_eq!(look(dir.path()), Ok(Before::Proxy));
        std::fs::create_dir(dir.path().join("member")).unwrap();
        assert_eq!(look(dir.path()), Err("invalid datadir; both member and proxy directories exist"));
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(look(&dir.path().join("file")), Err("failed to list data directory"));
    }
}
