//! Concurrency, durability and limits.
