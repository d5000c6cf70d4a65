//! The end of a snapshot, which tells whether it is whole: etcd puts the SHA-256 of the database
//! behind it.

use std::io;

use futures::{StreamExt, TryStreamExt, stream};
use ring::digest::{Context, SHA256};

use crate::stream::ByteStream;

/// What stands at the end of a snapshot: the SHA-256 of the rest.
pub(super) const TRAILER_BYTES: usize = 32;
/// The database in front of it consists of pages, whose size is a multiple of this.
const PAGE_BYTES: u64 = 512;

/// The same snapshot, which ends without an error only when its trailer says that it is whole.
pub(super) fn checked(snapshot: ByteStream) -> ByteStream {
    let begin = (snapshot, Passed::default());
    stream::try_unfold(begin, |(mut snapshot, mut passed)| async move {
        if let Some(chunk) = snapshot.try_next().await? {
            passed.add(&chunk);
            return Ok(Some((chunk, (snapshot, passed))));
        }
        match passed.check() {
            Ok(()) => Ok(None),
            Err(reason) => Err(io::Error::new(io::ErrorKind::InvalidData, reason)),
        }
    })
    .boxed()
}

/// What has passed of a snapshot. Its last bytes are held back from the digest, since they may be
/// the trailer.
struct Passed {
    bytes: u64,
    digest: Context,
    held: Vec<u8>,
}

impl Default for Passed {
    fn default() -> Self {
        Self {
            bytes: 0,
            digest: Context::new(&SHA256),
            held: Vec::new(),
        }
    }
}

impl Passed {
    fn add(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        let release = (self.held.len() + chunk.len()).saturating_sub(TRAILER_BYTES);
        let of_held = release.min(self.held.len());
        let (released, held) = chunk.split_at(release - of_held);
        self.digest.update(&self.held[..of_held]);
        self.digest.update(released);
        self.held.drain(..of_held);
        self.held.extend_from_slice(held);
    }

    fn check(self) -> Result<(), String> {
        let bytes = self.bytes;
        if bytes % PAGE_BYTES != TRAILER_BYTES as u64 {
            return Err(format!(
                "{bytes} bytes are not whole pages and a checksum: it was cut off"
            ));
        }
        if self.digest.finish().as_ref() != self.held {
            return Err("its checksum does not fit: it was changed".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use ring::digest::digest;

    use super::*;

    /// A database of that many pages and its trailer.
    fn snapshot(pages: usize) -> Vec<u8> {
        let mut content: Vec<u8> = (0..pages * PAGE_BYTES as usize)
            .map(|at| (at * at % 251) as u8)
            .collect();
        let trailer = digest(&SHA256, &content);
        content.extend_from_slice(trailer.as_ref());
        content
    }

    /// What comes out of the check when the content comes in chunks of these sizes, over and over.
    async fn passed(content: &[u8], sizes: &[usize]) -> Result<Vec<u8>, String> {
        let mut sizes = sizes.iter().copied().cycle();
        let mut rest = Bytes::copy_from_slice(content);
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            let size = sizes.next().expect("a size");
            chunks.push(Ok(rest.split_to(size.min(rest.len()))));
        }
        let chunks: Result<Vec<Bytes>, io::Error> =
            checked(stream::iter(chunks).boxed()).try_collect().await;
        chunks
            .map(|chunks| chunks.concat())
            .map_err(|error| error.to_string())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]
        #[test]
        fn a_whole_snapshot_passes_as_it_is_in_chunks_of_any_size(
            pages in 0usize..40,
            sizes in proptest::collection::vec(1usize..3_000, 1..20),
        ) {
            let content = snapshot(pages);
            let passed = tokio::runtime::Runtime::new()
                .expect("a runtime")
                .block_on(passed(&content, &sizes));
            prop_assert_eq!(passed, Ok(content));
        }
    }

    #[tokio::test]
    async fn a_snapshot_that_is_cut_anywhere_is_not_whole() {
        let content = snapshot(3);
        for length in 0..content.len() {
            let error = passed(&content[..length], &[100]).await.expect_err("cut");
            let told = if length as u64 % PAGE_BYTES == TRAILER_BYTES as u64 {
                "its checksum does not fit: it was changed".to_owned()
            } else {
                format!("{length} bytes are not whole pages and a checksum: it was cut off")
            };
            assert_eq!(error, told);
        }
    }

    #[tokio::test]
    async fn a_snapshot_that_was_changed_anywhere_is_not_whole() {
        let content = snapshot(2);
        for at in 0..content.len() {
            let mut changed = content.clone();
            changed[at] ^= 1 << (at % 8);
            assert_eq!(
                passed(&changed, &[31, 33]).await,
                Err("its checksum does not fit: it was changed".to_owned()),
                "byte {at}"
            );
        }
    }

    #[tokio::test]
    async fn what_breaks_off_ends_with_its_own_error() {
        let lost = io::Error::new(io::ErrorKind::ConnectionReset, "the member went away");
        let chunks = [Ok(Bytes::from(snapshot(1))), Err(lost)];
        let ended: Result<Vec<Bytes>, io::Error> =
            checked(stream::iter(chunks).boxed()).try_collect().await;
        assert_eq!(
            ended.expect_err("broken off").to_string(),
            "the member went away"
        );
    }
}
