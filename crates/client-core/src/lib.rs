//! What an SDK decides: batching, routing, retries, subscriptions; no I/O.
