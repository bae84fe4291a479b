//! Downloads of the whole store, with the checksum at their end compared.

use bytes::{Bytes, BytesMut};
use milepost_proto::etcdserverpb::{SnapshotRequest, SnapshotResponse};
use sha2::{Digest, Sha256};

use super::{Sink, Talk, Work, append, decode};

/// Every ticket downloads everything.
pub struct Snapshot;

impl Work for Snapshot {
    fn path(&self) -> &'static str {
        "/etcdserverpb.Maintenance/Snapshot"
    }

    fn talk(&self) -> Talk {
        Talk::Download
    }

    fn encode(&self, _: u64, out: &mut BytesMut) {
        append(&SnapshotRequest::default(), out);
    }

    fn check(&self, _: u64, _: Bytes) -> Result<i64, String> {
        unreachable!("the sink takes the messages");
    }

    fn sink(&self) -> Option<Box<dyn Sink>> {
        Some(Box::new(Received::default()))
    }
}

/// Bytes of the checksum behind the file.
const CHECKSUM_BYTES: usize = 32;

/// The file is a whole number of these. Source: bbolt writes pages; etcd `etcdutl/snapshot` looks for the same remainder.
const SECTOR_BYTES: u64 = 512;

#[derive(Default)]
struct Received {
    bytes: u64,
    promised: Option<u64>,
    hash: Sha256,
    /// The last bytes seen, which may be the checksum: not hashed yet.
    tail: BytesMut,
}

impl Sink for Received {
    fn push(&mut self, message: Bytes) -> Result<(), String> {
        let message: SnapshotResponse = decode(message)?;
        self.bytes += message.blob.len() as u64;
        self.promised = Some(message.remaining_bytes);
        self.tail.extend_from_slice(&message.blob);
        let sure = self.tail.len().saturating_sub(CHECKSUM_BYTES);
        self.hash.update(self.tail.split_to(sure));
        Ok(())
    }

    fn end(self: Box<Self>) -> Result<i64, String> {
        if self.promised != Some(0) {
            return Err(format!(
                "a snapshot of {} bytes ends with {:?} bytes still promised",
                self.bytes, self.promised
            ));
        }
        if self.bytes % SECTOR_BYTES != CHECKSUM_BYTES as u64 {
            return Err(format!("a snapshot of {} bytes has no checksum at its end", self.bytes));
        }
        if self.hash.finalize()[..] != self.tail[..] {
            return Err("a snapshot's checksum does not fit its bytes".into());
        }
        Ok(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use milepost_proto::Message;

    fn received(parts: &[&[u8]], left: u64) -> Result<i64, String> {
        let mut sink = Box::new(Received::default());
        let whole: usize = parts.iter().map(|part| part.len()).sum();
        let mut rest = whole as u64 + left;
        for part in parts {
            rest -= part.len() as u64;
            let blob = Bytes::copy_from_slice(part);
            let message = SnapshotResponse { remaining_bytes: rest, blob, ..SnapshotResponse::default() };
            sink.push(message.encode_to_vec().into())?;
        }
        sink.end()
    }

    #[test]
    fn a_whole_file_with_its_checksum_passes_however_it_is_cut() {
        let file = [7u8; 1024];
        let sum = Sha256::digest(file);
        assert_eq!(received(&[&file, &sum], 0), Ok(1));
        let whole = [&file[..], &sum[..]].concat();
        assert_eq!(received(&[&whole[..1030], &whole[1030..]], 0), Ok(1));
        assert!(received(&[&file, &sum], 9).unwrap_err().contains("still promised"));
        assert!(received(&[&file], 0).unwrap_err().contains("no checksum"));
        assert!(received(&[&file, &[0; 32]], 0).unwrap_err().contains("does not fit"));
        assert!(received(&[], 0).is_err());
    }
}
