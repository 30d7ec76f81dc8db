//! Reads that go on where the last one ended, on the reader's own thread.

use super::*;

const END: Offset = Offset(200);

/// 200 batches of one record, about 12 to a segment; all but the last few are in files alone.
async fn filled(manager: &LogManager) -> Arc<PartitionLog> {
    let log = make(manager, 0, small_segments());
    for at in 0..200 {
        append_batches(&log, vec![batch_at(at, 1, &[3; 250])]).await;
    }
    assert!(log.try_read_cached(Offset(0), END, 1, true).is_none());
    log
}

/// Reads without waiting, but where that is not possible.
fn follow(log: &PartitionLog, from: Offset, bytes_max: usize) -> (ReadData, bool) {
    match log.try_read_resident(from, END, bytes_max, true) {
        Some(read) => (read.expect("is readable"), true),
        None => {
            let read = log.read_blocking(from, END, bytes_max, true);
            (read.expect("is readable"), false)
        }
    }
}

#[tokio::test]
async fn a_reader_waits_once_a_segment_at_most() {
    let machine = Machine::new(90);
    let (manager, _) = machine.open();
    let log = filled(&manager).await;
    assert!(
        log.try_read_resident(Offset(0), END, 700, true).is_none(),
        "nobody has read here yet"
    );
    let (mut next, mut reads, mut waits) = (Offset(0), 0, 0);
    while next < END {
        let (data, is_resident) = follow(&log, next, 700);
        assert_eq!(data.size_bytes, data.pieces.concat().len());
        let batches = RecordBatch::split_all(data.pieces.concat().into()).expect("whole");
        assert_eq!(batches.first().map(|first| first.base_offset()), Some(next));
        assert_eq!(
            batches.last().map(|last| last.last_offset().0 + 1),
            Some(data.next_offset.0)
        );
        (next, reads, waits) = (data.next_offset, reads + 1, waits + u32::from(!is_resident));
    }
    let segments = 200_u32.div_ceil(10);
    assert!(reads > 90 && waits <= segments, "{waits} of {reads}");
    manager.shutdown().await;
}

#[tokio::test]
async fn readers_of_their_own_places_do_not_disturb_each_other() {
    let machine = Machine::new(91);
    let (manager, _) = machine.open();
    let log = filled(&manager).await;
    let mut places = [Offset(0), Offset(50), Offset(100)];
    let mut waits = 0;
    for _ in 0..30 {
        for place in &mut places {
            let (data, is_resident) = follow(&log, *place, 400);
            assert_eq!(data.next_offset.0, place.0 + 1);
            *place = data.next_offset;
            waits += u32::from(!is_resident);
        }
    }
    assert!(waits <= 3 * 4, "{waits} of 90");
    manager.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_read_at_once_is_left_to_who_may_wait() {
    let machine = Machine::new(92);
    let (manager, _) = machine.open();
    let log = filled(&manager).await;
    let resident = |from: i64, upto: i64, bytes| {
        let read = log.try_read_resident(Offset(from), Offset(upto), bytes, true);
        read.map(|read| read.map(|data| data.next_offset.0))
    };
    follow(&log, Offset(0), 1);
    assert!(resident(1, 200, 1).is_none(), "larger than asked for");
    assert!(resident(1, 1, 700).is_some(), "nothing to read");
    assert!(matches!(resident(1, 3, 1 << 20), Some(Ok(3))), "upto");
    assert!(resident(5, 200, 700).is_none(), "another place");
    assert!(matches!(resident(3, 200, 700), Some(Ok(5))), "goes on");
    log.advance_log_start(Offset(6));
    assert!(matches!(
        resident(5, 200, 700),
        Some(Err(LogError::OffsetOutOfRange { .. }))
    ));
    manager.shutdown().await;
}

#[tokio::test]
async fn a_file_that_is_cut_under_a_reader_is_reported_not_served() {
    let machine = Machine::new(93);
    let (manager, _) = machine.open();
    let log = filled(&manager).await;
    let (data, _) = follow(&log, Offset(0), 700);
    let folder = PathBuf::from("/data/topics/orders-0.1");
    let path = folder.join("00000000000000000000.log");
    let cut = data.size_bytes as u64 + 400;
    let file = machine.fs.open(&path, crate::fs::OpenMode::Write);
    file.expect("is there").set_len(cut).expect("is cut");
    let next = data.next_offset;
    assert!(log.try_read_resident(next, END, 700, true).is_none());
    let error = log.read_blocking(next, END, 700, true).err();
    let text = error.expect("is noticed").to_string();
    let expected = format!("00000000000000000000.log is damaged at byte {cut}");
    assert!(text.contains(&expected), "{text}");
    drop(manager);
}

#[tokio::test]
async fn a_damaged_header_is_not_served() {
    let machine = Machine::new(94);
    let (manager, _) = machine.open();
    let log = filled(&manager).await;
    let (data, _) = follow(&log, Offset(0), 700);
    let path = PathBuf::from("/data/topics/orders-0.1/00000000000000000000.log");
    // The magic byte of the next batch.
    let flipped = machine.fs.flip_bit(&path, data.size_bytes as u64 + 16, 7);
    flipped.expect("is there");
    assert!(
        log.try_read_resident(data.next_offset, END, 700, true)
            .is_none()
    );
    assert!(log.read_blocking(data.next_offset, END, 700, true).is_err());
    drop(manager);
}
