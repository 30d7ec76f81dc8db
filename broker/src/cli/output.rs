//! Standard output, buffered. An error of it is a [`Failure`], never a panic: `tidelog consume | head` is fine.

use std::io::{self, BufWriter, Stdout, Write};

use serde_json::Value;
use tidelog_client::BrokerId;

use super::failure::Failure;

/// What a command prints.
pub(super) struct Output {
    out: BufWriter<Stdout>,
}

impl Output {
    pub(super) fn new() -> Self {
        Output {
            out: BufWriter::new(io::stdout()),
        }
    }

    /// Prints text as it is and passes it on at once.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.out.write_all(text.as_bytes())?;
        self.flush()
    }

    /// Prints one JSON document, indented, and passes it on at once.
    pub(super) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.text(&format!("{value:#}\n"))
    }

    /// Adds bytes, to be passed on with the next flush.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.out.write_all(bytes)?)
    }

    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }
}

/// Brokers as a JSON document lists them.
pub(super) fn ids(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|broker| broker.0).collect()
}
