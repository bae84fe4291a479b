//! Ranges of keys, as requests carry them: a key and an end, where `\0` as the end means "to the last key".

/// The end that stands for everything from the key on.
pub const OPEN_END: &[u8] = b"\0";

/// The first key behind all keys that begin with `prefix`; [`OPEN_END`] when there is none.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    OPEN_END.to_vec()
}

/// Key and end that `--prefix` and `--from-key` make of `key`. The empty key with either stands for all keys.
pub fn widened(key: &[u8], prefix: bool, from_key: bool) -> (Vec<u8>, Vec<u8>) {
    match key {
        [] if prefix || from_key => (OPEN_END.to_vec(), OPEN_END.to_vec()),
        key if prefix => (key.to_vec(), prefix_end(key)),
        key if from_key => (key.to_vec(), OPEN_END.to_vec()),
        key => (key.to_vec(), Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_its_successor() {
        assert_eq!(prefix_end(b"foo"), b"fop");
        assert_eq!(prefix_end(b"a\xff\xff"), b"b");
        assert_eq!(prefix_end(b"\xff"), OPEN_END);
        assert_eq!(widened(b"", true, false), (b"\0".to_vec(), b"\0".to_vec()));
        assert_eq!(widened(b"k", false, true), (b"k".to_vec(), b"\0".to_vec()));
        assert_eq!(widened(b"", false, false), (Vec::new(), Vec::new()));
    }
}
