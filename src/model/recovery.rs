//! A database whose majority is lost: what it can be made of again, and what is lost by that. Pure:
//! the caller brings what was seen.

use chrono::{DateTime, SecondsFormat, Utc};

use super::{
    backup::{Manifest, SnapshotContent},
    engine::Profile,
    ids::BackupId,
};

/// What operators are told of a database that lacks members, beside what its users are told.
pub fn for_operators(instance: &str) -> String {
    format!(
        "For operators: compose-broker recover {instance} --from survivor says what can bring it back, and what that \
         loses; see docs/operating/recovery.md."
    )
}

/// What an operator wants a database made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoverFrom {
    /// What a member still has; without a name, the one that knows most.
    Survivor(Option<String>),
    /// A backup; without an id, the newest.
    Backup(Option<BackupId>),
}

/// A member as its process and its disk tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remains {
    /// Its name.
    pub member: String,
    /// It follows a leader, or is it.
    pub serves: bool,
    /// What it still has; none: its data is gone.
    pub data: Option<DataLeft>,
}

/// What a member still has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataLeft {
    /// What is in it; empty where that could not be read in time.
    pub content: SnapshotContent,
    /// When it was written to last.
    pub written_at: DateTime<Utc>,
}

/// What a database is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoverySource {
    /// What this member has.
    Survivor(String),
    /// What this backup has.
    Backup(Box<Manifest>),
}

/// What a recovery would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// What the database would be made of, or why there is none, in a sentence.
    pub source: Result<RecoverySource, String>,
    /// What it would hold, as far as that is known.
    pub content: SnapshotContent,
    /// The moment that it would be of.
    pub of: Option<DateTime<Utc>>,
    /// What is lost by it and what else to think of, in sentences.
    pub lost: Vec<String>,
    /// The members as they are.
    pub members: Vec<Remains>,
}

impl Recovery {
    /// Whether as many members serve as are `needed`, so that there is nothing to recover.
    pub fn is_idle(members: &[Remains], needed: usize) -> bool {
        members.iter().filter(|m| m.serves).count() >= needed
    }

    /// What a recovery of a database of the engine `profile` would do now. `backups`: the complete
    /// ones, newest first.
    pub fn plan(
        profile: &Profile,
        wanted: &RecoverFrom,
        members: Vec<Remains>,
        backups: &[Manifest],
        now: DateTime<Utc>,
    ) -> Self {
        let mut plan = Self {
            source: Err(String::new()),
            content: SnapshotContent::default(),
            of: None,
            lost: Vec::new(),
            members,
        };
        if Self::is_idle(&plan.members, profile.members_needed) {
            let text = "Enough members serve: there is nothing to recover. One that does not is \
                        replaced, not recovered from.";
            plan.source = Err(text.to_owned());
            return plan;
        }
        match wanted {
            RecoverFrom::Survivor(name) => plan.of_survivor(profile, name.as_deref(), backups),
            RecoverFrom::Backup(id) => plan.of_backup(profile, id.as_ref(), backups, now),
        }
        if plan.source.is_ok() {
            plan.note_others(profile.members_needed);
        }
        plan
    }

    fn best(&self, profile: &Profile) -> Option<(&Remains, &DataLeft)> {
        let left = self.members.iter();
        let left = left.filter_map(|member| Some((member, member.data.as_ref()?)));
        left.max_by_key(|(_, data)| (profile.changes_in(&data.content), data.written_at))
    }

    fn of_survivor(&mut self, profile: &Profile, name: Option<&str>, backups: &[Manifest]) {
        let chosen = match name {
            None => self.best(profile),
            Some(name) => {
                let found = self.members.iter().find(|m| m.member == name);
                let Some(found) = found else {
                    self.source = Err(format!("There is no member {name:?}."));
                    return;
                };
                found.data.as_ref().map(|data| (found, data))
            }
        };
        let Some((member, data)) = chosen else {
            self.source = Err(match name {
                Some(name) => format!("Member {name} has lost its data."),
                None => "No member has its data any more: use a backup.".to_owned(),
            });
            return;
        };
        let (member, data) = (member.member.clone(), data.clone());
        let (at, has) = (
            time(data.written_at),
            content_in_words(profile, &data.content),
        );
        self.lost = vec![
            format!("The database becomes what {member} has: {has}, written last at {at}."),
            format!("What was written later than that, or never reached {member}, is lost."),
        ];
        if let Some(backup) = backups.first() {
            self.lost.push(format!(
                "The newest backup is of {}: {}.",
                time(backup.started_at),
                content_in_words(profile, &backup.content)
            ));
        }
        (self.content, self.of) = (data.content, Some(data.written_at));
        self.source = Ok(RecoverySource::Survivor(member));
    }

