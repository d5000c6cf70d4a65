//! What a user downloads: a gzip'd tar of the snapshot and its manifest. Of a backup that is sealed for the tenant's key
//! it has the object as it is stored.
//!
//! The manifest comes last, as it does in the store: when [`MANIFEST_FILE`] is there, the
//! [`SNAPSHOT_FILE`] or [`TENANT_SNAPSHOT_FILE`] before it is whole. A snapshot that is not what the manifest says ends the
//! archive with an error, so that the download breaks off instead of ending well.
//!
//! The archive is made while it is sent and holds a few chunks in memory. It has the same bytes each
//! time, so that a download that broke off can be gone on with.

use std::{
    io::{self, Write as _},
    mem,
    ops::RangeInclusive,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::{StreamExt, future::ready, stream};
use ring::digest::{SHA256, digest};
use tar::{EntryType, Header};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio_util::io::StreamReader;

use super::{
    gauge::{Expecting, gauged},
    name::ObjectName,
    signature,
};
use crate::{
    model::{
        backup::{MANIFEST_FILE, Manifest, SNAPSHOT_FILE, TENANT_SNAPSHOT_FILE},
        limits::CHUNK_BYTES,
    },
    seal::hex,
    stream::ByteStream,
};

/// Counts the ways in which archives were made: it is one more whenever the same backup gets other
/// bytes than before. A test tells when that is so.
const REVISION: u32 = 1;
/// Hexadecimal digits of a tag.
const TAG_DIGITS: usize = 32;

/// What the snapshot takes here of what it takes in the store, for databases with texts. What cannot be
/// compressed takes the same in both.
const PACKED_PERCENT: u64 = 125;
/// About what headers and manifest take.
const BESIDE_BYTES: u64 = 1024;

/// Files in a tar begin at multiples of this.
const BLOCK_BYTES: usize = 512;
/// A tar ends with two blocks of zeros.
const END: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];
/// The files are for the one who unpacks them alone.
const FILE_MODE: u32 = 0o600;

/// The archive of a snapshot, or of the object that is sealed for the tenant's key, with the manifest as it is shown:
/// what is sealed in that is the operator's.
pub fn download(content: ByteStream, manifest: &Manifest) -> ByteStream {
    let stored = &manifest.stored;
    let name = ObjectName::snapshot_of(manifest);
    let (file, bytes_in_file, expected) = match manifest.sealed_for {
        Some(_) => (
            TENANT_SNAPSHOT_FILE,
            stored.object_bytes,
            Expecting::object(&name, stored),
        ),
        None => (
            SNAPSHOT_FILE,
            stored.snapshot_bytes,
            Expecting::snapshot(&name, stored),
        ),
    };
    let content = gauged(content, expected);
    let told = signature::to_json(manifest);
    let rest = [
        padding(bytes_in_file),
        header(MANIFEST_FILE, told.len() as u64, manifest),
        told.clone(),
        padding(told.len() as u64),
        Bytes::from_static(&END),
    ];
    let archive = bytes([header(file, bytes_in_file, manifest)])
        .chain(content)
        .chain(bytes(rest));
    compressed(archive.boxed())
}

/// About how long the archive of a backup is, before anybody has made it.
pub fn about(manifest: &Manifest) -> u64 {
    let stored = &manifest.stored;
    if manifest.sealed_for.is_some() {
        return stored.object_bytes + BESIDE_BYTES;
    }
    let packed = stored.object_bytes.saturating_mul(PACKED_PERCENT) / 100;
    packed.min(stored.snapshot_bytes) + BESIDE_BYTES
}

/// What is the same as long as the bytes of the archive with that manifest are.
pub fn tag(manifest: &Manifest) -> String {
    let told = digest(&SHA256, &signature::to_json(manifest));
    let digits = &hex(told.as_ref())[..TAG_DIGITS];
    format!("{digits}-{REVISION}")
}

/// The bytes of `content` from the first to the last of `part`, counted from 0. What is behind them is
/// not asked for.
pub fn part(content: ByteStream, part: RangeInclusive<u64>) -> ByteStream {
    let (first, last) = part.into_inner();
    let cut = content.scan(0, move |at: &mut u64, chunk| {
        let begin = *at;
        if begin > last {
            return ready(None);
        }
        let chunk = chunk.map(|chunk: Bytes| {
            *at += chunk.len() as u64;
            // Both lie within the chunk, whose length is a usize.
            let within = |place: u64| (place.max(begin).min(*at) - begin) as usize;
            chunk.slice(within(first)..within(last.saturating_add(1)))
        });
        ready(Some(chunk))
    });
    let is_something = |chunk: &io::Result<Bytes>| chunk.as_ref().is_ok_and(Bytes::is_empty);
    cut.filter(move |chunk| ready(!is_something(chunk))).boxed()
}

