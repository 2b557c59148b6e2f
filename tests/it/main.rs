//! Real processes: the built `corelane` as a stranger would use it.
//!
//! Few tests, each with a broker of its own on ports of its own. Nothing sleeps: a test waits for a condition until
//! [`DEADLINE`], which is long enough for a machine that builds something else meanwhile.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod admin;
mod bench;
mod broker;
mod closed_pipes;
mod command_line;
mod compaction;
mod delays;
mod demo;
mod examples;
mod full_disk;
mod group_promises;
mod groups;
mod interrupted;
mod message_ids;
mod missed;
mod programs;
mod queue_changes;
mod queues;
mod redrive;
mod refusals;
mod restart;
mod round_trip;
mod sdk;
mod shutdown;
mod standbys;
mod static_members;
mod strangers;
mod transactions;

use std::time::Duration;

/// The longest that a test waits for one condition.
const DEADLINE: Duration = Duration::from_secs(60);
