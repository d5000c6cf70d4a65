//! What a cluster shows of its members to applications, and which versions are served there.
//!
//! Invariant: a version that lets strangers in is served beyond the broker's machine only where the
//! operator names it.

use std::{collections::BTreeSet, fmt};

use serde::Deserialize;

use super::{
    deployment::Deployment,
    engine::{Profile, Severity, list},
    reach::Reach,
    version::{Version, VersionError},
};

/// What a cluster shows of its members to applications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// Where applications reach them.
    pub reach: Reach,
    /// Versions that let strangers in and are served there all the same.
    pub versions: BTreeSet<ExposedVersion>,
}

impl Default for Exposure {
    fn default() -> Self {
        Self {
            reach: Reach::loopback(),
            versions: BTreeSet::new(),
        }
    }
}

impl Exposure {
    /// Whether members of a version may be reached beyond the broker's machine.
    pub fn serves(&self, profile: &Profile, version: Version) -> bool {
        let named = |of: &ExposedVersion| of.engine == profile.name && of.version == version;
        self.reach.is_loopback()
            || !profile.lets_strangers_in(version)
            || self.versions.iter().any(named)
    }

    /// Whether one of the versions that the members of a deployment run must not be reached from elsewhere,
    /// though those of its cluster are.
    pub fn withholds(&self, profile: &Profile, deployment: &Deployment) -> bool {
        let members = deployment.members.iter();
        let mut versions = members.map(|member| deployment.shape_of(member).version);
        !self.serves(profile, deployment.version)
            || versions.any(|version| !self.serves(profile, version))
    }

    /// Who reaches a deployment that must not be reached from elsewhere; none of one that may be.
    pub fn withheld(&self, profile: &Profile, deployment: &Deployment) -> Option<Withheld> {
        if !self.withholds(profile, deployment) {
            return None;
        }
        Some(match profile.is_reached_from_elsewhere(deployment) {
            true => Withheld::Exposed,
            false => Withheld::Kept,
        })
    }

    /// Where applications reach the members of a deployment: on the broker's machine alone while one
    /// of the versions that they run must not be reached from elsewhere.
    pub fn reach_of(&self, profile: &Profile, deployment: &Deployment) -> Reach {
        match self.withholds(profile, deployment) {
            true => Reach::loopback(),
            false => self.reach.clone(),
        }
    }

    /// Those of `available` that may be reached where the cluster's members are.
    pub fn served(&self, profile: &Profile, available: &[Version]) -> Vec<Version> {
        let versions = available.iter().copied();
        versions
            .filter(|version| self.serves(profile, *version))
            .collect()
    }

    /// Fails when members of a version may not be reached where the cluster's are. `instead`: what could
    /// be had in its place.
    pub fn check(
        &self,
        profile: &Profile,
        version: Version,
        instead: &[Version],
    ) -> Result<(), ExposureRefusal> {
        if self.serves(profile, version) {
            return Ok(());
        }
        let faults = profile.known_faults(version).into_iter();
        let faults = faults.filter(|fault| fault.severity == Severity::LetsStrangersIn);
        let faults: Vec<&str> = faults.map(|fault| fault.id).collect();
        let lets_nobody_in = |version: &&Version| !profile.lets_strangers_in(**version);
        let without: Vec<Version> = instead.iter().filter(lets_nobody_in).copied().collect();
        Err(ExposureRefusal {
            engine: profile.name,
            version,
            faults: faults.join(", "),
            advice: advice(&without),
        })
    }
}

/// Who reaches a deployment whose version lets strangers in, on a cluster whose members are reached from
/// other machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withheld {
    /// Programs on the broker's machine alone.
    Kept,
    /// Other machines as well, until its members are moved.
    Exposed,
}

/// A version is not served where the cluster's members are reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{engine} {version} has faults that let strangers in without a login ({faults}), and \
     members of this cluster are reached from other machines; {advice}"
)]
pub struct ExposureRefusal {
    engine: &'static str,
    version: Version,
    faults: String,
    advice: String,
}

/// What to do, where these versions could be had in its place.
fn advice(instead: &[Version]) -> String {
    if instead.is_empty() {
        return "no version that could take its place here is without them: ask the operator to \
                install one"
            .to_owned();
    }
    let instead = list(instead);
    format!("choose a db_version without them, one of: {instead}")
}

/// A version of an engine that an operator names: the engine's name, a space, the version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct ExposedVersion {
    /// The engine's name.
    pub engine: String,
    /// The version.
    pub version: Version,
}

impl fmt::Display for ExposedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.engine, self.version)
    }
}

/// A text names no version of an engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExposedVersionError {
    /// There is no engine in front.
    #[error("{0:?} is not an engine and a version of it, with a space in between")]
    NoEngine(String),
    /// There is no version behind it.
    #[error(transparent)]
    NoVersion(#[from] VersionError),
}

impl std::str::FromStr for ExposedVersion {
    type Err = ExposedVersionError;

    fn from_str(text: &str) -> Result<Self, ExposedVersionError> {
        let no_engine = || ExposedVersionError::NoEngine(text.to_owned());
        let (engine, version) = text.trim().split_once(' ').ok_or_else(no_engine)?;
        Ok(Self {
            engine: engine.to_owned(),
            version: version.trim().parse()?,
        })
    }
}

