//! Boot: configuration, placement on cores, admin listener, signals, supervision, shutdown.
