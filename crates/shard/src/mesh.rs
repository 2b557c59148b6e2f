//! What shards say to each other.

/// A message from one shard to another. Whoever carries it looks at nothing; it arrives whole, once, and after those that
/// the same shard sent to the same shard before.
#[derive(Debug)]
pub struct MeshMessage(#[expect(dead_code, reason = "carried, not yet read")] ());

const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<MeshMessage>();
};
