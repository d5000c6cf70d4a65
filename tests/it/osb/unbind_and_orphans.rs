//! Unbind, deprovision, and what orphan mitigation does.
