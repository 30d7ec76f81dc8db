//! Reusable memory for decompressed records.
//!
//! Invariant: between uses it keeps at most [`limits::SCRATCH_KEPT_BYTES`].

use super::RecordBatch;
use super::record::{RecordFormatError, RecordIter};
use crate::compression::{Compression, DecompressError};
use crate::limits;

/// A buffer that batches are decompressed into, one after the other.
#[derive(Debug, Default)]
pub struct Scratch {
    buffer: Vec<u8>,
    bytes_max: Option<usize>,
    exceeded: bool,
}

/// Why a batch's records cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    /// The attributes name a codec that does not exist.
    #[error("unknown compression type {0}")]
    UnknownCodec(i16),
    /// The section does not decompress within its bound.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
    /// The section is not the declared number of records.
    #[error(transparent)]
    Format(#[from] RecordFormatError),
}

impl Scratch {
    /// An empty scratch; allocates when first used.
    pub fn new() -> Self {
        Self::default()
    }

    /// The decompressed records section: the batch's own bytes if it is not compressed, else this buffer's.
    pub fn section<'a>(&'a mut self, batch: &'a RecordBatch) -> Result<&'a [u8], RecordsError> {
        let codec = batch
            .compression()
            .ok_or(RecordsError::UnknownCodec(batch.attributes() & 7))?;
        if codec == Compression::None {
            return Ok(batch.records_bytes());
        }
        self.buffer.clear();
        self.buffer.shrink_to(limits::SCRATCH_KEPT_BYTES);
        let bytes_max = self.bytes_max.unwrap_or(limits::DECOMPRESSED_BYTES_MAX);
        if self.bytes_max.is_some() {
            // Whoever states a bound pays for it: a buffer that grows would be there twice while it is moved. What is
            // not written to is address space only. One byte more tells "exactly the bound" from "more".
            self.buffer.reserve_exact(bytes_max.saturating_add(1));
        }
        let inflated = codec.decompress(batch.records_bytes(), bytes_max, &mut self.buffer);
        self.exceeded = matches!(inflated, Err(DecompressError::TooLarge { .. }));
        inflated?;
        Ok(&self.buffer)
    }

    /// Walks the batch's records.
    pub fn records<'a>(
        &'a mut self,
        batch: &'a RecordBatch,
    ) -> Result<RecordIter<'a>, RecordsError> {
        let count = batch.record_count();
        Ok(RecordIter::new(self.section(batch)?, count))
    }

    /// Inflates no section to more than `bytes_max` from now on; `None`: than the most that any batch may have.
    pub fn set_bytes_max(&mut self, bytes_max: Option<usize>) {
        self.bytes_max = bytes_max;
        self.exceeded = false;
    }

    /// Whether the last section inflates to more than was allowed, since [`Scratch::set_bytes_max`].
    pub fn exceeded(&self) -> bool {
        self.exceeded
    }

    /// Gives back memory above what is kept between uses.
    pub fn trim(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(limits::SCRATCH_KEPT_BYTES);
    }
}
