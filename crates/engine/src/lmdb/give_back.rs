//! Giving the disk space of a large file back without keeping the disk from others.

use std::fs::File;
use std::time::Duration;

/// What is cut at once.
const PIECE: u64 = 8 << 20;
/// The disk is the others' for so long then: a piece keeps it for about as long.
const PAUSE: Duration = Duration::from_millis(4);

/// Cuts a file that nobody reads any more, all but its head, a piece at a time. One that is removed whole takes the disk for
/// itself, for half a second per gigabyte where the file system tells the disk what is free (`discard`): so long would the
/// log's sync wait. Nothing tells when others have had their turn, so that a pause it is.
pub(super) fn give_back(file: &File) {
    let Ok(len) = file.metadata().map(|metadata| metadata.len()) else { return };
    for piece in (1..len.div_ceil(PIECE)).rev() {
        // If it fails, the rest goes at once.
        if file.set_len(piece * PIECE).is_err() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::{PIECE, give_back};

    #[test]
    fn all_but_the_head_goes() {
        let file = tempfile::tempfile().expect("file");
        for (before, after) in [(5 * PIECE + 1, PIECE), (PIECE + 1, PIECE), (PIECE, PIECE), (100, 100), (0, 0)] {
            file.set_len(before).expect("length");
            give_back(&file);
            assert_eq!(file.metadata().expect("length").len(), after, "of {before}");
        }
    }
}
