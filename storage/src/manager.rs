//! All logs of a data directory.
