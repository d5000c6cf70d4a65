//! Last words by which a member tells that it cannot use what it kept, as was seen of every version
//! on offer (docs/etcd.md has the table).

/// What stands in such last words. None of these passes: the next start ends the same way.
const TELLING: [&str; 19] = [
    // Its log is shorter than what it had promised to the others.
    "Was the raft log corrupted, truncated, or lost?",
    "has already been bootstrapped",
    "the member has been permanently removed from the cluster",
    "crc mismatch",
    "wal: max entry size limit exceeded",
    "wal: file not found",
    "wal: snapshot not found",
    "wal: slice bounds out of range",
    // What stands where an entry of the log should be is none. A space that does not break comes next in
    // about every second build: the library wants nobody to read its errors.
    r#""error":"proto:"#,
    "(proto:",
    "etcdmain: proto:",
    "cannot be repaired",
    "cannot use none as id",
    "failed to find database snapshot file",
    "invalid database",
    "freepages: failed to get all reachable pages",
    "assertion failed: Page expected to be",
    // A file that is shorter than what is in it.
    "fatal error: fault",
    "unexpected fault address",
];

/// How lines begin that are a member's last, or tell of an error: nothing that a user has written
/// stands in these.
const ENDING: [&str; 5] = [
    "panic: ",
    "fatal error: ",
    r#"{"level":"fatal","#,
    r#"{"level":"panic","#,
    r#"{"level":"error","#,
];
/// The same in the form of older versions, after date and time.
const OLD_ENDING: [&str; 2] = [" C | ", " E | "];
/// Where that stands, in bytes: `2026-11-27 09:08:45.028045`.
const OLD_TIME_BYTES: usize = 26;

/// How a newer version says that the member was removed: a warning, in which nobody else writes
/// quotation marks.
const REMOVED: &str =
    r#""msg":"server error","error":"the member has been permanently removed from the cluster""#;

/// Stands in the trace of a member that fell over what it read at its start.
const FELL_OVER: &str = "go.etcd.io/etcd/server/v3/etcdserver.bootstrap(";

/// Whether a member that has ended tells by its last words that its data is damaged.
pub(super) fn is_reported(printed: &str) -> bool {
    let tells = |line: &str| TELLING.iter().any(|text| line.contains(text));
    let mut lines = printed.lines();
    lines.any(|line| {
        is_ending(line) && tells(line) || line.contains(REMOVED) || line.starts_with(FELL_OVER)
    })
}

fn is_ending(line: &str) -> bool {
    let is_old = |rest: &str| OLD_ENDING.iter().any(|ending| rest.starts_with(ending));
    ENDING.iter().any(|ending| line.starts_with(ending))
        || line.get(OLD_TIME_BYTES..).is_some_and(is_old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_tell_of_damage() {
        for told in [
            "2026-11-27 09:08:45.028045 C | etcdmain: member 681815d0785f26f has already been bootstrapped",
            "2026-11-27 09:08:53.198102 C | raft: tocommit(38) is out of range [lastIndex(0)]. Was the raft log corrupted, truncated, or lost?",
            "2026-11-27 09:10:45.261250 E | etcdserver: the member has been permanently removed from the cluster",
            r#"{"level":"warn","ts":"2026","msg":"server error","error":"the member has been permanently removed from the cluster"}"#,
            "panic: runtime error\n\ngoroutine 1 [running]:\ngo.etcd.io/etcd/server/v3/etcdserver.bootstrap({{0x7f",
            "panic: cannot use none as id",
            "panic: freepages: failed to get all reachable pages (page 19950185: out of bounds: 39)",
            "fatal error: fault",
            r#"{"level":"fatal","ts":"2026-11-27T09:15:44.395492Z","msg":"discovery failed","error":"member d7 has already been bootstrapped"}"#,
            r#"{"level":"panic","ts":"2026-11-27T09:14:56.684100Z","msg":"failed to open database","error":"invalid database"}"#,
            r#"{"level":"fatal","ts":"2026-11-27T17:10:08.639572Z","msg":"discovery failed","error":"proto: cannot parse invalid wire-format data"}"#,
            r#"{"level":"fatal","ts":"2026-11-27T17:11:48.465716Z","msg":"discovery failed","error":"proto: integer overflow"}"#,
            "{\"level\":\"fatal\",\"msg\":\"discovery failed\",\"error\":\"proto:\u{a0}cannot parse invalid wire-format data\"}",
            "2026-11-30 13:21:28.010325 C | etcdmain: proto: integer overflow",
            "2026-11-27 09:10:45.261250 C | etcdserver: read wal error (proto:\u{a0}wrong wireType) and cannot",
            "2026-11-27 09:10:45.261250 C | etcdserver: read wal error (proto: wrong wireType = 1 for field Data) and cannot be repaired",
        ] {
            assert!(is_reported(told), "{told}");
            assert!(
                is_reported(&format!("other words\n{told}\nand more")),
                "{told}"
            );
        }
    }

    #[test]
    fn what_passes_and_what_users_write_tells_of_nothing() {
        for harmless in [
            "2026-11-27 09:08:45.028045 C | etcdmain: listen tcp 127.0.0.1:1: bind: address already in use",
            r#"{"level":"fatal","msg":"discovery failed","error":"write: no space left on device"}"#,
            "panic: open data/member/snap/db: too many open files",
            r#"{"level":"warn","msg":"apply request took too long","request":"key:\"crc mismatch\""}"#,
            r#"2026-11-27 09:08:45.028045 W | etcdserver: request "key:\"panic: invalid database\"" took too long"#,
            r#"{"level":"warn","msg":"x","request":"key:\"proto: integer overflow cannot be repaired\""}"#,
            r#"{"level":"warn","msg":"x","request":"key:\"the member has been permanently removed from the cluster\""}"#,
            "panic: ",
            "",
        ] {
            assert!(!is_reported(harmless), "{harmless}");
        }
    }
}
