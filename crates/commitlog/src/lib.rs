//! One partition's log: append, durable end, fetch plan, retention, duplicate detection.
