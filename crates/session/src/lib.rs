//! The server end of one connection: hello, who it is, what it may, its budgets, its answers.
