//! Round trips, golden bytes and hostile bytes of the journal's format.

use proptest::prelude::*;

use super::*;

fn header() -> FileHeader {
    FileHeader {
        generation: FileGeneration(7),
        file_bytes: 1 << 20,
        salt: 0x1122_3344_5566_7788,
        frame_floor: FrameSequence(99),
        directory_id: *b"0123456789abcdef",
    }
}

fn entry(number: u64) -> Entry {
    Entry {
        log: LogId(number),
        prev_index: EntryIndex(number * 10),
        last_index: EntryIndex(number * 10 + 3),
        sequence: FrameSequence(1000 + number),
        kind: FrameKind::Append,
        first: number.is_multiple_of(2),
        last: true,
        lost: false,
        payload_offset: 500,
        payload_bytes: 20,
        payload_crc: 0xdead_beef,
        frame_bytes: 40,
    }
}

fn head(entries: u64, previous: u64) -> GroupHead {
    GroupHead {
        generation: FileGeneration(7),
        position: 8192,
        bytes: 8192,
        sequence: GroupSequence(42),
        synced_through: GroupSequence(40),
        file_first: GroupSequence(42),
        run: Run {
            first: GroupSequence(30),
            cut: GroupSequence(20),
        },
        previous: Link {
            sequence: GroupSequence(41),
            generation: 6,
            position: 4096,
            bytes: 4096,
            entries: (0..previous).map(entry).collect(),
        },
        store_sequence: 99,
        entries: (0..entries).map(entry).collect(),
    }
}

#[test]
fn heads_are_read_back() {
    assert_eq!(FileHeader::decode(&header().encode()), Ok(header()));
    for (entries, previous) in [(0, 0), (1, 0), (0, 3), (5, 7)] {
        let head = head(entries, previous);
        let bytes = head.encode(header().salt);
        assert_eq!(
            bytes.len() as u64,
            head_bytes(entries as usize, previous as usize)
        );
        assert_eq!(GroupHead::decode(&bytes, &header(), 8192), Some(head));
    }
}

#[test]
fn a_head_counts_only_in_its_place_and_round() {
    let bytes = head(2, 1).encode(header().salt);
    assert!(GroupHead::decode(&bytes, &header(), 4096).is_none());
    assert!(
        GroupHead::decode(
            &bytes,
            &FileHeader {
                salt: 1,
                ..header()
            },
            8192
        )
        .is_none()
    );
    assert!(
        GroupHead::decode(
            &bytes,
            &FileHeader {
                generation: FileGeneration(8),
                ..header()
            },
            8192
        )
        .is_none()
    );
    assert!(
        GroupHead::decode(
            &bytes,
            &FileHeader {
                file_bytes: 8192,
                ..header()
            },
            8192
        )
        .is_none()
    );
}

#[test]
fn newer_versions_are_told_from_damage() {
    let mut bytes = header().encode();
    bytes[4] = 2;
    assert_eq!(FileHeader::decode(&bytes), Err(HeaderError::Damaged));
    bytes[8..12].fill(0);
    let crc = crc32c::crc32c(&bytes[..FILE_HEADER_BYTES]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(FileHeader::decode(&bytes), Err(HeaderError::TooNew(2)));
}

#[test]
fn bytes_on_disk_stay_as_documented() {
    let bytes = header().encode();
    assert_eq!(&bytes[..8], b"TLJF\x01\x00\x00\x00");
    assert_eq!(bytes[16..24], 7_u64.to_le_bytes());
    assert_eq!(&bytes[48..64], b"0123456789abcdef");
    assert!(bytes[64..].iter().all(|byte| *byte == 0));
    let bytes = head(1, 1).encode(header().salt);
    assert_eq!(&bytes[..8], b"TLJG\x01\x00\x00\x00");
    assert_eq!(bytes[40..48], 42_u64.to_le_bytes());
    assert_eq!(bytes[80..88], 41_u64.to_le_bytes());
    let entry = &bytes[128..184];
    assert_eq!(entry[24..32], 1000_u64.to_le_bytes());
    assert_eq!(&entry[32..36], [1, 3, 0, 0]);
    assert_eq!(entry[44..48], 0xdead_beef_u32.to_le_bytes());
}

proptest! {
    #[test]
    fn any_flipped_bit_of_a_head_is_noticed(at in 0..(HEAD_BYTES + 3 * ENTRY_BYTES), bit in 0..8_u32) {
        let mut bytes = head(2, 1).encode(header().salt);
        bytes[at] ^= 1 << bit;
        prop_assert_eq!(GroupHead::decode(&bytes, &header(), 8192), None);
    }

    #[test]
    fn hostile_bytes_are_refused_without_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(GroupHead::decode(&bytes, &header(), 8192).is_none());
        prop_assert!(FileHeader::decode(&bytes).is_err());
        if bytes.len() >= 8 {
            bytes[..8].copy_from_slice(b"TLJG\x01\x00\x00\x00");
            prop_assert!(GroupHead::decode(&bytes, &header(), 8192).is_none());
        }
    }
}