impl TryFrom<String> for ExposedVersion {
    type Error = ExposedVersionError;

    fn try_from(text: String) -> Result<Self, ExposedVersionError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        address::Address,
        deployment::{Member, Membership, Shape},
        engine::tests::ENGINE,
    };

    #[test]
    fn versions_are_named_with_their_engine() {
        let named: ExposedVersion = "sample 3.5.35".parse().expect("a version");
        assert_eq!(named.to_string(), "sample 3.5.35");
        for bad in ["", "sample", "3.5.35", "sample 3.5"] {
            assert!(bad.parse::<ExposedVersion>().is_err(), "{bad}");
        }
    }

    fn v(text: &str) -> Version {
        text.parse().expect("a version")
    }

    /// The made-up engine's 3.4.2 and later let strangers in.
    const FAULTY: [&str; 2] = ["3.4.2", "3.4.9"];

    fn exposed(listen: &str, host: &str, named: &[&str]) -> Exposure {
        let named = named.iter().map(|text| text.parse().expect("a version"));
        Exposure {
            reach: Reach {
                listen: listen.parse().expect("an address"),
                host: host.to_owned(),
            },
            versions: named.collect(),
        }
    }

    #[test]
    fn versions_that_let_strangers_in_are_served_beyond_loopback_where_they_are_named_alone() {
        let near = exposed("127.0.0.1", "localhost", &[]);
        let far = exposed("0.0.0.0", "db.example", &[]);
        let named = exposed("0.0.0.0", "db.example", &["sample 3.4.2", "other 3.4.9"]);
        for version in ["3.1.5", "3.4.1"] {
            for of in [&near, &far, &named] {
                assert!(of.serves(&ENGINE, v(version)), "{version}");
            }
        }
        for version in FAULTY {
            assert!(near.serves(&ENGINE, v(version)), "{version}");
            assert!(!far.serves(&ENGINE, v(version)), "{version}");
            assert_eq!(named.serves(&ENGINE, v(version)), version == "3.4.2");
        }
        // A version that is named is served, and is none without them.
        let all = [v("3.4.9"), v("3.4.2"), v("3.4.1"), v("3.3.6")];
        let refusal = named.check(&ENGINE, v("3.4.9"), &all).expect_err("refused");
        let refusal = refusal.to_string();
        assert!(refusal.ends_with("one of: 3.4.1, 3.3.6"), "{refusal}");
        let refusal = far.check(&ENGINE, v("3.4.9"), &all).expect_err("refused");
        let refusal = refusal.to_string();
        assert!(refusal.contains("sample 3.4.9"), "{refusal}");
        assert!(refusal.contains("(open)"), "{refusal}");
        assert!(refusal.ends_with("one of: 3.4.1, 3.3.6"), "{refusal}");
        for none in [&all[..1], &[]] {
            let refusal = far.check(&ENGINE, v("3.4.9"), none).expect_err("refused");
            let refusal = refusal.to_string();
            assert!(
                refusal.ends_with("ask the operator to install one"),
                "{refusal}"
            );
            assert!(!refusal.contains("none"), "{refusal}");
        }
    }

    /// A deployment whose members applications reach so.
    fn moved(to: &Reach, mut deployment: Deployment) -> Deployment {
        for address in deployment
            .members
            .iter_mut()
            .flat_map(|m| m.addresses.values_mut())
        {
            *address = Address::bound_at(to.listen, &to.host, address.port);
        }
        deployment
    }

    #[test]
    fn a_deployment_stays_on_loopback_while_one_of_its_members_lets_strangers_in() {
        let far = exposed("0.0.0.0", "db.example", &[]);
        let member = |version: Option<&str>| Member {
            name: "m0".to_owned(),
            addresses: ENGINE.addresses("127.0.0.1", &[1]),
            shape: version.map(|version| Shape {
                version: v(version),
                units: 1,
            }),
            checkpointing: false,
            membership: Membership::Joined,
        };
        let deployment = |version: &str, members: &[Option<&str>]| Deployment {
            id: "5ae85b45e5717f0001533192".parse().expect("an id"),
            instance: "instance".parse().expect("an id"),
            cluster: "here".to_owned(),
            engine: ENGINE.name.to_owned(),
            version: v(version),
            units: 1,
            members: members.iter().copied().map(member).collect(),
            name: "a-deployment".to_owned(),
            closed_since: None,
        };
        for (version, members, is_reached) in [
            ("3.4.1", [None, None], true),
            ("3.4.2", [None, None], false),
            ("3.4.1", [None, Some("3.4.2")], false),
            ("3.4.2", [Some("3.4.1"), Some("3.4.1")], false),
        ] {
            let reach = far.reach_of(&ENGINE, &deployment(version, &members));
            assert_eq!(reach == far.reach, is_reached, "{version} {members:?}");
            assert_eq!(reach == Reach::loopback(), !is_reached);
            // What counts is where its members are, not where they should be.
            let here = deployment(version, &members);
            let there = moved(&far.reach, here.clone());
            let withheld = [here, there].map(|of| far.withheld(&ENGINE, &of));
            match is_reached {
                true => assert_eq!(withheld, [None, None]),
                false => assert_eq!(withheld, [Some(Withheld::Kept), Some(Withheld::Exposed)]),
            }
        }
    }
}
