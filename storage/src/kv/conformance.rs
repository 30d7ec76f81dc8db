//! What every key-value store must do; run over the one on disk and the one in memory.

use std::sync::mpsc;

use super::*;

/// Who asks for a sync makes no difference here.
const ANY: SyncPoint = SyncPoint::CleanStop;

fn put(space: KeySpace, key: &[u8], value: &'static str) -> KvWrite {
    KvWrite::Put(space, Bytes::copy_from_slice(key), value.into())
}

fn keys(kv: &dyn KeyValueStore, space: KeySpace, prefix: &[u8]) -> Vec<Bytes> {
    kv.scan(space, prefix)
        .expect("scan")
        .into_iter()
        .map(|(key, _)| key)
        .collect()
}

fn spaces_are_apart(kv: &dyn KeyValueStore) {
    kv.write_sync(
        vec![
            put(KeySpace::Vote, b"k", "vote"),
            put(KeySpace::Meta, b"k", "meta"),
        ],
        ANY,
    )
    .expect("write");
    assert_eq!(
        kv.get(KeySpace::Vote, b"k").expect("get").as_deref(),
        Some(&b"vote"[..])
    );
    assert_eq!(
        kv.get(KeySpace::Meta, b"k").expect("get").as_deref(),
        Some(&b"meta"[..])
    );
    assert_eq!(kv.get(KeySpace::Delay, b"k").expect("get"), None);
}

fn scans_follow_keys_and_prefixes(kv: &dyn KeyValueStore) {
    let space = KeySpace::Coordinator;
    let all: [&[u8]; 7] = [
        b"a",
        b"a\0",
        b"a\xff",
        b"a\xff\xff",
        b"b",
        b"\xff",
        b"\xff\xff",
    ];
    kv.write_sync(
        all.iter().rev().map(|key| put(space, key, "v")).collect(),
        ANY,
    )
    .expect("write");
    assert_eq!(keys(kv, space, b""), all);
    assert_eq!(keys(kv, space, b"a"), all[..4]);
    assert_eq!(keys(kv, space, b"a\xff"), all[2..4]);
    assert_eq!(keys(kv, space, b"\xff"), all[5..]);
    assert!(keys(kv, space, b"c").is_empty());
}

fn writes_of_a_batch_apply_in_order(kv: &dyn KeyValueStore) {
    let space = KeySpace::Checkpoint;
    let range =
        |from: &'static str, to: &'static str| KvWrite::DeleteRange(space, from.into(), to.into());
    kv.write_sync(
        vec![
            put(space, b"1", "old"),
            put(space, b"2", "old"),
            put(space, b"3", "old"),
        ],
        ANY,
    )
    .expect("write");
    kv.write_sync(
        vec![
            range("1", "3"),
            put(space, b"2", "new"),
            KvWrite::Delete(space, "3".into()),
            KvWrite::Delete(space, "never there".into()),
            range("9", "0"),
        ],
        ANY,
    )
    .expect("write");
    assert_eq!(keys(kv, space, b""), [&b"2"[..]]);
    assert_eq!(
        kv.get(space, b"2").expect("get").as_deref(),
        Some(&b"new"[..])
    );
    kv.write_sync(Vec::new(), ANY).expect("nothing is fine");
}

fn completions_come_in_order_and_after_the_write(kv: &dyn KeyValueStore) {
    let (sender, receiver) = mpsc::channel();
    for number in 0..200_u32 {
        let sender = sender.clone();
        let write = KvWrite::Put(
            KeySpace::Delay,
            Bytes::copy_from_slice(&number.to_be_bytes()),
            Bytes::new(),
        );
        kv.write(
            vec![write],
            (number % 3 > 0).then_some(ANY),
            Box::new(move |result| sender.send((number, result)).expect("test is waiting")),
        );
    }
    for number in 0..200_u32 {
        let (done, result) = receiver.recv().expect("completion");
        result.expect("written");
        assert_eq!(done, number);
        assert!(
            kv.get(KeySpace::Delay, &number.to_be_bytes())
                .expect("get")
                .is_some()
        );
    }
}

fn check(kv: &dyn KeyValueStore) {
    spaces_are_apart(kv);
    scans_follow_keys_and_prefixes(kv);
    writes_of_a_batch_apply_in_order(kv);
    completions_come_in_order_and_after_the_write(kv);
}

#[test]
fn rocks_conforms() {
    let directory = tempfile::tempdir().expect("temporary directory");
    check(&RocksKv::open(&directory.path().join("kv")).expect("open"));
}

#[test]
fn volatile_rocks_conforms() {
    let directory = tempfile::tempdir().expect("temporary directory");
    for left_out in [None, Some(ANY)] {
        let name = format!("{left_out:?}");
        check(&RocksKv::open_volatile(&directory.path().join(name), left_out).expect("open"));
    }
}

#[test]
fn memory_conforms() {
    check(&MemoryKv::new().expect("open"));
}

#[test]
fn memory_loses_what_was_not_done() {
    let kv = MemoryKv::new().expect("open");
    kv.write_sync(vec![put(KeySpace::Meta, b"1", "kept")], ANY)
        .expect("write");
    kv.hold(true);
    let (sender, receiver) = mpsc::channel();
    kv.write(
        vec![put(KeySpace::Meta, b"2", "lost")],
        Some(ANY),
        Box::new(move |result| sender.send(result.is_ok()).expect("test is waiting")),
    );
    kv.power_loss();
    kv.hold(false);
    assert_eq!(receiver.recv(), Ok(false));
    assert_eq!(keys(&kv, KeySpace::Meta, b""), [&b"1"[..]]);
}
