//! What rules and pages know of an engine: its lines of versions, what may follow what, and the
//! known faults of each version. Values and pure functions; an engine hands its [`Profile`] out.
//!
//! A *line* is all versions of one major and minor number. A new line is one entry in its engine's
//! table: nothing here names a version.

use std::{collections::BTreeMap, fmt};

use super::{
    address::{self, Address},
    backup::SnapshotContent,
    deployment::{Deployment, Member},
    secret::Secret,
    server::EngineBinaries,
    version::{UpgradeRefusal, Version, VersionRefusal},
};

/// What is known of an engine.
#[derive(Debug)]
pub struct Profile {
    /// The engine's name, as in catalogs, manifests and folders.
    pub name: &'static str,
    /// How many members a deployment has.
    pub members: usize,
    /// As many of them must serve so that the database can be used.
    pub members_needed: usize,
    /// Most units of one instance; no more than [`UNITS_MAX`](super::limits::UNITS_MAX).
    pub units_max: u32,
    /// Disk that a member needs before it holds anything, in bytes.
    pub member_bytes_min: u64,
    /// What a member's log of changes has at most beside its database, in bytes.
    pub log_bytes_max: u64,
    /// The ports of each member.
    pub ports: &'static [Port],
    /// How its programs are recognised where they are installed.
    pub binaries: EngineBinaries,
    /// Its lines that are known well enough to be offered, oldest first, none left out between.
    pub lines: &'static [Line],
    /// Major and minor number of the line that new instances get whose user names no version.
    pub default_line: (u32, u32),
    /// Faults of versions, the gravest in front.
    pub advisories: &'static [Advisory],
    /// The advisory of versions that may damage data when they give unused storage back.
    pub unsound_giving_back: Option<&'static str>,
    /// What a snapshot is called as a file that is handed to the engine's programs.
    pub snapshot_file: &'static str,
    /// The figures of what a snapshot holds, in the order in which people are told of them.
    pub content: &'static [Figure],
    /// What people are told of what these figures count, in whole sentences.
    pub content_note: &'static str,
    /// Where applications find a member, as a URL without a login.
    pub url: fn(&Address) -> String,
    /// The same with a login, `user:password`.
    pub uri: fn(&Address, &str) -> String,
    /// A command line for people that shows the members at these URLs, as who logs in with
    /// `user:password`.
    pub command_line: fn(Version, &[String], &str) -> String,
    /// The file that is a member's database. Its length is never less than what the members call the
    /// database's size; what it has on the disk is that size, where the disk has no holes of its own.
    pub database_file: FilesOfMember,
    /// Where a member that is [checkpointing](Member::checkpointing) leaves its whole state, each time
    /// in a file of a later name.
    pub checkpoints: FilesOfMember,
    /// Whether a member that has ended tells by its last words that it cannot use what it kept, and
    /// never will. False for whatever may pass.
    pub tells_damage: fn(&str) -> bool,
    /// Whether clients that go on from what they saw in another database notice it in one of that version which
    /// was restored from it ([`RestoreSource::clients_notice`](super::operation::RestoreSource::clients_notice)).
    pub tells_clients: fn(Version) -> bool,
    /// Fails with the reason, for people, when a file that begins so is no snapshot of the engine.
    pub check_head: fn(&[u8]) -> Result<(), String>,
    /// What people are told before an upgrade that no member has an obstacle to.
    pub unobstructed: &'static str,
    /// Lines that a member printed, without what would let a reader of them in.
    pub without_secrets: fn(&str) -> String,
}

/// Files that an engine's member has, below its home.
#[derive(Debug, Clone, Copy)]
pub struct FilesOfMember {
    /// Their folder, seen from the member's home.
    pub folder: &'static str,
    /// Whether a file of that name is one.
    pub has: fn(&str) -> bool,
}

/// How applications reach a deployment as one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionStrings {
    /// One URI for each member; the first is the main one.
    pub uris: Vec<Secret>,
    /// A command line for people.
    pub cli: Secret,
}

/// A port that each member has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// Its name: addresses of members go by it.
    pub name: &'static str,
    /// Who connects to it.
    pub used_by: PortUser,
}

/// Who connects to a port of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortUser {
    /// Applications, from wherever the cluster lets them.
    Applications,
    /// The other members.
    Members,
    /// The broker, where applications must not be able to take all connections. Members that applications
    /// reach on the broker's machine alone may have none.
    Broker,
}

