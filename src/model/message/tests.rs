//! Which changes of alerts are told.

use proptest::prelude::*;

use super::*;
use crate::model::alert::of_all;

const HOLD: Duration = Duration::from_secs(30);

fn id() -> InstanceId {
    "db".parse().expect("an id")
}

fn alert(subject: Subject, gravity: Gravity) -> Alert {
    of_all(subject, gravity, "It is so.".to_owned())
}

fn member(gravity: Gravity) -> Alert {
    Alert {
        member: Some("m1".to_owned()),
        message: "Member m1 answers, but has no majority behind it.".to_owned(),
        ..alert(Subject::Member("m1".to_owned()), gravity)
    }
}

/// What was told, kept as the store keeps it.
#[derive(Default)]
struct Receiver {
    settling: Settling,
    told: Vec<(String, Gravity)>,
}

impl Receiver {
    fn new() -> Self {
        Self {
            settling: Settling::over(HOLD),
            told: Vec::new(),
        }
    }

    /// What is told when the instance looks so at this second.
    fn hears(&mut self, second: u64, found: &[Alert], was_looked_at: bool) -> Vec<String> {
        let now = Duration::from_secs(second);
        let settled = self
            .settling
            .settle(&id(), found.to_vec(), was_looked_at, now);
        let changes = settled.changes(&self.told);
        let each = changes.into_iter().map(|change| match change {
            Change::Opened(alert) => {
                let key = key(&alert.subject);
                assert!(
                    self.told.iter().all(|(told, _)| *told != key),
                    "{key} again"
                );
                self.told.push((key.clone(), alert.gravity));
                format!("{key} {}", alert.gravity.as_str())
            }
            Change::Changed(key, alert) => {
                let told = self.told.iter_mut().find(|(told, _)| *told == key);
                let (_, gravity) = told.expect("one that was told");
                assert_ne!(*gravity, alert.gravity, "{key}");
                *gravity = alert.gravity;
                format!("{key} now {}", alert.gravity.as_str())
            }
            Change::Ended(key) => {
                let at = self.told.iter().position(|(told, _)| *told == key);
                self.told.remove(at.expect("one that was told"));
                format!("{key} ended")
            }
        });
        each.collect()
    }
}

#[test]
fn each_change_is_told_once_and_what_comes_and_goes_is_not() {
    let mut receiver = Receiver::new();
    let (warning, critical) = (member(Gravity::Warning), member(Gravity::Critical));
    let one = std::slice::from_ref;
    let none: [&str; 0] = [];
    assert_eq!(receiver.hears(0, one(&warning), true), none);
    assert_eq!(receiver.hears(10, &[], true), none);
    assert_eq!(receiver.hears(20, one(&warning), true), none);
    // It is there again since ten seconds only.
    assert_eq!(receiver.hears(49, one(&warning), true), none);
    assert_eq!(
        receiver.hears(50, one(&warning), true),
        ["member m1 warning"]
    );
    assert_eq!(receiver.hears(60, one(&warning), true), none);
    assert_eq!(receiver.hears(70, one(&critical), true), none);
    assert_eq!(
        receiver.hears(100, one(&critical), true),
        ["member m1 now critical"]
    );
    assert_eq!(receiver.hears(110, &[], true), none);
    assert_eq!(receiver.hears(120, one(&critical), true), none);
    assert_eq!(receiver.hears(130, &[], true), none);
    assert_eq!(receiver.hears(160, &[], true), ["member m1 ended"]);
    assert_eq!(receiver.hears(500, &[], true), none);
}

#[test]
fn what_nobody_could_look_at_has_not_ended() {
    let mut receiver = Receiver::new();
    let found = [
        member(Gravity::Critical),
        alert(Subject::Backup, Gravity::Critical),
    ];
    receiver.hears(0, &found, true);
    assert_eq!(receiver.hears(30, &found, true).len(), 2);
    let unseen = [alert(Subject::Look, Gravity::Unknown)];
    receiver.hears(40, &unseen, false);
    assert_eq!(
        receiver.hears(100, &unseen, false),
        ["backup ended", "look unknown"]
    );
    receiver.hears(110, &[], true);
    assert_eq!(
        receiver.hears(140, &[], true),
        ["member m1 ended", "look ended"]
    );
}

