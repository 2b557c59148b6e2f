//! The server end of one connection: hello, who it is, what it may, its budgets, its answers.

mod token;

pub use token::TokenDigest;
