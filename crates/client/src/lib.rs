//! The native SDK of Corelane, a durable message broker for multiplayer games.
