//! Members that lose what they kept, and are replaced.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use etcd_client::GetOptions;

use super::*;
use crate::model::deployment::Membership;

/// Every version that is on offer here.
macro_rules! for_every_version {
    ($($scenario:ident),* $(,)?) => {
        for_each_version!(@ v3_3_25 "3.3.25" $($scenario)*);
        for_each_version!(@ v3_4_23 "3.4.23" $($scenario)*);
        for_each_version!(@ v3_5_16 "3.5.16" $($scenario)*);
        for_each_version!(@ v3_5_35 "3.5.35" $($scenario)*);
        for_each_version!(@ v3_6_16 "3.6.16" $($scenario)*);
        for_each_version!(@ v3_7_3 "3.7.3" $($scenario)*);
    };
}

for_every_version!(
    replaces_a_member_that_lost_its_data,
    tells_by_last_words_what_cannot_be_used,
    gives_signs_of_life,
);

const LOST: usize = 1;

async fn keys_of(lab: &Lab, index: usize) -> i64 {
    let mut member = lab.login_at(index, "ada", "password").await.expect("in");
    let all = GetOptions::new().with_all_keys().with_count_only();
    member.get("", Some(all)).await.expect("got").count()
}

async fn replaces_a_member_that_lost_its_data(version: &str) {
    let mut lab = Lab::secured(version, 3).await;
    add_user(&lab, &user("ada", "password")).await;
    let mut ada = lab.login("ada", "password").await.expect("logged in");
    fill(&mut ada, 0..20).await;
    let begun = Instant::now();
    lab.replace(LOST).await;
    println!("{version}: replaced within {:?}", begun.elapsed());
    assert_eq!(keys_of(&lab, LOST).await, 20);
    let mut ada = lab.login("ada", "password").await.expect("logged in");
    fill(&mut ada, 20..30).await;
    assert_eq!(keys_of(&lab, LOST).await, 30);
    // It has a vote: with one of the others down, there is a majority.
    lab.lose(0);
    let begun = Instant::now();
    while lab.login_at(LOST, "ada", "password").await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "it has no vote");
    }
    let mut ada = lab.login_at(LOST, "ada", "password").await.expect("in");
    ada.put("last", "", None).await.expect("put");
    // It comes back as the member that it is by now.
    lab.begin(0);
    lab.lose(LOST);
    lab.begin(LOST);
    lab.ready(Access::Passwords).await;
    assert_eq!(keys_of(&lab, LOST).await, 31);
    if let Ok(listed) = lab.root().await.member_list().await {
        assert_eq!(listed.members().len(), 3, "{listed:?}");
        assert!(listed.members().iter().all(|m| !m.is_learner()));
    }
    ends_alarms_of_a_member_that_is_replaced(&mut lab).await;
}

/// A member that differs keeps everybody from writing, until it is gone and its alarm with it.
async fn ends_alarms_of_a_member_that_is_replaced(lab: &mut Lab) {
    let mut root = lab.root().await;
    let name = &lab.deployment.members[LOST].name;
    let listed = root.member_list().await.expect("members");
    let id = listed.members().iter().find(|m| m.name() == name);
    let mut options = etcd_client::AlarmOptions::new();
    options.with_member(id.expect("the member").id());
    root.alarm(AlarmAction::Activate, AlarmType::Corrupt, Some(options))
        .await
        .expect("an alarm");
    let seen = Etcd.observe(lab.site()).await;
    let seen = seen.expect("a look");
    let differ: Vec<bool> = seen.iter().map(|member| member.differs()).collect();
    assert_eq!(differ, [false, true, false]);
    let refused = message(root.put("key", "", None).await);
    assert!(refused.contains("corrupt"), "{refused}");
    lab.replace(LOST).await;
    let mut root = lab.root().await;
    root.put("key", "", None).await.expect("put");
    let alarms = root.alarm(AlarmAction::Get, AlarmType::None, None).await;
    assert!(alarms.expect("alarms").alarms().is_empty());
}

/// The first file of a member's log of changes.
fn log_of(data: &Path) -> PathBuf {
    let files = fs::read_dir(data.join("member/wal")).expect("a folder");
    let paths = files.map(|file| file.expect("a file").path());
    let logs = paths.filter(|path| path.extension().is_some_and(|ext| ext == "wal"));
    logs.min().expect("a log")
}

fn overwrite(file: &Path, at: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(file).expect("a file");
    file.write_all_at(bytes, at).expect("written");
}

fn cut(file: &Path, length: u64) {
    let file = OpenOptions::new().write(true).open(file).expect("a file");
    file.set_len(length).expect("cut");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("a copy");
        }
    }
}

const BLOCK: usize = 4096;

