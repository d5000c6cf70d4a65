//! Bytes on their way between an engine, the backup store, a provisioner and a client.

use std::io;

use bytes::Bytes;
use futures::stream::BoxStream;

/// Chunks of bytes; the first error ends the stream, and what came before it is not whole.
pub type ByteStream = BoxStream<'static, io::Result<Bytes>>;

/// Whole lines of text, some at a time; the first error ends the stream.
pub type TextStream = BoxStream<'static, io::Result<String>>;
