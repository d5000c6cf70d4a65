//! Fetching an instance.
