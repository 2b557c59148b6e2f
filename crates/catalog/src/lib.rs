//! Topics, their class and settings, and which shard owns which partition.
//!
//! [`Catalog`] is a machine without effects: `plan_` methods check a wish and answer the [`CatalogChange`] that would
//! fulfil it, [`Catalog::apply`] makes it so. Shard 0 plans, makes the change durable, applies it and hands it to the
//! other shards, which only apply. A change carries everything that was decided, the owners of partitions included, so
//! that applying it needs no decision and every shard comes to the same catalog.
//!
//! Changes and snapshots have an encoding of their own (docs/formats/catalog.md), which the journal of shard 0 carries.
//! Bytes are checked in shape and meaning before they are believed; they never make this crate panic. It knows no
//! journal, no shard's insides and no frame beyond the settings' limits.

mod change;
mod encoding;
mod error;
mod placement;
mod settings;
mod topic;

pub use change::CatalogChange;
pub use encoding::{
    CATALOG_FORMAT, CATALOG_FORMAT_MIN, decode_change, decode_snapshot, encode_change, encode_snapshot, shards_of,
};
pub use error::{ApplyError, CatalogError, DecodeError};
pub use settings::check_settings;
pub use topic::{Catalog, Topic};