#[test]
fn a_start_ends_nothing_before_it_has_seen_it_for_a_while() {
    let mut receiver = Receiver::new();
    receiver.told.push(("backup".to_owned(), Gravity::Critical));
    let none: [&str; 0] = [];
    assert_eq!(receiver.hears(0, &[], true), none);
    assert_eq!(receiver.hears(29, &[], true), none);
    assert_eq!(receiver.hears(30, &[], true), ["backup ended"]);
}

#[test]
fn names_tell_alerts_apart_and_have_an_end() {
    let at = |seconds| DateTime::from_timestamp(seconds, 0).expect("a time");
    let names = [
        key(&Subject::Member("m1".to_owned())),
        key(&Subject::Member("m2".to_owned())),
        key(&Subject::Incident(at(1))),
        key(&Subject::Incident(at(2))),
        key(&Subject::Storage),
    ];
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
    let long = key(&Subject::Complaint("ä".repeat(10_000)));
    assert!(long.chars().count() <= MESSAGE_SUBJECT_CHARS_MAX + 1);
}

#[test]
fn a_message_is_the_form_that_is_documented() {
    let at: DateTime<Utc> = "2026-11-28T01:57:25Z".parse().expect("a time");
    let instance = InstanceData {
        id: id(),
        cluster: "local".to_owned(),
        plan: "Standard".to_owned(),
        engine: "etcd".to_owned(),
        version: "3.6.16".to_owned(),
        page: "https://broker.example.com/dashboard/instances/db".to_owned(),
    };
    let broker = "https://broker.example.com";
    let unknown = Message::opened(broker, instance.clone(), &member(Gravity::Warning), at);
    assert_eq!(unknown.data.alert.since, at);
    let since = Alert {
        since: Some(at),
        ..member(Gravity::Warning)
    };
    let opened = Message::opened(broker, instance.clone(), &since, at + HOLD);
    assert_eq!((opened.timestamp, opened.data.alert.since), (at + HOLD, at));
    let later = at + chrono::TimeDelta::minutes(3);
    let mut changed = Message::changed(&opened.data, instance, &member(Gravity::Critical), later);
    changed.id = "6b02d9ff5f753642a9b74cc9".parse().expect("an id");
    let page = include_str!("../../../docs/operating/webhook.md");
    let (_, example) = page.split_once("```json\n").expect("an example");
    let (example, _) = example.split_once("```").expect("its end");
    let example: serde_json::Value = serde_json::from_str(example).expect("JSON");
    assert_eq!(serde_json::to_value(&changed).expect("JSON"), example);
    let ended = Message::ended(changed.data.clone(), later);
    assert_eq!(ended.data.alert.severity, "critical");
    assert_eq!(ended.data.alert.previous_severity, None);
    assert_ne!(ended.id, changed.id);
}

proptest! {
    /// Whatever is seen, one who hears all messages knows what was seen for long.
    #[test]
    fn who_hears_all_messages_knows_what_has_been_so_for_long(
        looks in prop::collection::vec((0u8..4, prop::bool::ANY, 1u64..40), 1..60),
    ) {
        let mut receiver = Receiver::new();
        let mut second = 0;
        let found = |kind: u8| match kind {
            0 => Vec::new(),
            1 => vec![member(Gravity::Warning)],
            2 => vec![member(Gravity::Critical)],
            _ => vec![alert(Subject::Storage, Gravity::Warning), member(Gravity::Warning)],
        };
        for (kind, was_looked_at, pause) in &looks {
            second += pause;
            receiver.hears(second, &found(if *was_looked_at { *kind } else { 0 }), *was_looked_at);
        }
        let (kind, ..) = looks[looks.len() - 1];
        for _ in 0..2 {
            second += HOLD.as_secs();
            receiver.hears(second, &found(kind), true);
        }
        let seen: HashSet<_> = found(kind).iter().map(|a| (key(&a.subject), a.gravity)).collect();
        let told: HashSet<_> = receiver.told.into_iter().collect();
        prop_assert_eq!(told, seen);
    }
}
