//! What concerns several formats of a log at once.

mod hostile;