    fn of_backup(
        &mut self,
        profile: &Profile,
        id: Option<&BackupId>,
        backups: &[Manifest],
        now: DateTime<Utc>,
    ) {
        let wanted = |backup: &&Manifest| id.is_none_or(|id| backup.backup_id == *id);
        let Some(backup) = backups.iter().find(wanted) else {
            self.source = Err(match id {
                Some(id) => format!("There is no complete backup {id} of it."),
                None => "There is no complete backup of it.".to_owned(),
            });
            return;
        };
        if let Some(recipient) = backup.recipient() {
            self.source = Err(for_tenant(backup, recipient, backups));
            return;
        }
        let (content, at) = (&backup.content, backup.started_at);
        let minutes = (now - at).num_minutes().max(0);
        self.lost = vec![
            format!(
                "The database becomes what it was at {}: {}.",
                time(at),
                content_in_words(profile, content)
            ),
            format!("What was written since then is lost: {minutes} minutes."),
        ];
        if let Some((member, data)) = self.best(profile) {
            let known = more(profile, &data.content, content);
            let (member, at) = (&member.member, time(data.written_at));
            self.lost.push(format!(
                "Member {member} has {known}, written last at {at}: it can be recovered from, too."
            ));
        }
        (self.content, self.of) = (content.clone(), Some(at));
        self.source = Ok(RecoverySource::Backup(Box::new(backup.clone())));
    }

    fn note_others(&mut self, needed: usize) {
        let chosen = match &self.source {
            Ok(RecoverySource::Survivor(member)) => Some(member.clone()),
            _ => None,
        };
        let left = self.members.iter().filter(|m| m.data.is_some());
        let left: Vec<&str> = left
            .map(|m| m.member.as_str())
            .filter(|name| Some(*name) != chosen.as_deref())
            .collect();
        let could_serve = left.len() + usize::from(chosen.is_some());
        if could_serve >= needed {
            self.lost.push(format!(
                "Enough members still have their data ({} too): if they can be brought back, nothing \
                 is lost, and nothing has to be recovered.",
                left.join(", ")
            ));
        }
        self.lost.push(
            "What the members have now is kept aside on their disk. Users, passwords and addresses \
             stay as they are."
                .to_owned(),
        );
    }
}

/// Why nothing is recovered from a backup that is sealed for the key of its tenant.
fn for_tenant(backup: &Manifest, recipient: &str, backups: &[Manifest]) -> String {
    let opens = backups.iter().find(|other| other.recipient().is_none());
    let instead = opens.map_or_else(
        || "There is no other one that the broker opens.".to_owned(),
        |other| {
            let (id, at) = (&other.backup_id, time(other.started_at));
            format!("The newest one that the broker opens is {id}, of {at}.")
        },
    );
    format!(
        "Backup {} is sealed for the key {recipient} of its tenant, and the broker cannot open it: its owner restores \
         it into a new instance, with the private key. {instead}",
        backup.backup_id
    )
}

fn content_in_words(profile: &Profile, content: &SnapshotContent) -> String {
    let words = profile.content_in_words(content, |number| number.to_string());
    if words.is_empty() {
        return "a state that could not be read".to_owned();
    }
    words
}

