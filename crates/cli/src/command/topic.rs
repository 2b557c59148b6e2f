//! `corelane topic …`.

mod settings;
