//! The real disk does what the trait says, as far as one can see without pulling the plug.

use std::io;

use milepost_env::{Disk, Open, OsDisk};

#[test]
fn files_directories_and_locks() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("a/b");
    OsDisk.create_dir_all(&inner).unwrap();
    let path = inner.join("f");
    assert!(!OsDisk.exists(&path));
    assert_eq!(OsDisk.open(&path, Open::ReadWrite).err().unwrap().kind(), io::ErrorKind::NotFound);

    let mut file = OsDisk.open(&path, Open::Create).unwrap();
    assert_eq!(OsDisk.open(&path, Open::Create).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
    assert!(file.is_empty().unwrap());
    file.allocate(0, 10_000).unwrap();
    assert_eq!(file.len().unwrap(), 10_000);
    file.write_at(b"hello", 9_998).unwrap();
    file.sync_data().unwrap();
    OsDisk.sync_dir(&inner).unwrap();
    file.forget_cached().unwrap();
    let mut bytes = [1; 10];
    assert_eq!(file.read_at(&mut bytes, 9_996).unwrap(), 7, "what there is up to the end");
    assert_eq!(&bytes, b"\0\0hello\x01\x01\x01");
    file.set_len(2).unwrap();
    file.sync_all().unwrap();
    assert_eq!(OsDisk.open(&path, Open::Read).unwrap().len().unwrap(), 2);

    let lock = OsDisk.try_lock(&path).unwrap().expect("free");
    assert!(OsDisk.try_lock(&path).unwrap().is_none());
    OsDisk.rename(&path, &inner.join("e")).unwrap();
    assert!(OsDisk.try_lock(&inner.join("e")).unwrap().is_none(), "the lock follows the file");
    drop(lock);
    assert!(OsDisk.try_lock(&inner.join("e")).unwrap().is_some());

    OsDisk.open(&inner.join("z"), Open::CreateOrTruncate).unwrap();
    assert_eq!(OsDisk.list(&inner).unwrap(), ["e", "z"]);
    OsDisk.remove_file(&inner.join("z")).unwrap();
    assert!(OsDisk.free_bytes(&inner).unwrap() > 0);
    OsDisk.remove_dir_all(&dir.path().join("a")).unwrap();
    assert!(!OsDisk.exists(&inner));
}

#[cfg(unix)]
#[test]
fn nobody_else_may_read_them() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("a");
    OsDisk.create_dir_all(&inner).unwrap();
    OsDisk.open(&inner.join("f"), Open::Create).unwrap();
    assert_eq!(std::fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::metadata(inner.join("f")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_was_never_written_need_not_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = OsDisk.open(&dir.path().join("f"), Open::Create).unwrap();
    assert_eq!(file.data_end().unwrap(), 0);
    let len = 64 << 20;
    file.allocate(0, len).unwrap();
    // Behind a stretch that was never written: it is the last byte that counts, not the first hole.
    for at in [0, 33 << 20, len - 1] {
        file.write_at(b"x", at).unwrap();
        for synced in [false, true] {
            // A file system may know less than all, never more.
            let end = file.data_end().unwrap();
            assert!(at < end && end <= len, "{at} {end} synced {synced}");
            file.sync_all().unwrap();
            file.forget_cached().unwrap();
        }
    }
}
