//! The codecs of Kafka's record batches, with a bound on what they may inflate to.
//!
//! Compressing writes what the Java client writes (snappy framed by xerial, LZ4 frames of independent blocks);
//! decompressing takes what any client writes. Output goes into the caller's buffer and stops at its bound.

#[cfg(test)]
pub(crate) mod tests;

use std::io::{self, Read, Write};

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

/// Why bytes do not decompress.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// More output than the bound.
    #[error("inflates to more than {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: usize,
    },
    /// Not a stream of the codec.
    #[error("malformed {codec}: {reason}")]
    Malformed {
        /// Name of the codec.
        codec: &'static str,
        /// What the decoder says.
        reason: String,
    },
}

/// Magic of xerial's framing, its version and the oldest compatible version.
const XERIAL_HEADER: [u8; 16] = [
    0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1,
];
/// Uncompressed bytes of one xerial block, as the Java client writes them.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// A snappy copy of 3 bytes yields at most 64: no stream inflates more than this, so a length field that
/// claims more is a lie and nothing is allocated for it.
const SNAPPY_RATIO_MAX: usize = 22;

impl Compression {
    /// The codec of an attribute value.
    pub fn from_id(id: i16) -> Option<Compression> {
        Some(match id {
            0 => Compression::None,
            1 => Compression::Gzip,
            2 => Compression::Snappy,
            3 => Compression::Lz4,
            4 => Compression::Zstd,
            _ => return None,
        })
    }

    /// Kafka's name, as in `compression.type` (where "uncompressed" is the name of none).
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    /// The codec of a name; "none" and "uncompressed" both mean none.
    pub fn from_name(name: &str) -> Option<Compression> {
        Some(match name {
            "none" | "uncompressed" => Compression::None,
            "gzip" => Compression::Gzip,
            "snappy" => Compression::Snappy,
            "lz4" => Compression::Lz4,
            "zstd" => Compression::Zstd,
            _ => return None,
        })
    }

    /// Appends the compressed form of `input` to `out`.
    pub fn compress(self, input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Compression::None => out.extend_from_slice(input),
            Compression::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(out, flate2::Compression::default());
                encoder.write_all(input)?;
                encoder.finish()?;
            }
            Compression::Snappy => compress_xerial(input, out)?,
            Compression::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(out);
                encoder.write_all(input)?;
                encoder.finish().map_err(io::Error::other)?;
            }
            Compression::Zstd => {
                zstd::stream::copy_encode(input, out, zstd::DEFAULT_COMPRESSION_LEVEL)?;
            }
        }
        Ok(())
    }

    /// Appends at most `limit` bytes, the decompressed form of `input`, to `out`.
    pub fn decompress(
        self,
        input: &[u8],
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecompressError> {
        match self {
            Compression::None if input.len() > limit => Err(DecompressError::TooLarge { limit }),
            Compression::None => {
                out.extend_from_slice(input);
                Ok(())
            }
            Compression::Gzip => {
                self.drain(flate2::bufread::MultiGzDecoder::new(input), limit, out)
            }
            Compression::Snappy => self.decompress_snappy(input, limit, out),
            Compression::Lz4 => self.decompress_lz4(input, limit, out),
            Compression::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(input)
                    .map_err(|error| self.malformed(&error))?;
                self.drain(decoder, limit, out)
            }
        }
    }

    fn drain(
        self,
        decoder: impl Read,
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecompressError> {
        let before = out.len();
        // One byte more than allowed tells "exactly the bound" from "more".
        let bound = (limit as u64).saturating_add(1);
        decoder
            .take(bound)
            .read_to_end(out)
            .map_err(|error| self.malformed(&error))?;
        if out.len() - before > limit {
            return Err(DecompressError::TooLarge { limit });
        }
        Ok(())
    }

    /// The decoder takes an input that ends between two blocks for a whole one; Java clients fail on it. Padding
    /// behind the input tells: only a frame without its end mark reads into it.
    fn decompress_lz4(
        self,
        input: &[u8],
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecompressError> {
        let padding = [0u8; 8];
        let mut decoder = lz4_flex::frame::FrameDecoder::new(input.chain(&padding[..]));
        self.drain(&mut decoder, limit, out)?;
        let (_, unread) = decoder.into_inner().into_inner();
        if unread.len() < padding.len() {
            Err(self.malformed(&"frame has no end"))
        } else {
            Ok(())
        }
    }

    fn decompress_snappy(
        self,
        input: &[u8],
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecompressError> {
        let limit_at = out.len().saturating_add(limit);
        // Kafka, too, looks at the magic alone; the two version numbers are not checked.
        let Some(mut blocks) = input
            .get(XERIAL_HEADER.len()..)
            .filter(|_| input.starts_with(&XERIAL_HEADER[..8]))
        else {
            return self.append_snappy_block(input, limit_at, limit, out);
        };
        while !blocks.is_empty() {
            let (len, rest) = blocks
                .split_first_chunk::<4>()
                .ok_or_else(|| self.malformed(&"cut block length"))?;
            let block = usize::try_from(i32::from_be_bytes(*len))
                .ok()
                .and_then(|len| rest.get(..len))
                .ok_or_else(|| self.malformed(&"block is longer than the input"))?;
            self.append_snappy_block(block, limit_at, limit, out)?;
            blocks = &rest[block.len()..];
        }
        Ok(())
    }

    fn append_snappy_block(
        self,
        block: &[u8],
        limit_at: usize,
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecompressError> {
        let len = snap::raw::decompress_len(block).map_err(|error| self.malformed(&error))?;
        if len > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
            return Err(self.malformed(&"claims to inflate more than snappy can"));
        }
        let at = out.len();
        if at + len > limit_at {
            return Err(DecompressError::TooLarge { limit });
        }
        out.resize(at + len, 0);
        let written = snap::raw::Decoder::new()
            .decompress(block, &mut out[at..])
            .map_err(|error| self.malformed(&error))?;
        out.truncate(at + written);
        Ok(())
    }

    fn malformed(self, reason: &dyn std::fmt::Display) -> DecompressError {
        DecompressError::Malformed {
            codec: self.name(),
            reason: reason.to_string(),
        }
    }
}

fn compress_xerial(input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(&XERIAL_HEADER);
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(XERIAL_BLOCK_BYTES) {
        let len_at = out.len();
        let from = len_at + 4;
        out.resize(from + snap::raw::max_compress_len(block.len()), 0);
        let written = encoder
            .compress(block, &mut out[from..])
            .map_err(io::Error::other)?;
        let len = u32::try_from(written).map_err(io::Error::other)?;
        out[len_at..from].copy_from_slice(&len.to_be_bytes());
        out.truncate(from + written);
    }
    Ok(())
}
