//! Bind, fetch a binding, rotation.
