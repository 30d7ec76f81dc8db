//! The journal as its callers see it.

mod basics;
mod damage;

mod harness;
mod hostile;
pub(crate) mod left_out;
mod power;
