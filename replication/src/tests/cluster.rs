//! Several replicas of one group in one process.
