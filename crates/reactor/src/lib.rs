//! Composes quic and shard; files, UDP, timers, mesh by glommio; floor measurements; process set-up.
