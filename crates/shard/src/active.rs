//! What goes on at one partition.

use corelane_model::Offset;

use crate::subscriptions::SubscriptionKey;
use crate::waiters::Waiters;

/// Who waits for a partition and who reads it. A partition has one only from its first use on.
#[derive(Debug, Default)]
pub(crate) struct Active {
    pub(crate) waiters: Waiters,
    /// Its subscriptions in the order of their keys.
    pub(crate) subscribers: Vec<SubscriptionKey>,
    /// What readers are told of the end; kept from the first subscription on.
    pub(crate) high_watermark: Offset,
}
