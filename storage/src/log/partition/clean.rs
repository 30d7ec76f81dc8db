//! Compaction of the settled segments of a log.
//!
//! A pass reads what it has not seen and notes the newest offset of each key, then rewrites all settled segments up
//! to there, some neighbours at a time, into new files that take their places (see `settle`). Memory: the map, one
//! read and one write buffer. Appends, reads and checkpoints go on meanwhile; when segments go under its hands the
//! pass ends. Invariant: a file of records is replaced only by one that was written whole and synced.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use metrics::{counter, histogram};
use tidelog_protocol::batch::Scratch;
use tidelog_protocol::types::{Offset, TimestampMs};

use super::super::LogError;
use super::super::cleaner::{CleanStats, CleanerPace, Fate, Filter, OffsetMap};
use super::super::files::SegmentName;
use super::super::settled::SettledSegment;
use super::PartitionLog;
use super::rewrite::{Batches, Rewrite};
use super::settle::Replacement;

/// A pass on its way.
struct Pass {
    filter: Filter,
    pace: Arc<CleanerPace>,
    scratch: Scratch,
    stats: CleanStats,
    /// What is left to do, in order.
    groups: std::vec::IntoIter<Vec<SettledSegment>>,
}

/// What became of some neighbours.
enum Cleaned {
    /// Nothing has to change.
    AsBefore,
    /// These files take their places.
    Replaced(Replacement),
    /// They are not there any more.
    Interrupted,
}

impl PartitionLog {
    /// Compacts what is settled below `upto`. Damage that is met stops the pass, not the log: what is stored stays as
    /// it is, and its readers check what they get.
    pub async fn clean(
        &self,
        pace: Arc<CleanerPace>,
        upto: Offset,
        now: TimestampMs,
    ) -> Result<CleanStats, LogError> {
        let began = Instant::now();
        let stats = self.run_pass(pace, upto, now).await?;
        counter!("tidelog_compaction_passes_total").increment(1);
        counter!("tidelog_compaction_bytes_read_total").increment(stats.bytes_before);
        counter!("tidelog_compaction_bytes_removed_total")
            .increment(stats.bytes_before.saturating_sub(stats.bytes_after));
        counter!("tidelog_compaction_records_removed_total")
            .increment(stats.records_read.saturating_sub(stats.records_kept));
        histogram!("tidelog_compaction_pass_seconds").record(began.elapsed().as_secs_f64());
        Ok(stats)
    }

    async fn run_pass(
        &self,
        pace: Arc<CleanerPace>,
        upto: Offset,
        now: TimestampMs,
    ) -> Result<CleanStats, LogError> {
        let begun = self
            .blocking(move |log| log.begin_pass(pace, upto, now))
            .await?;
        let Some(mut pass) = begun else {
            return Ok(CleanStats::default());
        };
        loop {
            let (mut after, cleaned) = self
                .blocking(move |log| {
                    let cleaned = match pass.groups.next() {
                        Some(group) => Some(log.clean_group(&mut pass, &group)?),
                        None => None,
                    };
                    Ok((pass, cleaned))
                })
                .await?;
            let change = match cleaned {
                Some(Cleaned::AsBefore) => {
                    pass = after;
                    continue;
                }
                Some(Cleaned::Interrupted) => return Ok(after.stats),
                Some(Cleaned::Replaced(change)) => change,
                None => {
                    after.scratch.trim();
                    let seen = Replacement {
                        sources: Vec::new(),
                        made: None,
                        first_dirty: Some(after.filter.map.end()),
                    };
                    self.replace(seen).await?;
                    return Ok(after.stats);
                }
            };
            if !self.replace(change).await? {
                return Ok(after.stats);
            }
            pass = after;
        }
    }

    async fn replace(&self, change: Replacement) -> Result<bool, LogError> {
        let turn = self.take_turn().await?;
        self.change(turn, move |log| {
            let replaced = log.replace_settled(&change)?;
            if !replaced && let Some(made) = change.made {
                log.files.remove_segment(made.name, None)?;
            }
            Ok(replaced)
        })
        .await
    }

    /// Builds the map; `None` if there is nothing to look at.
    fn begin_pass(
        &self,
        pace: Arc<CleanerPace>,
        upto: Offset,
        now: TimestampMs,
    ) -> Result<Option<Pass>, LogError> {
        self.check_running()?;
        self.load_if_needed()?;
        let (settled, end, producers) = {
            let state = self.state.lock();
            let end = state.segments.settled_end().min(upto);
            (state.segments.settled.clone(), end, state.producers.clone())
        };
        let from = settled.first_dirty;
        if from >= end {
            return Ok(None);
        }
        let records = u64::try_from(end.0.saturating_sub(from.0)).unwrap_or(0);
        let mut map = OffsetMap::new(records, pace.map_bytes_max());
        map.advance_end(from);
        let mut scratch = Scratch::new();
        let segments = settled
            .with_ends(end)
            .take_while(|(segment, _)| segment.name.base < end);
        let segments: Vec<_> = segments.map(|(segment, end)| (*segment, end)).collect();
        for (segment, segment_end) in &segments {
            if *segment_end > from
                && !self.note_newest(segment, from, &pace, &mut map, &mut scratch)?
            {
                return Ok(None);
            }
            if map.is_full() {
                break;
            }
        }
        if !map.is_full() {
            map.advance_end(end);
        }
        let config = self.config();
        let last_of_producers: HashMap<_, _> = producers.last_offsets().collect();
        let judged = segments.into_iter().map(|(segment, _)| segment);
        let judged = judged.take_while(|segment| segment.name.base < map.end());
        let groups = groups(judged, u64::from(config.segment_bytes));
        Ok(Some(Pass {
            filter: Filter {
                map,
                last_of_producers,
                now,
                delete_retention_ms: config.cleaning.delete_retention_ms,
            },
            pace,
            scratch,
            stats: CleanStats::default(),
            groups: groups.into_iter(),
        }))
    }