/// A figure of what a snapshot holds.
#[derive(Debug)]
pub struct Figure {
    /// Its name, as in manifests.
    pub name: &'static str,
    /// What it counts, many of them: `keys`.
    pub plural: &'static str,
    /// It grows with every change. Of two states of one database, the one that has more is newer.
    pub counts_changes: bool,
    /// The figure in words, from its value and from how that is written: `499 keys`.
    pub words: fn(i64, &str) -> String,
}

/// What is known of one line. Patches are counted within the line.
#[derive(Debug)]
pub struct Line {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// The first patch that is safe enough to be offered.
    pub offered_from: u32,
    /// The oldest line whose backups this one restores: major and minor number.
    pub restores_from: (u32, u32),
    /// What a deployment of the line before needs to come here in place; absent: there is no way.
    pub entry: Option<Entry>,
    /// The first patch that holds users to the role and the keys that they are given, whatever
    /// state the database is in; absent: none does.
    pub limits_users_from: Option<u32>,
    /// The first patch that goes on checking rights while the database is full; absent: none does,
    /// and the broker closes a database before it is full.
    pub full_is_safe_from: Option<u32>,
    /// The first patch that lets only the administrator say that the database is full; absent: in
    /// none, strangers may say so.
    pub alarms_guarded_from: Option<u32>,
    /// What members of this line are started with beside what all are started with.
    pub flags: &'static [&'static str],
}

/// How a deployment of the line before enters a line in place.
#[derive(Debug)]
pub struct Entry {
    /// The first patch of the line before that may be left.
    pub leaves_from: u32,
    /// Whether every member must have written its whole state down just before: what stands in its
    /// log from before cannot be read any more.
    pub checkpointed: bool,
    /// Whether there is a way back to the line before after all members have entered.
    pub has_way_back: bool,
}

/// A known fault of some versions.
#[derive(Debug)]
pub struct Advisory {
    /// Its public name: a CVE, or the engine's own number of it.
    pub id: &'static str,
    /// How grave it is.
    pub severity: Severity,
    /// What can happen, in one sentence.
    pub summary: &'static str,
    /// The versions that have it, by line.
    pub affected: &'static [Affected],
}

/// How grave a fault is; the gravest in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Strangers who reach a member get at data or users without a login.
    LetsStrangersIn,
    /// Users can do what they were not given, data is lost or wrong, or members fail.
    Serious,
    /// It takes an unusual use, or costs no more than time.
    Minor,
}

impl Severity {
    /// The word for it in interfaces for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LetsStrangersIn => "lets_strangers_in",
            Self::Serious => "serious",
            Self::Minor => "minor",
        }
    }

    /// The word for it in interfaces for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::LetsStrangersIn => "Lets strangers in",
            Self::Serious => "Serious",
            Self::Minor => "Minor",
        }
    }

    /// The one that interfaces for programs call so.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::LetsStrangersIn, Self::Serious, Self::Minor];
        all.into_iter().find(|severity| severity.as_str() == text)
    }
}

/// The versions of one line that have a fault.
#[derive(Debug)]
pub struct Affected {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// The first patch that has it.
    pub from: u32,
    /// The first patch without it; absent: the line never gets one.
    pub fixed: Option<u32>,
}

/// Patches of a line among which a sound one is looked for: more than any line has.
const PATCHES_LOOKED_AT: usize = 200;

/// Something that is in the way of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// What it is, in half a sentence for people.
    pub text: String,
    /// Whether the broker puts it right by setting the users as it made them.
    pub is_mended: bool,
}

/// A fault that a version has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownFault {
    /// Its public name.
    pub id: &'static str,
    /// How grave it is.
    pub severity: Severity,
    /// What can happen, in one sentence.
    pub summary: &'static str,
    /// The nearest version without it: of the same line, or else of the next one that has one; where
    /// a later line never had it, its first version without grave faults.
    pub fixed_in: Option<Version>,
}

impl fmt::Display for KnownFault {
    /// In one line for people, without a full stop.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.id, self.summary.trim_end_matches('.'))?;
        match self.fixed_in {
            Some(version) => write!(f, " (fixed in {version})"),
            None => f.write_str(" (not fixed)"),
        }
    }
}

/// How an instance gets to another version (Compose `versions`, field `method`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransitionMethod {
    /// By an update.
    InPlace,
    /// By a restore into a new instance.
    Restore,
}

impl TransitionMethod {
    /// Compose's name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InPlace => "in_place",
            Self::Restore => "restore",
        }
    }
}

/// A way from one version to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The version now.
    pub from: Version,
    /// The version that can be reached.
    pub to: Version,
    /// How.
    pub method: TransitionMethod,
}

impl Line {
    fn number(&self) -> (u32, u32) {
        (self.major, self.minor)
    }

