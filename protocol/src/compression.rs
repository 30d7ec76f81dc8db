//! The codecs of Kafka's record batches, with a bound on what they may inflate to.

/// Codec in the low three attribute bits of a record batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not compressed.
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Raw or xerial-framed snappy.
    Snappy = 2,
    /// LZ4 frame format.
    Lz4 = 3,
    /// Zstandard.
    Zstd = 4,
}
