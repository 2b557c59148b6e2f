//! Keeps glommio 0.9.0 from sleeping over tasks that could run.
//!
//! Its executor runs task queues only while no completion waits in the latency ring. When one waits already at the first look,
//! it runs nothing, collects the completion, and, if that woke no task, parks without looking at its queues again. The
//! preemption timer is such a completion: with 1 ms and a busy machine a shard slept over its own loop within seconds, for
//! good, since nothing that would wake it was armed (measured). So the timer is set so that it never fires. What remains is an
//! eventfd that a neighbour writes late; against that a timer of the executor's own is always armed, which ends such a sleep.

use std::time::Duration;

/// Two periods without a common multiple nearby: while one beat is being served the other is still armed.
const PERIODS: [Duration; 2] = [Duration::from_millis(29), Duration::from_millis(41)];

/// Starts the beats on this executor; they end with it.
pub(crate) fn start() {
    for period in PERIODS {
        let beat = async move {
            loop {
                glommio::timer::sleep(period).await;
            }
        };
        glommio::spawn_local(beat).detach();
    }
}