    fn version(&self, patch: u32) -> Version {
        Version {
            major: self.major,
            minor: self.minor,
            patch,
        }
    }
}

impl Advisory {
    fn affects(&self, version: Version) -> bool {
        self.affected.iter().any(|affected| {
            (affected.major, affected.minor) == version.line()
                && version.patch >= affected.from
                && affected.fixed.is_none_or(|fixed| version.patch < fixed)
        })
    }
}

impl Profile {
    /// The addresses of a member whose ports are these on `host`, in the order of
    /// [`Profile::ports`].
    pub fn addresses(&self, host: &str, ports: &[u16]) -> BTreeMap<String, Address> {
        let names: Vec<&str> = self.ports.iter().map(|port| port.name).collect();
        address::by_name(host, &names, ports)
    }

    /// The name of the port that applications use.
    pub fn port_of_applications(&self) -> &'static str {
        let is_it = |port: &&Port| port.used_by == PortUser::Applications;
        let port = self.ports.iter().find(is_it);
        port.expect("every engine serves applications").name
    }

    /// Where applications find a member.
    pub fn entrance<'m>(&self, member: &'m Member) -> &'m Address {
        member.address(self.port_of_applications())
    }

    /// Whether strangers who reach a member of this version may get at data or users without a login.
    pub fn lets_strangers_in(&self, version: Version) -> bool {
        let lets_in = |a: &&Advisory| a.severity == Severity::LetsStrangersIn;
        let mut advisories = self.advisories.iter().filter(lets_in);
        advisories.any(|advisory| advisory.affects(version))
    }

    /// Whether others than programs on the broker's machine reach a member of a deployment.
    pub fn is_reached_from_elsewhere(&self, deployment: &Deployment) -> bool {
        let mut members = deployment.members.iter();
        members.any(|member| self.entrance(member).is_reached_from_elsewhere())
    }

    /// Where applications find the members of a deployment, in member order.
    pub fn urls(&self, deployment: &Deployment) -> Vec<String> {
        let members = deployment.members.iter();
        members.map(|m| (self.url)(self.entrance(m))).collect()
    }

    /// How to reach the members of a deployment, in member order, as who logs in with `user:password`.
    pub fn uris(&self, deployment: &Deployment, login: &str) -> Vec<String> {
        let members = deployment.members.iter();
        members
            .map(|m| (self.uri)(self.entrance(m), login))
            .collect()
    }

    /// How the user `name` reaches a deployment with its password.
    pub fn connection_strings(
        &self,
        deployment: &Deployment,
        name: &str,
        password: &Secret,
    ) -> ConnectionStrings {
        let login = format!("{name}:{}", password.expose());
        let uris = self.uris(deployment, &login).into_iter();
        let cli = (self.command_line)(deployment.version, &self.urls(deployment), &login);
        ConnectionStrings {
            uris: uris.map(Secret::new).collect(),
            cli: Secret::new(cli),
        }
    }

    /// What a snapshot holds, in words. `written`: how a number is written.
    pub fn content_in_words(
        &self,
        content: &SnapshotContent,
        written: impl Fn(i64) -> String,
    ) -> String {
        let told = self.content.iter().filter_map(|figure| {
            let value = content.get(figure.name)?;
            Some((figure.words)(value, &written(value)))
        });
        told.collect::<Vec<_>>().join(", ")
    }

    /// The figure that grows with every change; none: the engine has none.
    pub fn changes(&self) -> Option<&'static Figure> {
        let content: &'static [Figure] = self.content;
        content.iter().find(|figure| figure.counts_changes)
    }

    /// How many changes made what a snapshot holds; none where that is not told.
    pub fn changes_in(&self, content: &SnapshotContent) -> Option<i64> {
        content.get(self.changes()?.name)
    }

    /// The line of a version, if it is known.
    pub fn line(&self, version: Version) -> Option<&'static Line> {
        let lines: &'static [Line] = self.lines;
        lines.iter().find(|line| line.number() == version.line())
    }

    /// Whether a version may be offered at all.
    pub fn offers(&self, version: Version) -> bool {
        self.line(version)
            .is_some_and(|line| version.patch >= line.offered_from)
    }

    /// Whether a version holds users to the role and the keys that they are given.
    pub fn limits_users(&self, version: Version) -> bool {
        let since = self.line(version).and_then(|line| line.limits_users_from);
        since.is_some_and(|since| version.patch >= since)
    }

    /// The versions among `available` that hold users to what they are given, oldest first.
    pub fn limiting(&self, available: &[Version]) -> Vec<Version> {
        let mut found: Vec<Version> = available.to_vec();
        found.retain(|version| self.limits_users(*version));
        found.sort();
        found
    }

    /// Whether a version goes on checking rights while the database is full.
    pub fn full_is_safe(&self, version: Version) -> bool {
        let since = self.line(version).and_then(|line| line.full_is_safe_from);
        since.is_some_and(|since| version.patch >= since)
    }

    /// Whether giving unused storage back cannot damage a version's data.
    pub fn gives_back_soundly(&self, version: Version) -> bool {
        let is_it = |advisory: &&Advisory| Some(advisory.id) == self.unsound_giving_back;
        let unsound = self.advisories.iter().find(is_it);
        !unsound.is_some_and(|advisory| advisory.affects(version))
    }

    /// Whether somebody without a login may say that the database is full.
    pub fn strangers_say_full(&self, version: Version) -> bool {
        let since = self.line(version).and_then(|line| line.alarms_guarded_from);
        since.is_none_or(|since| version.patch < since)
    }

    /// The known faults of a version, the gravest in front.
    pub fn known_faults(&self, version: Version) -> Vec<KnownFault> {
        let affecting = self.advisories.iter().filter(|a| a.affects(version));
        let fault = |advisory: &Advisory| KnownFault {
            id: advisory.id,
            severity: advisory.severity,
            summary: advisory.summary,
            fixed_in: self.fix(advisory, version),
        };
        affecting.map(fault).collect()
    }

    /// The first version of a line without faults that are grave.
    fn first_sound(&self, line: &Line) -> Option<Version> {
        let mut patches = (line.offered_from..).take(PATCHES_LOOKED_AT);
        let sound = patches.find(|patch| {
            let version = line.version(*patch);
            let affecting = self.advisories.iter().filter(|a| a.affects(version));
            affecting.map(|a| a.severity).all(|s| s == Severity::Minor)
        });
        sound.map(|patch| line.version(patch))
    }

    /// The nearest version from `version` on that does not have the fault.
    fn fix(&self, advisory: &Advisory, version: Version) -> Option<Version> {
        let lines = self.lines.iter();
        let from_here_on = lines.filter(|line| line.number() >= version.line());
        from_here_on
            .filter_map(|line| {
                let affected = advisory
                    .affected
                    .iter()
                    .find(|affected| (affected.major, affected.minor) == line.number());
                match affected {
                    None => self.first_sound(line),
                    Some(affected) => affected.fixed.map(|patch| line.version(patch)),
                }
            })
            .find(|fixed| *fixed > version)
    }

    /// The version of a new, empty instance: `wanted`, or the newest of the default line, or else
    /// the newest that there is.
    pub fn for_new(
        &self,
        wanted: Option<&str>,
        available: &[Version],
    ) -> Result<Version, VersionRefusal> {
        if let Some(wanted) = wanted {
            return find(wanted, available);
        }
        let of_default_line = available.iter().filter(|v| v.line() == self.default_line);
        of_default_line
            .max()
            .or(available.iter().max())
            .copied()
            .ok_or(VersionRefusal::NoneAvailable)
    }

    /// The version of an instance that is made from a backup of `backup`: `wanted`, or the newest
    /// patch of the backup's own line.
    pub fn for_restore(
        &self,
        backup: Version,
        wanted: Option<&str>,
        available: &[Version],
    ) -> Result<Version, VersionRefusal> {
        let Some(wanted) = wanted else {
            return available
                .iter()
                .filter(|v| v.same_line(&backup) && **v >= backup)
                .max()
                .copied()
                .ok_or_else(|| VersionRefusal::LineGone {
                    backup,
                    available: self.restoring(backup, available),
                });
        };
        let wanted = find(wanted, available)?;
        if wanted < backup {
            return Err(VersionRefusal::OlderThanBackup {
                wanted,
                backup,
                available: self.restoring(backup, available),
            });
        }
        if !self.restores(backup, wanted) {
            return Err(VersionRefusal::TooFar {
                wanted,
                backup,
                available: self.restoring(backup, available),
            });
        }
        Ok(wanted)
    }

    /// The versions that a backup can be restored into, for people.
    fn restoring(&self, backup: Version, available: &[Version]) -> String {
        let fit = |version: &&Version| self.restores(backup, **version);
        let fitting: Vec<Version> = available.iter().filter(fit).copied().collect();
        list(&fitting)
    }

    /// Whether a backup of `from` can be restored into `to`.
    pub fn restores(&self, from: Version, to: Version) -> bool {
        let reaches = |line: &Line| line.restores_from <= from.line();
        to >= from && self.line(to).is_some_and(reaches)
    }

    /// The line that comes after another, by number.
    fn line_after(&self, line: (u32, u32)) -> Option<(u32, u32)> {
        let mut numbers = self.lines.iter().map(Line::number);
        numbers.find(|number| *number > line)
    }

    /// The version that an update asks for by name; it must be available.
    pub fn for_upgrade(
        &self,
        wanted: &str,
        available: &[Version],
    ) -> Result<Version, VersionRefusal> {
        find(wanted, available)
    }

    /// The versions that a deployment of `current` runs one after the other on its way to `wanted`,
    /// which is the last of them: one line at a time, each through the newest version that is
    /// available of it; of its own line too, where what it runs may not leave it. None when it is
    /// there already.
    pub fn hops(
        &self,
        current: Version,
        wanted: Version,
        available: &[Version],
    ) -> Result<Vec<Version>, UpgradeRefusal> {
        if wanted < current {
            return Err(UpgradeRefusal::Older { wanted, current });
        }
        let newest = |line: (u32, u32)| {
            let of_line = available.iter().filter(|v| v.line() == line);
            of_line.max().copied()
        };
        let mut path = Vec::new();
        let mut at = current;
        while at.line() < wanted.line() {
            let next = self
                .line_after(at.line())
                .ok_or(UpgradeRefusal::NoWay { wanted, current })?;
            let to = if next == wanted.line() {
                Some(wanted)
            } else {
                newest(next)
            };
            let to = to.ok_or(UpgradeRefusal::LineMissing {
                wanted,
                current,
                major: next.0,
                minor: next.1,
            })?;
            let entry = self.line(to).and_then(|line| line.entry.as_ref());
            let entry = entry.ok_or(UpgradeRefusal::NoWay { wanted, current })?;
            if at.patch < entry.leaves_from {
                let leaves_from = Version {
                    patch: entry.leaves_from,
                    ..at
                };
                let stop = newest(at.line()).filter(|stop| *stop >= leaves_from);
                path.push(stop.ok_or(UpgradeRefusal::TooOldToLeave {
                    wanted,
                    current,
                    leaves_from,
                })?);
            }
            path.push(to);
            at = to;
        }
        if at != wanted {
            path.push(wanted);
        }
        Ok(path)
    }

    /// How members that run `from` enter the line of `to`; none when it is their own.
    pub fn entry(&self, from: Version, to: Version) -> Option<&'static Entry> {
        let enters = !from.same_line(&to);
        let line = self.line(to).filter(|_| enters)?;
        line.entry.as_ref()
    }

    /// Whether every member must have written its whole state down before it goes from one version
    /// to another.
    pub fn checkpoints(&self, from: Version, to: Version) -> bool {
        self.entry(from, to).is_some_and(|entry| entry.checkpointed)
    }

    /// The ways to newer versions that an instance of `from` has, by version, oldest first.
    pub fn transitions(&self, from: Version, available: &[Version]) -> Vec<Transition> {
        let mut newer: Vec<Version> = available.iter().filter(|v| **v > from).copied().collect();
        newer.sort();
        newer.dedup();
        let ways = |to: Version| {
            let in_place = self.hops(from, to, available).is_ok();
            let restore = self.restores(from, to);
            [
                in_place.then_some(TransitionMethod::InPlace),
                restore.then_some(TransitionMethod::Restore),
            ]
            .into_iter()
            .flatten()
            .map(move |method| Transition { from, to, method })
        };
        newer.into_iter().flat_map(ways).collect()
    }
}

/// Whether a version is the one to take of its line: the newest of those that are available.
pub fn is_preferred<'a>(
    version: &Version,
    available: impl IntoIterator<Item = &'a Version>,
) -> bool {
    let newer = |other: &Version| other.same_line(version) && other > version;
    !available.into_iter().any(newer)
}

fn find(wanted: &str, available: &[Version]) -> Result<Version, VersionRefusal> {
    let unknown = || VersionRefusal::Unknown {
        wanted: wanted.to_owned(),
        available: list(available),
    };
    let version: Version = wanted.parse().map_err(|_| unknown())?;
    if available.contains(&version) {
        Ok(version)
    } else {
        Err(unknown())
    }
}

/// Versions for people, newest first; empty where there are none.
pub fn list(available: &[Version]) -> String {
    let mut sorted = available.to_vec();
    sorted.sort_by(|a, b| b.cmp(a));
    let texts: Vec<String> = sorted.iter().map(Version::to_string).collect();
    texts.join(", ")
}

#[cfg(test)]
pub(crate) mod tests;
