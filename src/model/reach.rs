//! Where applications reach the members of a cluster, and which versions are served there.
//!
//! Members and the broker reach members by loopback, whatever applications do. Invariant: a version
//! that lets strangers in is served beyond the broker's machine only where the operator names it.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use serde::Deserialize;

use super::{
    address::Address,
    deployment::{Deployment, Member},
    engine::{Port, PortUser, Profile, Severity, list},
    version::{Version, VersionError},
};

/// The longest name of a host (RFC 1035), in bytes.
const HOST_BYTES_MAX: usize = 253;
/// The longest part of one between two dots.
const LABEL_BYTES_MAX: usize = 63;

/// Where applications reach members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The address that members bind for applications: one of the broker's machine, or all of them.
    pub listen: IpAddr,
    /// The name or address by which applications find it, without brackets.
    pub host: String,
}

impl Reach {
    /// Programs on the broker's machine alone.
    pub fn loopback() -> Self {
        let listen = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            listen,
            host: listen.to_string(),
        }
    }

    /// What leads to an address.
    pub fn of(address: &Address) -> Self {
        Self {
            listen: address.binds().ip(),
            host: address.host.clone(),
        }
    }

    /// Whether nobody but programs on the broker's machine finds members there.
    pub fn is_loopback(&self) -> bool {
        let host: Result<IpAddr, _> = self.host.parse();
        let is_local = host.map_or(self.host == "localhost", |host| host.is_loopback());
        self.listen.is_loopback() && is_local
    }

    /// Whether the broker needs a port of its own at each member: where others may take all
    /// connections of the port for applications, and where the host may be a name that the broker's
    /// machine does not know.
    pub fn keeps_broker_apart(&self) -> bool {
        !self.listen.is_loopback() || self.host != self.listen.to_string()
    }

    /// Where applications reach this port of a member.
    pub fn address(&self, port: u16) -> Address {
        let plain = Self::loopback() == *self;
        Address {
            host: self.host.clone(),
            port,
            listen: (!plain).then_some(self.listen),
        }
    }

    /// Whether applications reach a member so, and it has all the ports that this asks for.
    pub fn is_of(&self, member: &Member, profile: &Profile) -> bool {
        let entrance = profile.entrance(member);
        let needs = |port: &&Port| port.used_by == PortUser::Broker && self.keeps_broker_apart();
        let mut needed = profile.ports.iter().filter(needs);
        *entrance == self.address(entrance.port) && needed.all(|port| member.has_port(port.name))
    }

    /// The deployment with its members where applications reach them so. Ports stay.
    #[must_use]
    pub fn applied_to(&self, mut deployment: Deployment, profile: &Profile) -> Deployment {
        let name = profile.port_of_applications();
        for member in &mut deployment.members {
            if let Some(address) = member.addresses.get_mut(name) {
                *address = self.address(address.port);
            }
        }
        deployment
    }
}

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

    /// Where applications reach the members of a deployment: on the broker's machine alone while one
    /// of the versions that they run must not be reached from elsewhere.
    pub fn reach_of(&self, profile: &Profile, deployment: &Deployment) -> Reach {
        let members = deployment.members.iter();
        let mut versions = members.map(|member| deployment.shape_of(member).version);
        let all = self.serves(profile, deployment.version)
            && versions.all(|version| self.serves(profile, version));
        if all {
            self.reach.clone()
        } else {
            Reach::loopback()
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
        Err(ExposureRefusal {
            engine: profile.name,
            version,
            faults: faults.join(", "),
            instead: list(&self.served(profile, instead)),
        })
    }
}

/// A version is not served where the cluster's members are reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{engine} {version} has faults that let whoever reaches it in without a login ({faults}), and \
     members of this cluster are reached from other machines; choose a db_version without them, one of: \
     {instead}"
)]
pub struct ExposureRefusal {
    engine: &'static str,
    version: Version,
    faults: String,
    instead: String,
}

/// A version of an engine that an operator names: `etcd 3.5.35`.
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
    #[error("{0:?} is not an engine and a version, as in: etcd 3.5.35")]
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

/// Why applications cannot be given a host. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// It has more than a name.
    #[error(
        "{0:?} is no host: give a name or an address alone, without a port, a path or https://"
    )]
    NotAlone(String),
    /// It is an address that means all of them.
    #[error("{0} means all addresses of a machine; give the one that applications connect to")]
    Wildcard(IpAddr),
    /// It cannot be a name.
    #[error("{0:?} is neither an IP address nor a name of letters, digits, - and dots")]
    BadName(String),
}

/// Checks what applications are to find members by; returns it as it is written in credentials.
pub fn check_host(text: &str) -> Result<String, HostError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        if stands_for_all(address) {
            return Err(HostError::Wildcard(address));
        }
        return Ok(address.to_string());
    }
    let odd = |c: char| c.is_whitespace() || c.is_control() || ":/?#@[]%\\".contains(c);
    if text.contains(odd) {
        return Err(HostError::NotAlone(text.to_owned()));
    }
    if is_name(text) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(HostError::BadName(text.to_owned()))
    }
}

/// Whether an address means all addresses of a machine, in one of its forms.
pub fn stands_for_all(address: IpAddr) -> bool {
    address.to_canonical().is_unspecified()
}

