//! The group's machine with clients, a disk that crashes and time that passes.

mod admin;
mod behind;
mod history;
mod offsets;
mod reconcile;
mod staged;
mod world;
