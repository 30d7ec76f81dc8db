//! Where each leader epoch begins in a log.
//!
//! Pure. Invariant: epochs and entry indexes rise strictly, offsets never fall. The last epoch stays known when all of
//! its entries are purged, because followers and consumers ask for it.

use bytes::{Buf, BufMut, BytesMut};
use tidelog_protocol::types::{LeaderEpoch, Offset};

use super::{EntryId, EntryIndex};

/// First entry of each epoch and the next offset before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochTable {
    starts: Vec<(EntryId, Offset)>,
}

impl EpochTable {
    /// Notes an entry; the first one of its epoch is remembered.
    pub fn record(&mut self, entry: EntryId, next_offset: Offset) {
        if self
            .starts
            .last()
            .is_none_or(|(last, _)| last.epoch < entry.epoch)
        {
            self.starts.push((entry, next_offset));
        }
    }

    /// Epoch of the last entry noted.
    pub fn last_epoch(&self) -> Option<LeaderEpoch> {
        self.starts.last().map(|(first, _)| first.epoch)
    }

    /// Epoch of an entry that is held.
    pub fn epoch_of(&self, index: EntryIndex) -> Option<LeaderEpoch> {
        let after = self
            .starts
            .partition_point(|(first, _)| first.index <= index);
        self.starts
            .get(after.checked_sub(1)?)
            .map(|(first, _)| first.epoch)
    }

    /// Forgets what comes after an entry.
    pub fn truncate_after(&mut self, index: EntryIndex) {
        let keep = self
            .starts
            .partition_point(|(first, _)| first.index <= index);
        self.starts.truncate(keep);
    }

    /// Forgets epochs that end before the first entry held; the one it lies in begins with it from now on.
    pub fn purge_to(&mut self, purged: EntryIndex, next_offset: Offset) {
        let first_held = EntryIndex(purged.0.saturating_add(1));
        let beginning = self
            .starts
            .partition_point(|(first, _)| first.index <= first_held);
        self.starts.drain(..beginning.saturating_sub(1));
        if let Some((first, offset)) = self.starts.first_mut()
            && first.index < first_held
        {
            first.index = first_held;
            *offset = next_offset.max(*offset);
        }
    }

    /// First entry of each epoch with the next offset before it, in order. The last may have no entry any more.
    pub fn starts(&self) -> &[(EntryId, Offset)] {
        &self.starts
    }

    /// Kafka's OffsetForLeaderEpoch: the largest epoch not above the asked one with the offset at which it ends.
    pub fn end_offset_for(
        &self,
        epoch: LeaderEpoch,
        log_end: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        let (last, _) = self.starts.last()?;
        if last.epoch == epoch {
            return Some((epoch, log_end));
        }
        let higher = self
            .starts
            .partition_point(|(first, _)| first.epoch <= epoch);
        let (_, end) = self.starts.get(higher)?;
        // As in Kafka, an epoch that wrote no record is none, and one below all is answered with itself.
        let floor = self.starts[..higher]
            .iter()
            .rev()
            .find(|(_, start)| start < end);
        Some((floor.map_or(epoch, |(first, _)| first.epoch), *end))
    }

    /// Text of Kafka's `leader-epoch-checkpoint`: epochs that have records, and the last one.
    pub fn checkpoint_text(&self) -> String {
        let next = self
            .starts
            .iter()
            .skip(1)
            .map(|(_, offset)| Some(*offset))
            .chain([None]);
        let lines: Vec<String> = (self.starts.iter().zip(next))
            .filter(|((_, start), next)| Some(*start) != *next)
            .map(|((first, start), _)| format!("{} {}\n", first.epoch, start))
            .collect();
        format!("0\n{}\n{}", lines.len(), lines.concat())
    }

    /// Appends the table to a checkpoint.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u32(u32::try_from(self.starts.len()).unwrap_or(u32::MAX));
        for (first, offset) in &self.starts {
            out.put_i32(first.epoch.0);
            out.put_u64(first.index.0);
            out.put_i64(offset.0);
        }
    }

    /// Reads the table from a checkpoint.
    pub(crate) fn decode(input: &mut &[u8]) -> Option<EpochTable> {
        let mut table = EpochTable::default();
        for _ in 0..input.try_get_u32().ok()? {
            let epoch = LeaderEpoch(input.try_get_i32().ok()?);
            let index = EntryIndex(input.try_get_u64().ok()?);
            let offset = Offset(input.try_get_i64().ok()?);
            table.starts.push((EntryId { epoch, index }, offset));
        }
        Some(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> EpochTable {
        let mut table = EpochTable::default();
        for (epoch, index, offset) in [(1, 1, 0), (1, 2, 5), (3, 5, 20), (4, 9, 20), (6, 12, 31)] {
            let id = EntryId {
                epoch: LeaderEpoch(epoch),
                index: EntryIndex(index),
            };
            table.record(id, Offset(offset));
        }
        table
    }

    fn end(table: &EpochTable, epoch: i32) -> Option<(i32, i64)> {
        let (epoch, offset) = table.end_offset_for(LeaderEpoch(epoch), Offset(40))?;
        Some((epoch.0, offset.0))
    }

    #[test]
    fn end_offsets_follow_kafka() {
        let table = table();
        assert_eq!(
            end(&table, 0),
            Some((0, 0)),
            "below all: the asked one ends where the first begins"
        );
        assert_eq!(end(&table, 1), Some((1, 20)));
        assert_eq!(end(&table, 2), Some((1, 20)));
        assert_eq!(end(&table, 3), Some((1, 20)), "wrote no record");
        assert_eq!(end(&table, 5), Some((4, 31)));
        assert_eq!(end(&table, 6), Some((6, 40)));
        assert_eq!(end(&table, 7), None, "not known yet");
        assert_eq!(end(&EpochTable::default(), 0), None);
    }

    #[test]
    fn truncation_forgets_later_epochs() {
        let mut table = table();
        table.truncate_after(EntryIndex(8));
        assert_eq!(table.last_epoch(), Some(LeaderEpoch(3)));
        assert_eq!(table.epoch_of(EntryIndex(4)), Some(LeaderEpoch(1)));
        table.truncate_after(EntryIndex(0));
        assert_eq!(table, EpochTable::default());
    }

    #[test]
    fn purge_keeps_the_epoch_of_the_first_entry() {
        let mut table = table();
        table.purge_to(EntryIndex(6), Offset(20));
        assert_eq!(table.starts()[0].0.index, EntryIndex(7));
        assert_eq!(
            end(&table, 3),
            Some((3, 20)),
            "all that is left of it is empty"
        );
        table.purge_to(EntryIndex(40), Offset(40));
        assert_eq!(end(&table, 6), Some((6, 40)), "the last epoch stays known");
    }

    #[test]
    fn text_is_kafkas() {
        assert_eq!(table().checkpoint_text(), "0\n3\n1 0\n4 20\n6 31\n");
        assert_eq!(EpochTable::default().checkpoint_text(), "0\n0\n");
    }

    #[test]
    fn codec_round_trip() {
        let mut bytes = BytesMut::new();
        table().encode(&mut bytes);
        let mut input = &bytes[..];
        assert_eq!(EpochTable::decode(&mut input), Some(table()));
        assert!(input.is_empty());
        assert_eq!(EpochTable::decode(&mut &bytes[..bytes.len() - 1]), None);
    }
}