/// A name that every client takes for one: some take 10.1 for 10.0.0.1.
fn is_name(text: &str) -> bool {
    let fits = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let in_urls = url::Host::parse(text);
    let stays = matches!(in_urls, Ok(url::Host::Domain(name)) if name.eq_ignore_ascii_case(text));
    text.len() <= HOST_BYTES_MAX && text.split('.').all(fits) && stays
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{
        deployment::{Membership, Shape},
        engine::tests::ENGINE,
    };

    fn reach(listen: &str, host: &str) -> Reach {
        Reach {
            listen: listen.parse().expect("an address"),
            host: host.to_owned(),
        }
    }

    #[test]
    fn what_is_beyond_the_machine_has_a_port_for_the_broker() {
        for (listen, host, is_loopback, apart) in [
            ("127.0.0.1", "127.0.0.1", true, false),
            ("127.0.0.2", "127.0.0.2", true, false),
            ("::1", "::1", true, false),
            ("127.0.0.1", "localhost", true, true),
            // Whoever forwards there brings strangers.
            ("127.0.0.1", "db.example", false, true),
            ("127.0.0.1", "192.0.2.7", false, true),
            ("192.0.2.7", "192.0.2.7", false, true),
            ("192.0.2.7", "localhost", false, true),
            ("0.0.0.0", "db.example", false, true),
            ("::", "2001:db8::1", false, true),
        ] {
            let of = reach(listen, host);
            assert_eq!(of.is_loopback(), is_loopback, "{listen} {host}");
            assert_eq!(of.keeps_broker_apart(), apart, "{listen} {host}");
        }
    }

    #[test]
    fn addresses_of_version_6_are_in_brackets_and_know_what_is_bound() {
        let at = reach("::", "2001:db8::1").address(2379);
        assert_eq!(at.to_string(), "[2001:db8::1]:2379");
        assert_eq!(at.binds().to_string(), "[::]:2379");
        let at = reach("0.0.0.0", "db.example").address(2379);
        assert_eq!(at.to_string(), "db.example:2379");
        assert_eq!(at.binds().to_string(), "0.0.0.0:2379");
        let plain = Reach::loopback().address(2379);
        assert_eq!(plain, Address::at("127.0.0.1", 2379));
        assert_eq!(plain.binds().to_string(), "127.0.0.1:2379");
    }

    #[test]
    fn hosts() {
        for good in [
            "db.example.org",
            "db",
            "a-1.example",
            "192.0.2.7",
            "2001:db8::1",
            "localhost",
            "1and1.example",
        ] {
            assert_eq!(check_host(good), Ok(good.to_owned()));
        }
        assert_eq!(check_host("DB.Example"), Ok("db.example".to_owned()));
        assert_eq!(check_host("2001:DB8:0::1"), Ok("2001:db8::1".to_owned()));
        for bad in ["0.0.0.0", "::", "::ffff:0.0.0.0"] {
            assert!(
                matches!(check_host(bad), Err(HostError::Wildcard(_))),
                "{bad}"
            );
        }
        for bad in [
            "https://db.example",
            "db.example:2379",
            "db example",
            "[2001:db8::1]",
            "fe80::1%eth0",
            "user@db",
            "db/x",
            "db\n",
        ] {
            assert!(
                matches!(check_host(bad), Err(HostError::NotAlone(_))),
                "{bad}"
            );
        }
        let long = ["x".repeat(63).as_str(); 5].join(".");
        for bad in [
            "", ".", "db.", "-db", "db-", "d_b", "*.db", "10.1", "ä", "db.0x7f", &long,
        ] {
            assert!(
                matches!(check_host(bad), Err(HostError::BadName(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn versions_are_named_with_their_engine() {
        let named: ExposedVersion = "etcd 3.5.35".parse().expect("a version");
        assert_eq!(named.to_string(), "etcd 3.5.35");
        for bad in ["", "etcd", "3.5.35", "etcd 3.5"] {
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
            reach: reach(listen, host),
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
        let all = [v("3.4.9"), v("3.4.1"), v("3.3.6")];
        let refusal = far.check(&ENGINE, v("3.4.9"), &all).expect_err("refused");
        let refusal = refusal.to_string();
        assert!(refusal.contains("sample 3.4.9"), "{refusal}");
        assert!(refusal.contains("(open)"), "{refusal}");
        assert!(refusal.ends_with("one of: 3.4.1, 3.3.6"), "{refusal}");
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
        }
        let moved = far.reach.applied_to(deployment("3.4.1", &[None]), &ENGINE);
        assert_eq!(ENGINE.urls(&moved), ["thing://db.example:1"]);
    }

    proptest! {
        #[test]
        fn a_host_that_is_taken_stands_in_a_url_as_it_is(text in "\\PC{0,40}|[a-z0-9.:-]{0,30}") {
            if let Ok(host) = check_host(&text) {
                let url = format!("https://{}", Address::at(&host, 2379));
                let parsed = url::Url::parse(&url).expect("a URL");
                prop_assert_eq!(parsed.port(), Some(2379));
                let shown = parsed.host_str().expect("a host");
                prop_assert_eq!(shown.trim_matches(['[', ']']), host);
                prop_assert_eq!(parsed.path(), "/");
            }
        }
    }
}