/// Compresses in pieces that are always cut at the same places, however `content` comes: what an
/// encoder makes of its input depends on them. An error is the end.
fn compressed(content: ByteStream) -> ByteStream {
    let begin = Gzip {
        content: StreamReader::new(content),
        encoder: GzEncoder::new(Vec::new(), Compression::fast()),
        piece: vec![0; CHUNK_BYTES],
    };
    stream::try_unfold(Some(begin), |at| async move {
        match at {
            Some(gzip) => gzip.next().await,
            None => Ok(None),
        }
    })
    .boxed()
}

/// A gzip'd stream on its way.
struct Gzip<R> {
    content: R,
    encoder: GzEncoder<Vec<u8>>,
    piece: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Gzip<R> {
    /// The next bytes, and what comes after them.
    async fn next(mut self) -> io::Result<Option<(Bytes, Option<Self>)>> {
        loop {
            let mut filled = 0;
            while filled < self.piece.len() {
                match self.content.read(&mut self.piece[filled..]).await? {
                    0 => break,
                    more => filled += more,
                }
            }
            self.encoder.write_all(&self.piece[..filled])?;
            if filled < self.piece.len() {
                let rest = self.encoder.finish()?;
                return Ok(Some((rest.into(), None)));
            }
            let made = mem::take(self.encoder.get_mut());
            if !made.is_empty() {
                return Ok(Some((made.into(), Some(self))));
            }
        }
    }
}

fn header(name: &str, bytes: u64, manifest: &Manifest) -> Bytes {
    // The GNU form has room for sizes over 8 GiB.
    let mut header = Header::new_gnu();
    header
        .set_path(name)
        .expect("the names of our files fit a header");
    header.set_entry_type(EntryType::Regular);
    header.set_mode(FILE_MODE);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(manifest.finished_at.timestamp().try_into().unwrap_or(0));
    header.set_size(bytes);
    header.set_cksum();
    Bytes::copy_from_slice(header.as_bytes())
}

/// Zeros up to the next block after a file of that length.
fn padding(file_bytes: u64) -> Bytes {
    let last_block = (file_bytes % BLOCK_BYTES as u64) as usize;
    Bytes::from_static(&END[..(BLOCK_BYTES - last_block) % BLOCK_BYTES])
}

fn bytes<const N: usize>(parts: [Bytes; N]) -> ByteStream {
    stream::iter(parts.map(Ok)).boxed()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt, path::Path, process::Command};

    use futures::{StreamExt as _, TryStreamExt};

    use super::*;
    use crate::{
        backups::{
            BackupStoreError,
            samples::{self, broken, collect, collect_ours, noise, whole},
        },
        model::backup::StoredSnapshot,
    };

    /// The SHA-256 of what gzip makes of a certain text.
    const PINNED: &str = "ddf6481f535c2f5eb847e57d51dbabab8751452722c497800ef37b8f00f723b0";

    fn manifest_of(content: &Bytes) -> Manifest {
        let sha256 = ring::digest::digest(&ring::digest::SHA256, content);
        samples::manifest(StoredSnapshot {
            snapshot_bytes: content.len() as u64,
            snapshot_sha256: hex(sha256.as_ref()),
            object_bytes: 1,
            object_sha256: "cd".repeat(32),
            compression: "zstd".into(),
            sealing: None,
        })
        .bare()
    }

    fn untar(archive: &[u8], into: &Path) -> bool {
        let file = into.join("archive.tar.gz");
        fs::write(&file, archive).expect("written");
        let unpacked = Command::new("tar")
            .arg("xzf")
            .arg(&file)
            .arg("-C")
            .arg(into)
            .output()
            .expect("tar runs");
        unpacked.status.success() && unpacked.stderr.is_empty()
    }

    #[tokio::test]
    async fn tar_unpacks_the_snapshot_and_its_manifest() {
        for length in [0, 1, 511, 512, 513, 20_512, 3_000_000] {
            let content = noise(length);
            let manifest = manifest_of(&content);
            let archive = collect(download(whole(&content), &manifest))
                .await
                .expect("an archive");
            let folder = tempfile::tempdir().expect("a folder");
            assert!(untar(&archive, folder.path()), "{length}");

            let snapshot = folder.path().join("snapshot.db");
            assert_eq!(fs::read(&snapshot).expect("there"), content);
            let told = fs::read(folder.path().join("manifest.json")).expect("there");
            let told: Manifest = serde_json::from_slice(&told).expect("a manifest");
            assert_eq!(told, manifest);
            for file in ["snapshot.db", "manifest.json"] {
                let metadata = fs::metadata(folder.path().join(file)).expect("there");
                assert_eq!(metadata.mode() & 0o777, FILE_MODE);
                assert_eq!(metadata.mtime(), manifest.finished_at.timestamp());
            }
        }
    }

