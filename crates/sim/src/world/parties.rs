//! What clients learn as members of consumer groups.

use corelane_client_core::Effect;

use super::World;

impl World {
    /// Effects that are about memberships, or about what members read. Whatever else it is comes back.
    pub(super) fn tell_party(&mut self, client: usize, effect: Effect) -> Option<Effect> {
        if !self.clients[client].is_member() {
            return Some(effect);
        }
        let (now, incarnation) = (self.now(), self.broker.incarnation());
        let told = match effect {
            Effect::Group { group, news } => {
                self.log(format_args!("c{client} group {}: {news:?}", group.0));
                self.clients[client].on_group_news(now, &mut self.oracle, group, news)
            }
            Effect::Subscribed { subscription, next, log_start, high_watermark } => {
                let key = subscription.0;
                self.log(format_args!("c{client} subscription {key} at {next} in [{log_start}, {high_watermark})"));
                self.clients[client].on_turn_subscribed(&mut self.oracle, subscription, next);
                return None;
            }
            Effect::Deliver { subscription, bytes, from, high_watermark } => {
                let (key, length) = (subscription.0, bytes.len());
                self.log(format_args!("c{client} subscription {key} gets {length} bytes from {from}"));
                let range = from..high_watermark;
                self.clients[client].on_turn_delivered(&mut self.oracle, incarnation, subscription, bytes, range)
            }
            Effect::Ended { subscription, error } => {
                self.log(format_args!("c{client} subscription {} ended: {error}", subscription.0));
                Ok(self.clients[client].on_turn_ended(subscription))
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
