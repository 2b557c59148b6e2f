//! The server end of one connection: hello, who it is, its budgets, its requests in checked form, its answers.
//!
//! [`Session::handle`] turns each frame into a [`Step`]: a typed [`Request`] for the shard, a frame that the session
//! answers by itself, or the end of the connection. Whatever a peer sends leads to a code and a text, never to a panic,
//! and a refused frame changes nothing. Outcomes of produce frames, durable ends and pushes are gathered and leave once
//! a round, through [`Session::poll_frame`] and [`Session::take_pushes`].
//!
//! A session knows no topic, no partition's owner and no stream beyond the slot that a subscription's pushes take. It
//! reads no clock.

mod answers;
mod effect;
mod error;
mod group;
mod ownership;
mod pushes;
mod queue;
mod request;
mod session;
mod stats;
mod subscriptions;
mod token;
mod transaction;

pub use effect::{Facts, Step};
pub use error::Refused;
pub use group::{GroupAsk, GroupRequest, JoinAsk};
pub use ownership::ProducerSeal;
pub use queue::{MemberCredit, QueueAsk, QueueJoinAsk, QueueRequest, QueueTopic};
pub use request::{ProduceRequest, Request};
pub use session::Session;
pub use stats::SessionStats;
pub use subscriptions::Route;
pub use token::TokenDigest;
pub use transaction::{TransactionAsk, TransactionRequest};
