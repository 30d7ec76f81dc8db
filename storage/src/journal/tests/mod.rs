//! The journal as its callers see it.

mod basics;
mod damage;

pub(crate) mod harness;
mod hostile;
pub(crate) mod left_out;
mod power;
