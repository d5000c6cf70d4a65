//! The beginning of a snapshot, by which a file of another kind is told from one: the first page of a bbolt
//! database, which describes the rest (bbolt's page.go and meta.go).

/// The page's own header: id, flags, count and overflow.
const PAGE_HEADER_BYTES: usize = 16;
/// The flags of a page that describes the database, in the page's header.
const META_PAGE: [u8; 2] = 0x04_u16.to_le_bytes();
/// What stands behind the page's header: bbolt's magic number and the version of its form.
const MAGIC: [u8; 8] = *b"\xed\xda\x0c\xed\x02\x00\x00\x00";
/// Bytes of the description that its checksum goes over: the checksum stands behind them.
const META_BYTES: usize = 56;
const CHECKSUM_BYTES: usize = 8;

/// Files that people may take for a snapshot, by how they begin.
const OTHERS: [(&[u8], &str); 4] = [
    (
        b"\x1f\x8b",
        "it is packed with gzip: unpack it first; of a backup that was downloaded here it is the file snapshot.db",
    ),
    (
        b"\x28\xb5\x2f\xfd",
        "it is packed with zstd: unpack it first",
    ),
    (b"PK\x03\x04", "it is packed with zip: unpack it first"),
    (b"REDIS", "it is a dump of Redis"),
];

/// Fails with the reason when a file that begins so is no snapshot of etcd.
pub(super) fn check(head: &[u8]) -> Result<(), String> {
    if let Some((_, reason)) = OTHERS.iter().find(|(begin, _)| head.starts_with(begin)) {
        return Err((*reason).to_owned());
    }
    if is_database(head) {
        return Ok(());
    }
    Err(
        "it does not begin as a database of etcd does; take it with etcdctl snapshot save"
            .to_owned(),
    )
}

fn is_database(head: &[u8]) -> bool {
    let Some((page, rest)) = head.split_at_checked(PAGE_HEADER_BYTES) else {
        return false;
    };
    let Some((meta, rest)) = rest.split_at_checked(META_BYTES) else {
        return false;
    };
    let Some((checksum, _)) = rest.split_at_checked(CHECKSUM_BYTES) else {
        return false;
    };
    page[8..10] == META_PAGE && meta.starts_with(&MAGIC) && checksum == fnv(meta).to_le_bytes()
}

/// FNV-1a of 64 bits, bbolt's checksum.
fn fnv(bytes: &[u8]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let next = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    bytes.iter().fold(BASIS, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first page of a database of pages of 4,096 bytes, as bbolt writes it.
    fn page() -> Vec<u8> {
        let mut page = vec![0; PAGE_HEADER_BYTES];
        page[8..10].copy_from_slice(&META_PAGE);
        let mut meta = MAGIC.to_vec();
        meta.extend(4096_u32.to_le_bytes());
        meta.resize(META_BYTES, 7);
        let checksum = fnv(&meta).to_le_bytes();
        page.extend(meta);
        page.extend(checksum);
        page.resize(4096, 0);
        page
    }

    #[test]
    fn a_database_is_known_by_its_first_page_and_nothing_else_is() {
        let page = page();
        assert_eq!(check(&page), Ok(()));
        let described = PAGE_HEADER_BYTES + META_BYTES + CHECKSUM_BYTES;
        assert_eq!(check(&page[..described]), Ok(()));
        for length in 0..described {
            assert!(check(&page[..length]).is_err(), "{length}");
        }
        for at in (8..10).chain(PAGE_HEADER_BYTES..described) {
            let mut changed = page.clone();
            changed[at] ^= 1;
            assert!(check(&changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn files_that_are_often_taken_for_one_are_named() {
        for (begin, told) in [
            (&b"\x1f\x8b\x08"[..], "gzip"),
            (b"\x28\xb5\x2f\xfd\x04", "zstd"),
            (b"PK\x03\x04", "zip"),
            (b"REDIS0011", "Redis"),
            (b"", "etcdctl snapshot save"),
            (b"{\"kvs\":[]}", "etcdctl snapshot save"),
        ] {
            let reason = check(begin).expect_err("refused");
            assert!(reason.contains(told), "{reason}");
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_published_examples() {
        assert_eq!(fnv(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
