//! Offsets within transactions, where their groups are.

use corelane_group::RequestTicket;
use corelane_model::{GroupName, Transaction};

use super::round::is_serving;
use crate::Shard;
use crate::transactions::Apply;

impl Shard {
    /// A ticket for something that a group is to answer.
    pub(crate) fn group_ticket(&mut self) -> u64 {
        self.groups.ticket()
    }

    /// Whether a transaction has something staged in a group of this shard.
    pub(crate) fn is_staged_in(&self, name: &GroupName, transaction: Transaction) -> bool {
        let known = self.groups.homes.get(&name.home()).and_then(|home| home.groups.get(name));
        known.is_some_and(|known| known.group.is_open(transaction))
    }

    /// A transaction is decided that a group of this shard takes part in: it is told, and the coordinator hears when that is
    /// durable. The decision comes back when the group's home cannot take it now.
    pub(crate) fn settle_in_group(
        &mut self,
        name: &GroupName,
        ticket: RequestTicket,
        apply: Apply,
    ) -> Result<(), Apply> {
        let home = self.groups.homes.get_mut(&name.home()).filter(|home| is_serving(home));
        let Some(home) = home else { return Err(apply) };
        let Some(known) = home.groups.get_mut(name) else {
            self.on_apply_done(apply);
            return Ok(());
        };
        known.group.settle_transaction(ticket, apply.transaction, apply.decision);
        known.settling.insert(ticket, apply);
        home.touch(name);
        home.arm(name);
        Ok(())
    }
}