    #[tokio::test]
    async fn the_archive_breaks_off_when_the_snapshot_is_not_whole() {
        let content = noise(1_000_000);
        let manifest = manifest_of(&content);
        let (shorter, longer) = (noise(999_999), noise(1_000_001));
        let mut altered = content.to_vec();
        altered[500_000] ^= 1;
        for (how, snapshot) in [
            ("broken off", broken(&content.slice(..500_000))),
            ("broken at the end", broken(&content)),
            ("shorter", whole(&shorter)),
            ("longer", whole(&longer)),
            ("altered", whole(&altered.into())),
        ] {
            let mut archive = Vec::new();
            let mut stream = download(snapshot, &manifest);
            let result = loop {
                match stream.try_next().await {
                    Ok(Some(chunk)) => archive.extend_from_slice(&chunk),
                    end => break end,
                }
            };
            assert!(result.is_err(), "{how}");
            assert!(stream.next().await.is_none(), "{how}: an error is the end");
            let folder = tempfile::tempdir().expect("a folder");
            assert!(!untar(&archive, folder.path()), "{how}");
            assert!(!folder.path().join("manifest.json").exists(), "{how}");
        }
    }

    /// The content in pieces of that length, some of which are waited for.
    fn in_pieces(content: &Bytes, length: usize) -> ByteStream {
        let pieces: Vec<Bytes> = content.chunks(length).map(Bytes::copy_from_slice).collect();
        let late = stream::iter(pieces).then(|piece| async move {
            tokio::task::yield_now().await;
            Ok(piece)
        });
        late.boxed()
    }

    fn hash(bytes: &[u8]) -> String {
        hex(digest(&SHA256, bytes).as_ref())
    }

    #[tokio::test]
    async fn the_bytes_are_the_same_however_the_snapshot_comes() {
        let content = Bytes::from("a page of a database ".repeat(20_000));
        let manifest = manifest_of(&content);
        let first = collect(download(whole(&content), &manifest)).await;
        let first = first.expect("an archive");
        for length in [1000, 4096, 65_536, 65_537, 1_000_000] {
            let again = collect(download(in_pieces(&content, length), &manifest)).await;
            assert!(again.expect("an archive") == first, "{length}");
        }
        // Should this fail, the bytes are others than in earlier versions: count REVISION up.
        let pinned = collect(compressed(whole(&content))).await.expect("bytes");
        assert_eq!((hash(&pinned).as_str(), REVISION), (PINNED, 1));
    }

    #[tokio::test]
    async fn a_part_is_what_the_whole_has_there() {
        let content = noise(300_000);
        let manifest = manifest_of(&content);
        let all = collect(download(whole(&content), &manifest)).await;
        let all = all.expect("an archive");
        let end = all.len() as u64 - 1;
        for (first, last) in [(0, 0), (0, end), (1, end), (70_000, 200_000), (end, end)] {
            let cut = part(download(whole(&content), &manifest), first..=last);
            let cut = collect(cut).await.expect("a part");
            assert!(cut == all[first as usize..=last as usize], "{first}-{last}");
        }
        // What is damaged breaks a part off, too.
        let broken = download(broken(&content.slice(..200_000)), &manifest);
        assert!(collect(part(broken, 1000..=end)).await.is_err());
    }

    #[test]
    fn a_tag_is_its_manifest_s_own() {
        let (one, other) = (manifest_of(&noise(10)), manifest_of(&noise(11)));
        assert_eq!(tag(&one), tag(&one.clone()));
        assert_ne!(tag(&one), tag(&other));
        assert_eq!(tag(&one).len(), TAG_DIGITS + 2);
    }

    #[tokio::test]
    async fn the_archive_tells_what_is_damaged() {
        let manifest = manifest_of(&noise(100));
        let result = collect_ours(download(whole(&noise(101)), &manifest)).await;
        let name = ObjectName::snapshot_of(&manifest);
        assert!(
            matches!(&result, Err(BackupStoreError::Damaged { object, .. }) if object == name.as_str()),
            "{result:?}"
        );
    }

    #[test]
    fn a_file_over_8_gib_fits_its_header() {
        let size = 9 * 1024 * 1024 * 1024;
        let block = header("snapshot.db", size, &manifest_of(&Bytes::new()));
        let header = Header::from_byte_slice(&block);
        assert_eq!(header.entry_size().expect("a size"), size);
    }
}
