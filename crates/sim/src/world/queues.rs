//! What clients learn as members of shared queues.

use corelane_client_core::{Effect, QueueNews};

use super::World;

impl World {
    /// Effects that are about memberships, or about dead letters. Whatever else it is comes back.
    pub(super) fn tell_queue(&mut self, client: usize, effect: Effect) -> Option<Effect> {
        if !self.clients[client].is_queue_member() {
            return Some(effect);
        }
        let told = match effect {
            Effect::Queue { queue, news } => {
                match &news {
                    QueueNews::Delivered { delivery, leases, .. } => {
                        self.log(format_args!("c{client} queue {} delivery {}: {leases:?}", queue.0, delivery.0));
                    }
                    other => self.log(format_args!("c{client} queue {}: {other:?}", queue.0)),
                }
                self.clients[client].on_queue_news(&self.oracle, queue, news)
            }
            Effect::Subscribed { subscription, next, high_watermark, .. } => {
                self.log(format_args!("c{client} dead letters {} at {next}", subscription.0));
                self.clients[client].on_letters_subscribed(subscription, high_watermark);
                return None;
            }
            Effect::Deliver { subscription, bytes, from, .. } => {
                let (key, length) = (subscription.0, bytes.len());
                self.log(format_args!("c{client} dead letters {key} get {length} bytes from {from}"));
                self.clients[client].on_letters(&mut self.oracle, subscription, bytes)
            }
            Effect::Ended { subscription, error } => {
                self.log(format_args!("c{client} dead letters {} ended: {error}", subscription.0));
                Ok(self.clients[client].on_letters_ended(subscription))
            }
            other => return Some(other),
        };
        match told {
            Ok(wishes) => self.wish(client, wishes),
            Err(violation) => self.check(Err(violation)),
        }
        None
    }
}
