//! What happened, as a number that two runs of one seed must share, and as text for the one who looks at a failure.

use std::collections::VecDeque;
use std::fmt;

use super::raft::Ms;

/// Events that a failure shows, beside all that follows from events.
const LINES_MAX: usize = 300;

#[derive(Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    /// None: nobody looks.
    lines: Option<VecDeque<String>>,
    notes: Vec<String>,
}

impl Trace {
    pub fn new(with_lines: bool) -> Trace {
        Trace {
            hash: 0xcbf2_9ce4_8422_2325,
            events: 0,
            lines: with_lines.then(VecDeque::new),
            notes: Vec::new(),
        }
    }

    /// An event is carried out; these numbers tell it from others.
    pub fn event(&mut self, now: Ms, numbers: [u64; 4], text: impl FnOnce() -> String) {
        self.events += 1;
        self.mix(now);
        numbers.into_iter().for_each(|number| self.mix(number));
        if self.lines.is_some() {
            let text = text();
            self.say(now, format_args!("{text}"));
        }
    }

    /// Something that follows from events.
    pub fn note(&mut self, now: Ms, text: fmt::Arguments<'_>) {
        if self.lines.is_some() {
            self.notes.push(format!("{now:>7} {text}"));
            self.say(now, format_args!("    {text}"));
        }
    }

    fn say(&mut self, now: Ms, text: fmt::Arguments<'_>) {
        if let Some(lines) = &mut self.lines {
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(format!("{now:>7} {text}"));
        }
    }

    fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(23);
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    pub fn lines(&self) -> String {
        let notes = self.notes.iter().map(|line| format!("{line}\n"));
        let lines = self.lines.iter().flatten().map(|line| format!("{line}\n"));
        let between = std::iter::once("\nthe last events:\n".to_owned());
        notes.chain(between).chain(lines).collect()
    }
}
