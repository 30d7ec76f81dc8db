//! Round trips, foreign framings, bounds and hostile streams.

use proptest::prelude::*;

use super::*;

/// All of them.
pub(crate) const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

fn inflate(codec: Compression, input: &[u8], limit: usize) -> Result<Vec<u8>, DecompressError> {
    let mut out = Vec::new();
    codec.decompress(input, limit, &mut out).map(|()| out)
}

fn deflate(codec: Compression, input: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    codec.compress(input, &mut out).unwrap();
    out
}

#[test]
fn ids_and_names() {
    for codec in CODECS {
        assert_eq!(Compression::from_id(codec as i16), Some(codec));
        assert_eq!(Compression::from_name(codec.name()), Some(codec));
    }
    assert_eq!(
        Compression::from_name("uncompressed"),
        Some(Compression::None)
    );
    assert_eq!(Compression::from_name("producer"), None);
    assert_eq!(Compression::from_id(5), None);
}

#[test]
fn the_bound_is_exact() {
    let data = vec![3u8; 100_000];
    for codec in CODECS {
        let packed = deflate(codec, &data);
        assert_eq!(
            inflate(codec, &packed, data.len()).as_ref(),
            Ok(&data),
            "{codec:?}"
        );
        let limit = data.len() - 1;
        assert_eq!(
            inflate(codec, &packed, limit),
            Err(DecompressError::TooLarge { limit }),
            "{codec:?}"
        );
    }
}

#[test]
fn output_is_appended() {
    for codec in CODECS {
        let mut out = b"before".to_vec();
        codec
            .decompress(&deflate(codec, b"after"), 5, &mut out)
            .unwrap();
        assert_eq!(out, b"beforeafter");
    }
}

/// What librdkafka and Go clients send.
#[test]
fn raw_snappy_is_taken() {
    let data = b"raw raw raw raw raw raw raw raw".repeat(10);
    let packed = snap::raw::Encoder::new().compress_vec(&data).unwrap();
    assert_eq!(inflate(Compression::Snappy, &packed, 1000), Ok(data));
}

/// What Java clients send, and what they take: the header, then blocks of at most 32 KiB.
#[test]
fn snappy_is_written_in_xerial_frames() {
    let packed = deflate(Compression::Snappy, &[9u8; 70_000]);
    assert_eq!(
        &packed[..16],
        b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"
    );
    let first = u32::from_be_bytes(packed[16..20].try_into().unwrap()) as usize;
    assert_eq!(
        snap::raw::decompress_len(&packed[20..20 + first]).unwrap(),
        32 * 1024
    );
}

/// Java's reader wants magic, version 1, independent blocks and no content size.
#[test]
fn lz4_is_written_in_frames_of_independent_blocks() {
    let packed = deflate(Compression::Lz4, &[9u8; 200_000]);
    assert_eq!(&packed[..4], b"\x04\x22\x4d\x18");
    let flags = packed[4];
    assert_eq!(flags >> 6, 1, "version");
    assert_eq!(flags & 0x20, 0x20, "blocks are independent");
    assert_eq!(flags & 0x08, 0, "no content size");
}

#[test]
fn concatenated_gzip_members_are_one_stream() {
    let packed = [
        deflate(Compression::Gzip, b"ab"),
        deflate(Compression::Gzip, b"cd"),
    ]
    .concat();
    assert_eq!(
        inflate(Compression::Gzip, &packed, 100),
        Ok(b"abcd".to_vec())
    );
}

/// Five bytes that claim 4 GiB must not allocate them.
#[test]
fn a_lying_snappy_length_is_refused() {
    let lie = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let error = inflate(Compression::Snappy, &lie, usize::MAX).unwrap_err();
    assert!(matches!(
        error,
        DecompressError::Malformed {
            codec: "snappy",
            ..
        }
    ));
}

#[test]
fn cut_streams_are_refused() {
    let data: Vec<u8> = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
    for codec in CODECS.into_iter().skip(1) {
        let packed = deflate(codec, &data);
        for cut in [1, 5, packed.len() / 2, packed.len() - 1] {
            assert!(
                inflate(codec, &packed[..cut], 1 << 20).is_err(),
                "{codec:?} cut at {cut}"
            );
        }
    }
}

proptest! {
    #[test]
    fn round_trip(data in proptest::collection::vec(any::<u8>(), 0..5000), repeat in 1usize..30) {
        let data = data.repeat(repeat);
        for codec in CODECS {
            let back = inflate(codec, &deflate(codec, &data), data.len());
            prop_assert_eq!(back.as_ref(), Ok(&data));
        }
    }

    #[test]
    fn hostile_streams_never_panic_and_stay_bounded(
        codec in 0i16..5,
        data in proptest::collection::vec(any::<u8>(), 0..300),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        valid: bool,
    ) {
        let codec = Compression::from_id(codec).unwrap();
        let mut packed = if valid { deflate(codec, &data) } else { data };
        for (at, bits) in flips {
            if !packed.is_empty() {
                let at = at.index(packed.len());
                packed[at] ^= bits;
            }
        }
        let mut out = Vec::new();
        let _ = codec.decompress(&packed, 1000, &mut out);
        prop_assert!(out.len() <= 1001);
    }
}
