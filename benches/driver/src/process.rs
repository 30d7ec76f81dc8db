//! What a process has used so far, read from /proc: processor time and memory.
//!
//! Processor time counts in clock ticks (10 ms), all threads together, those that ended included.

use std::fs;
use std::io;

use crate::error::DriverError;

/// What a process had used at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessSample {
    /// Processor seconds in the program itself.
    pub user_s: f64,
    /// Processor seconds in the system on its behalf.
    pub system_s: f64,
    /// Memory that it holds now, page cache not included.
    pub memory_bytes: u64,
    /// The most that it ever held.
    pub memory_peak_bytes: u64,
}

/// What a process used between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUse {
    /// Before.
    pub before: ProcessSample,
    /// After.
    pub after: ProcessSample,
}

impl ProcessUse {
    /// Processor seconds in the program itself.
    pub fn user_s(&self) -> f64 {
        self.after.user_s - self.before.user_s
    }

    /// Processor seconds in the system on its behalf.
    pub fn system_s(&self) -> f64 {
        self.after.system_s - self.before.system_s
    }
}

impl ProcessSample {
    /// What this process has used.
    pub fn own() -> Result<Self, DriverError> {
        Self::of(std::process::id())
    }

    /// What a process has used.
    pub fn of(pid: u32) -> Result<Self, DriverError> {
        let failed = |source| DriverError::Process { pid, source };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(failed)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(failed)?;
        Self::parse(&stat, &status, rustix::param::clock_ticks_per_second())
            .ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))
    }

    fn parse(stat: &str, status: &str, ticks_per_s: u64) -> Option<Self> {
        // The name in the second field may hold spaces and brackets.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
        let mut seconds = || Some(fields.next()?.parse::<f64>().ok()? / ticks_per_s as f64);
        let (user_s, system_s) = (seconds()?, seconds()?);
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
            Some(kib * 1024)
        };
        Some(ProcessSample {
            user_s,
            system_s,
            memory_bytes: bytes("VmRSS:")?,
            memory_peak_bytes: bytes("VmHWM:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_moves_no_field() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 75 0 0 20";
        let status = "Name:\ta\nVmHWM:\t  30 kB\nVmRSS:\t  20 kB\n";
        let sample = ProcessSample::parse(stat, status, 100).unwrap();
        assert_eq!((sample.user_s, sample.system_s), (2.5, 0.75));
        assert_eq!(
            (sample.memory_bytes, sample.memory_peak_bytes),
            (20480, 30720)
        );
        assert_eq!(ProcessSample::parse("7 (a) S 1", status, 100), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let sample = ProcessSample::own().unwrap();
        assert!(sample.memory_bytes > 0 && sample.memory_peak_bytes >= sample.memory_bytes);
    }
}