/// How much more there is in `found` than in `other`.
fn more(profile: &Profile, found: &SnapshotContent, other: &SnapshotContent) -> String {
    let known = profile.changes().and_then(|figure| {
        let (found, other) = (found.get(figure.name)?, other.get(figure.name)?);
        let more = found.saturating_sub(other).max(0);
        Some(format!("{more} {} more", figure.plural))
    });
    known.unwrap_or_else(|| "perhaps more".to_owned())
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use serde_json::json;

    use super::*;
    use crate::model::{backup::SealedFor, engine::tests::ENGINE};

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes)
    }

    fn member(name: &str, revision: Option<i64>) -> Remains {
        Remains {
            member: name.to_owned(),
            serves: false,
            data: revision.map(|revision| DataLeft {
                content: [("steps", revision)].into(),
                written_at: at(50),
            }),
        }
    }

    fn backup(revision: i64, minutes: i64) -> Manifest {
        let id = format!("{revision:024x}");
        serde_json::from_value(json!({
            "format": 1, "backup_id": id, "kind": "on_demand", "instance_id": "i",
            "deployment_id": id, "service_id": "s",
            "tenant": { "platform": "p", "organization": "o", "space": "s" },
            "engine": "thing", "version": "3.6.16", "units": 1,
            "content": { "steps": revision, "things": 3 },
            "stored": { "snapshot_bytes": 1, "snapshot_sha256": "", "object_bytes": 1,
                "object_sha256": "", "compression": "zstd" },
            "requested_at": at(minutes), "started_at": at(minutes), "finished_at": at(minutes),
        }))
        .expect("a manifest")
    }

    fn plan(wanted: &RecoverFrom, members: &[Remains], backups: &[Manifest]) -> Recovery {
        Recovery::plan(&ENGINE, wanted, members.to_vec(), backups, at(60))
    }

    const SURVIVOR: RecoverFrom = RecoverFrom::Survivor(None);
    const BACKUP: RecoverFrom = RecoverFrom::Backup(None);

    #[test]
    fn a_majority_that_serves_is_left_alone() {
        let mut members = [
            member("m0", Some(9)),
            member("m1", Some(9)),
            member("m2", None),
        ];
        members[0].serves = true;
        members[1].serves = true;
        for wanted in [SURVIVOR, BACKUP] {
            assert!(plan(&wanted, &members, &[backup(5, 30)]).source.is_err());
        }
        members[1].serves = false;
        assert!(plan(&SURVIVOR, &members, &[]).source.is_ok());
    }

    #[test]
    fn a_backup_that_is_sealed_for_its_tenant_is_left_to_that() {
        let sealed = Manifest {
            sealed_for: Some(SealedFor {
                recipient: "age1own".to_owned(),
                header: String::new(),
            }),
            ..backup(9, 50)
        };
        let none = [member("m0", None), member("m1", None), member("m2", None)];
        let refused = plan(&BACKUP, &none, &[sealed.clone(), backup(5, 30)]).source;
        let refused = refused.expect_err("refused");
        assert!(refused.contains("age1own"), "{refused}");
        let open = backup(5, 30).backup_id;
        assert!(refused.contains(&format!("opens is {open}")), "{refused}");
        let alone = plan(&BACKUP, &none, &[sealed]).source.expect_err("refused");
        assert!(alone.contains("There is no other one"), "{alone}");
    }

    #[test]
    fn the_survivor_that_knows_most_is_taken_unless_one_is_named() {
        let members = [
            member("m0", Some(7)),
            member("m1", Some(9)),
            member("m2", None),
        ];
        let best = plan(&SURVIVOR, &members, &[]);
        assert_eq!(best.source, Ok(RecoverySource::Survivor("m1".to_owned())));
        assert_eq!(best.content.get("steps"), Some(9));
        assert!(
            best.lost[0].contains("has: step 9, written"),
            "{:?}",
            best.lost
        );
        assert!(best.lost.iter().any(|text| text.contains("m0 too")));
        let named = RecoverFrom::Survivor(Some("m0".to_owned()));
        assert_eq!(plan(&named, &members, &[]).content.get("steps"), Some(7));
        for name in ["m2", "m3"] {
            let wanted = RecoverFrom::Survivor(Some(name.to_owned()));
            assert!(plan(&wanted, &members, &[]).source.is_err(), "{name}");
        }
        let none = ["m0", "m1", "m2"].map(|name| member(name, None));
        assert!(plan(&SURVIVOR, &none, &[backup(5, 30)]).source.is_err());
    }

    #[test]
    fn a_backup_tells_what_it_lacks() {
        let members = [
            member("m0", Some(9)),
            member("m1", None),
            member("m2", None),
        ];
        let backups = [backup(5, 30), backup(2, 10)];
        let newest = plan(&BACKUP, &members, &backups);
        assert_eq!(newest.content.get("steps"), Some(5));
        let lost = newest.lost.join(" ");
        assert!(lost.contains("30 minutes"), "{lost}");
        assert!(lost.contains("m0 has 4 steps more"), "{lost}");
        assert!(!lost.contains("Enough members still have"), "{lost}");
        let older = RecoverFrom::Backup(Some(backups[1].backup_id.clone()));
        let of_older = plan(&older, &members, &backups).content;
        assert_eq!(of_older, [("steps", 2), ("things", 3)].into());
        assert!(plan(&BACKUP, &members, &[]).source.is_err());
        assert!(plan(&older, &members, &backups[..1]).source.is_err());
    }
}