    /// Takes the records of a segment from an offset on into the map, until it is full. False if the segment is gone.
    fn note_newest(
        &self,
        segment: &SettledSegment,
        from: Offset,
        pace: &CleanerPace,
        map: &mut OffsetMap,
        scratch: &mut Scratch,
    ) -> Result<bool, LogError> {
        let Some(mut batches) = Batches::of(self, segment)? else {
            return Ok(false);
        };
        while let Some((position, batch)) = batches.next(self, pace)? {
            if batch.last_offset() < from {
                continue;
            }
            if !batch.is_control() {
                let records = scratch.records(&batch);
                let records =
                    records.map_err(|error| batches.damage(self, position, &error.to_string()))?;
                for record in records {
                    let record = record
                        .map_err(|error| batches.damage(self, position, &error.to_string()))?;
                    let offset = batch.base_offset().0 + i64::from(record.offset_delta);
                    let key = record.key.filter(|_| offset >= from.0);
                    if key.is_some_and(|key| !map.put(key, Offset(offset))) {
                        return Ok(true);
                    }
                }
            }
            map.advance_end(batch.next_offset());
        }
        Ok(true)
    }

    /// Rewrites neighbours into one segment.
    fn clean_group(&self, pass: &mut Pass, group: &[SettledSegment]) -> Result<Cleaned, LogError> {
        self.check_running()?;
        let Some(first) = group.first() else {
            return Ok(Cleaned::AsBefore);
        };
        let revision = {
            let settled = &mut self.state.lock().segments.settled;
            settled.revision = settled.revision.saturating_add(1);
            settled.revision
        };
        let name = SegmentName {
            revision,
            ..first.name
        };
        let mut out = Rewrite::begin(self, name)?;
        let result = self.rewrite(pass, group, &mut out);
        let keep = match &result {
            Ok(changed) => *changed == Some(true) || (group.len() > 1 && changed.is_some()),
            Err(_) => false,
        };
        let made = match (keep, result) {
            // After a sync that failed nothing in the folder is known any more.
            (true, _) => out
                .finish(self, &pass.pace)
                .map_err(|error| self.stop_unless_no_room(error)),
            (false, Ok(_)) => Ok(None),
            (false, Err(error)) => Err(error),
        };
        if !matches!(made, Ok(Some(_))) {
            // Also when nothing is left of them.
            self.files.remove_segment(name, None)?;
        }
        let made = made?;
        for segment in group {
            pass.stats.bytes_before += segment.extent.log_bytes;
        }
        let all_there = {
            let settled = &self.state.lock().segments.settled;
            (group.iter()).all(|segment| settled.extent(segment.name).is_some())
        };
        if !all_there {
            if made.is_some() {
                self.files.remove_segment(name, None)?;
            }
            return Ok(Cleaned::Interrupted);
        }
        if !keep {
            pass.stats.bytes_after += group.iter().map(|it| it.extent.log_bytes).sum::<u64>();
            return Ok(Cleaned::AsBefore);
        }
        pass.stats.bytes_after += made.map_or(0, |made| made.extent.log_bytes);
        Ok(Cleaned::Replaced(Replacement {
            sources: group.iter().map(|segment| segment.name).collect(),
            made,
            first_dirty: None,
        }))
    }

    /// Writes what stays of a group; says whether that is less than there was, or `None` if segments are gone.
    fn rewrite(
        &self,
        pass: &mut Pass,
        group: &[SettledSegment],
        out: &mut Rewrite,
    ) -> Result<Option<bool>, LogError> {
        let mut changed = false;
        for segment in group {
            let Some(mut batches) = Batches::of(self, segment)? else {
                return Ok(None);
            };
            while let Some((position, batch)) = batches.next(self, &pass.pace)? {
                let fate = pass
                    .filter
                    .judge(&batch, &mut pass.scratch, &mut pass.stats)
                    .map_err(|reason| batches.damage(self, position, &reason))?;
                match fate {
                    Fate::Kept => out.put(self, &batch, &pass.pace)?,
                    Fate::Changed(batch) => {
                        changed = true;
                        out.put(self, &batch, &pass.pace)?;
                    }
                    Fate::Gone => changed = true,
                }
            }
        }
        Ok(Some(changed))
    }
}

/// Neighbours that together fit one segment.
fn groups(
    segments: impl Iterator<Item = SettledSegment>,
    bytes_max: u64,
) -> Vec<Vec<SettledSegment>> {
    let mut groups: Vec<Vec<SettledSegment>> = Vec::new();
    let mut bytes = 0;
    for segment in segments {
        let size = segment.extent.log_bytes;
        let fits = groups
            .last()
            .and_then(|group| group.first())
            .is_some_and(|first| {
                // Of a segment only its beginning is known: its own offsets span less than half the range, as it was
                // appended, or as much as was checked here.
                let span = segment.name.base.0.saturating_sub(first.name.base.0);
                bytes + size <= bytes_max && span < i64::from(i32::MAX / 2)
            });
        match groups.last_mut() {
            Some(group) if fits => {
                group.push(segment);
                bytes += size;
            }
            _ => {
                groups.push(vec![segment]);
                bytes = size;
            }
        }
    }
    groups
}
