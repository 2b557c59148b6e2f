//! A partition's state as it comes from a checkpoint.

use std::collections::BTreeMap;

use bytes::Bytes;
use corelane_commitlog::LogState;
use corelane_model::Offset;

use super::{Target, no_repair};

pub(super) const TARGET: Target =
    Target { name: "log_state", about: "a partition's state in a checkpoint", body, seeds, repair: no_repair };

fn body(input: &[u8]) -> bool {
    let Ok(state) = LogState::decode(input) else { return false };
    let mut again = Vec::new();
    state.encode(&mut again);
    assert_eq!(LogState::decode(&again).as_ref(), Ok(&state), "a state survives its encoding");
    true
}

fn seeds() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for state in [LogState::default(), LogState::starting_at(Offset(1 << 40))] {
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        inputs.push(bytes);
    }
    inputs.extend(states_of_a_journal());
    inputs
}

/// States with segments and producers in them, as a broker's checkpoints hold them.
fn states_of_a_journal() -> Vec<Vec<u8>> {
    let mut states: BTreeMap<usize, Bytes> = BTreeMap::new();
    for state in super::journal_recovery::states() {
        states.insert(state.len(), state);
    }
    states.into_values().map(|state| state.to_vec()).collect()
}
