//! The machine from outside, driven by a world that knows what must hold.

mod admin;
mod beginnings;
mod dispatch;
mod going;
mod history;
mod leases;
mod reading;
mod world;
