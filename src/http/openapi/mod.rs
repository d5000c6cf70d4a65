//! What both APIs look like, as OpenAPI 3.1 documents.

pub mod scalars;
