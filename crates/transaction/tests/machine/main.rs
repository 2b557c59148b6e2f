//! The coordinator among clients and participants that crash.

mod facts;
mod history;
mod world;