type Harm = (&'static str, fn(&Path));

/// What may become of a disk. That all is gone is no matter of last words: such a member is not started,
/// since it may go on as if nothing had happened.
const HARMS: [Harm; 6] = [
    ("a flipped log", |data| {
        overwrite(&log_of(data), 20 * 1024, &[0xa5; 5 * BLOCK]);
    }),
    ("a log that was cut off", |data| cut(&log_of(data), 30_000)),
    ("an empty log", |data| cut(&log_of(data), 0)),
    ("no database", |data| {
        overwrite(&data.join("member/snap/db"), 0, &[0; 8 * BLOCK]);
    }),
    ("another database", |data| {
        // Whatever page is in use, it is among these.
        let noise: Vec<u8> = (0..100 * BLOCK).map(|i| (i * 31 % 251) as u8).collect();
        overwrite(&data.join("member/snap/db"), 2 * BLOCK as u64, &noise);
    }),
    ("a database that was cut off", |data| {
        cut(&data.join("member/snap/db"), 9_000);
    }),
];

async fn tells_by_last_words_what_cannot_be_used(version: &str) {
    let mut lab = Lab::secured(version, 3).await;
    // Only a leader that was told by the member what it has notices that it has less.
    answered(|| Etcd.change_member(lab.site(), 0, MemberChange::Lead))
        .await
        .expect("handed over");
    let mut root = lab.root().await;
    for index in 0..30 {
        let value = vec![b'a' + index; 3000];
        root.put(format!("key {index}"), value, None)
            .await
            .expect("put");
    }
    lab.deployment.members[2].membership = Membership::Joined;
    let home = lab.home("m2");
    let (data, good) = (home.join("data"), home.join("good"));
    // What is only in the log yet is read from there again: a database without it does no harm.
    let written = [b'a' + 29; 3000];
    let holds = |file: &[u8]| file.windows(written.len()).any(|bytes| bytes == written);
    let begun = Instant::now();
    while !holds(&fs::read(data.join("member/snap/db")).expect("a database")) {
        assert!(begun.elapsed() < PATIENCE, "it is not written");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    lab.lose(2);
    copy(&data, &good);
    // An ordinary end tells of nothing.
    let words = fs::read_to_string(home.join("log")).expect("a log");
    assert!(!(PROFILE.tells_damage)(&words), "{words}");
    for (harm, harm_it) in HARMS {
        println!("{version}: {harm}");
        let words = last_words_after(&mut lab, harm_it, &good).await;
        assert!((PROFILE.tells_damage)(&words), "{version}, {harm}: {words}");
    }
    // So does one that was removed while it was away.
    fs::remove_dir_all(&data).expect("removed");
    copy(&good, &data);
    answered(|| Etcd.change_member(lab.site(), 2, MemberChange::Leave))
        .await
        .expect("removed");
    lab.begin(2);
    let words = lab.last_words(2).await.expect("an end");
    assert!((PROFILE.tells_damage)(&words), "{version}: {words}");
    // What may pass does not.
    let port = addresses::client(&lab.deployment.members[2]).port;
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).expect("a port");
    fs::remove_dir_all(&data).expect("removed");
    lab.deployment.members[2].membership = Membership::New;
    lab.begin(2);
    let words = lab.last_words(2).await.expect("an end");
    drop(taken);
    assert!(!(PROFILE.tells_damage)(&words), "{version}: {words}");
}

/// How often a member may be brought what it lacks before a harm is none.
const HEALED_MAX: usize = 5;

/// What the last member prints that was harmed. Another leader than the one that it had told what it has brings it
/// what it lacks, and it goes on: on a busy machine the members take another one now and then. That one knows what
/// the member has by then, so it is harmed anew.
async fn last_words_after(lab: &mut Lab, harm_it: impl Fn(&Path), good: &Path) -> String {
    let data = lab.home("m2").join("data");
    for _ in 0..HEALED_MAX {
        fs::remove_dir_all(&data).expect("removed");
        copy(good, &data);
        harm_it(&data);
        lab.begin(2);
        if let Some(words) = lab.last_words(2).await {
            return words;
        }
        fs::remove_dir_all(good).expect("removed");
        copy(&data, good);
    }
    panic!("the member goes on");
}

async fn gives_signs_of_life(version: &str) {
    let mut lab = Lab::secured(version, 3).await;
    let alive = async |lab: &Lab| {
        let alive = Etcd.alive(lab.site()).await;
        alive.expect("asked")
    };
    assert_eq!(alive(&lab).await, [true; 3]);
    lab.pause(0);
    assert_eq!(alive(&lab).await, [false, true, true]);
    lab.go_on(0);
    lab.lose(2);
    lab.lose(1);
    // It needs no majority for that.
    let begun = Instant::now();
    while alive(&lab).await != [true, false, false] {
        assert!(begun.elapsed() < PATIENCE);
    }
}
