//! The record batch: the same bytes on the wire, on disk and in the consumer's hand.
