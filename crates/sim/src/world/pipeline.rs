//! What clients with workers of a pipeline learn, and whether it has come to its end.

use corelane_client_core::Effect;

use super::{Phase, World};

impl World {
    /// Effects that are about workers' memberships, or about what they read. Whatever else it is comes back.
    pub(super) fn tell_pipeline(&mut self, client: usize, effect: Effect) -> Option<Effect> {
        let is_about_readers = matches!(
            effect,
            Effect::Group { .. }
                | Effect::Subscribed { .. }
                | Effect::Deliver { .. }
                | Effect::Passed { .. }
                | Effect::Ended { .. }
        );
        if !self.clients[client].is_pipeline() || !is_about_readers {
            return Some(effect);
        }
        match &effect {
            Effect::Group { group, news } => self.log(format_args!("c{client} group {}: {news:?}", group.0)),
            Effect::Subscribed { subscription, next, log_start, high_watermark } => {
                let key = subscription.0;
                self.log(format_args!("c{client} subscription {key} at {next} in [{log_start}, {high_watermark})"));
            }
            Effect::Deliver { subscription, bytes, from, .. } => {
                let (key, length) = (subscription.0, bytes.len());
                self.log(format_args!("c{client} subscription {key} gets {length} bytes from {from}"));
            }
            Effect::Passed { subscription, next, .. } => {
                self.log(format_args!("c{client} subscription {} is past what was aborted, at {next}", subscription.0));
            }
            Effect::Ended { subscription, error } => {
                self.log(format_args!("c{client} subscription {} ended: {error}", subscription.0));
            }
            _ => {}
        }
        let (now, incarnation) = (self.now(), self.broker.incarnation());
        match self.clients[client].on_pipeline_told(now, &mut self.oracle, incarnation, effect) {
            Ok(wishes) => self.wish(client, wishes),
            Err(violation) => self.check(Err(violation)),
        }
        None
    }

    /// What the pipeline has not come to the end of, if there is one.
    pub(super) fn restless_pipeline(&self) -> Option<String> {
        let (Phase::Rest { since } | Phase::Audit { since }) = self.phase else { return None };
        let mut ends = self.clients.iter().filter_map(|client| client.pipeline_ends(&self.oracle));
        self.oracle.pipeline.unfinished(since, &ends.next()?)
    }

    /// All is done: what is seen of the pipeline's output is what its group has committed.
    pub(super) fn check_pipeline(&mut self) {
        let Some(plan) = &self.scenario.pipeline else { return };
        let mut result = self.oracle.pipeline.check_agreement();
        let auditors = self.clients.iter().filter(|client| client.audits() == Some(plan.isolation));
        for (partition, reading) in auditors.flat_map(|auditor| auditor.readings_of(plan.source)) {
            let shown = reading.shown.keys().copied();
            result = result.and_then(|()| self.oracle.pipeline.check_whole(partition, shown));
        }
        self.check(result);
        let seen = self.oracle.pipeline.seen_count();
        self.log(format_args!("{seen} outputs of the pipeline were seen"));
    }
}
