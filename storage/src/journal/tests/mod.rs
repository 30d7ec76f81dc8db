//! The journal as its callers see it.

mod basics;
mod damage;

mod harness;
mod hostile;
mod power;
