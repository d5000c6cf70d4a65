//! The database cluster behind one instance.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    address::{Address, stands_for_all},
    ids::{DeploymentId, InstanceId},
    limits::{BILLING_CODE_BYTES_MAX, NOTES_BYTES_MAX, UNIT_BYTES},
    renewal::Certificates,
    secret::Secret,
    version::Version,
};

/// A deployment: what was decided about it, not its present state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Its id.
    pub id: DeploymentId,
    /// The instance in front of it.
    pub instance: InstanceId,
    /// What it is called in the Compose API and in credentials, from the beginning on: the name that
    /// a restore was given, else what [`DeploymentNames`](super::name::DeploymentNames) makes.
    pub name: String,
    /// The placement target it lives on.
    pub cluster: String,
    /// The engine's name.
    pub engine: String,
    /// The engine's version; of a member, see [`Deployment::shape_of`].
    pub version: Version,
    /// Size in units of [`UNIT_BYTES`] on each member.
    pub units: u32,
    /// Its members; empty until ports are allocated.
    pub members: Vec<Member>,
    /// Since when nobody but the broker is let in, because the database is full and its version
    /// checks no rights then; none: it is open.
    pub closed_since: Option<DateTime<Utc>>,
}

impl Deployment {
    /// The place that this deployment's secrets are sealed for.
    pub fn seal_context(&self) -> String {
        format!("deployment secrets {}", self.id)
    }

    /// What the deployment is as a whole: what every member that says nothing else runs as. In the
    /// midst of an update the members' versions are this one and the next.
    pub fn shape(&self) -> Shape {
        Shape {
            version: self.version,
            units: self.units,
        }
    }

    /// Storage quota of each member, in bytes.
    pub fn quota_bytes(&self) -> u64 {
        self.shape().quota_bytes()
    }

    /// What a member was decided to run as.
    pub fn shape_of(&self, member: &Member) -> Shape {
        member.shape.unwrap_or(self.shape())
    }

    /// Whether no member runs as anything else than the deployment is: no update left it half done.
    pub fn is_in_one_shape(&self) -> bool {
        let own = |member: &Member| member.shape.is_some() || member.checkpointing;
        !self.members.iter().any(own)
    }

    /// How its members let clients in, once it is made.
    pub fn access(&self) -> Access {
        match self.closed_since {
            Some(_) => Access::Certificates,
            None => Access::Passwords,
        }
    }

    /// The same deployment with all members in one shape.
    pub fn reshaped(mut self, shape: Shape) -> Self {
        (self.version, self.units) = (shape.version, shape.units);
        for member in &mut self.members {
            member.shape = None;
        }
        self
    }

    /// The hosts at which its members may be reached: by name, by what they bind, and by loopback. All
    /// addresses are none.
    pub fn hosts(&self) -> BTreeSet<String> {
        let addresses = || self.members.iter().flat_map(|m| m.addresses.values());
        let bound = addresses().filter_map(|address| address.listen);
        let bound = bound.filter(|listen| !stands_for_all(*listen));
        let hosts = addresses().map(|address| address.host.clone());
        let loopback = ["127.0.0.1", "::1", "localhost"].map(str::to_owned);
        let listed = bound.map(|listen| listen.to_string());
        hosts.chain(listed).chain(loopback).collect()
    }

    /// The place of the member of that name.
    pub fn place_of(&self, member: &str) -> Option<usize> {
        self.members.iter().position(|known| known.name == member)
    }
}

/// A deployment as its engine enters it.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// The deployment.
    pub deployment: &'a Deployment,
    /// Its secrets.
    pub secrets: &'a DeploymentSecrets,
    /// How its members let clients in.
    pub access: Access,
}

impl<'a> Site<'a> {
    /// A deployment whose members let clients in as it was decided.
    pub fn new(deployment: &'a Deployment, secrets: &'a DeploymentSecrets) -> Self {
        Self::with_access(deployment, secrets, deployment.access())
    }

    /// A deployment whose members let clients in so.
    pub fn with_access(
        deployment: &'a Deployment,
        secrets: &'a DeploymentSecrets,
        access: Access,
    ) -> Self {
        Self {
            deployment,
            secrets,
            access,
        }
    }
}

/// What a member runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// The engine's version.
    pub version: Version,
    /// Size in units of [`UNIT_BYTES`].
    pub units: u32,
}

impl Shape {
    /// Storage quota, in bytes.
    pub fn quota_bytes(self) -> u64 {
        u64::from(self.units) * UNIT_BYTES
    }
}

/// One server of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name, unique in the deployment: `m0`, `m1`, ...
    pub name: String,
    /// Where its ports are reached, by the names that its engine gives them
    /// ([`Profile::ports`](super::engine::Profile::ports)).
    pub addresses: BTreeMap<String, Address>,
    /// What it runs as while that is not what the deployment is: in the midst of an update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
    /// It writes its whole state down again and again: before a line of versions that cannot read
    /// its older log.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checkpointing: bool,
    /// How far it has come in becoming a part of its cluster.
    #[serde(default, skip_serializing_if = "Membership::is_joined")]
    pub membership: Membership,
}

/// How far a member has come in becoming a part of its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Membership {
    /// It makes a new cluster with the others: it never served so far.
    New,
    /// It takes the place of a member that lost its data, and has none yet.
    Joining,
    /// It was part of its cluster once. From then on it never starts without its data: it would be
    /// another member under the same id, and the cluster counts on what the old one knew.
    #[default]
    Joined,
}

impl Membership {
    /// Whether it was part of its cluster once.
    pub fn is_joined(&self) -> bool {
        *self == Self::Joined
    }
}

impl Member {
    /// Where a port of its engine is reached.
    pub fn address(&self, port: &str) -> &Address {
        let address = self.addresses.get(port);
        address.expect("members are made with all ports of their engine")
    }
}

/// What users write down beside a deployment, for themselves; it does nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Whatever they want to remember.
    pub text: String,
    /// What they are to be billed under.
    pub billing_code: String,
}

impl Notes {
    /// Fails with what is wrong when they cannot be kept.
    pub fn check(&self) -> Result<(), String> {
        let fields = [
            ("notes", &self.text, NOTES_BYTES_MAX),
            (
                "customer_billing_code",
                &self.billing_code,
                BILLING_CODE_BYTES_MAX,
            ),
        ];
        for (name, text, bytes_max) in fields {
            if text.len() > bytes_max {
                return Err(format!("{name} is longer than {bytes_max} bytes"));
            }
            if text
                .chars()
                .any(|c| c.is_control() && !"\n\r\t".contains(c))
            {
                return Err(format!("{name} contains a control character"));
            }
        }
        Ok(())
    }
}

/// What only the broker and the members may know. Kept sealed in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentSecrets {
    /// Certificate of the deployment's own authority (PEM). Not secret; it stands here because it
    /// is made and used together with the rest.
    pub ca_certificate: String,
    /// The authority's private key (PEM).
    pub ca_key: Secret,
    /// Certificate that every member shows to clients and to other members (PEM).
    pub member_certificate: String,
    /// Its private key (PEM).
    pub member_key: Secret,
    /// Password of the engine's administrator.
    pub root_password: Secret,
    /// How long the certificates are good for; absent in those of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<Certificates>,
    /// The authority that is trusted and does not issue yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_authority: Option<Authority>,
    /// Certificate of the authority that has issued before, and is trusted still (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_ca_certificate: Option<String>,
    /// The hosts that the members' certificate names; empty in those of earlier versions.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub hosts: BTreeSet<String>,
}

impl DeploymentSecrets {
    /// The certificates of all authorities that are trusted (PEM), the one that issues in front.
    pub fn trusted(&self) -> String {
        let next = self.next_authority.as_ref().map(|next| &next.certificate);
        let others = next.into_iter().chain(&self.former_ca_certificate);
        others.fold(self.ca_certificate.clone(), |mut all, other| {
            if !all.ends_with('\n') {
                all.push('\n');
            }
            all + other
        })
    }

    /// The time of the certificates of the deployment `id`.
    pub fn certificates(&self, id: &DeploymentId) -> Certificates {
        let of_before = || Certificates::of_before(id.made_at());
        self.certificates.clone().unwrap_or_else(of_before)
    }
}

/// An authority of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Its certificate (PEM).
    pub certificate: String,
    /// Its private key (PEM).
    pub key: Secret,
}

/// How members let clients in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Server TLS; who comes is known by user name and password. The normal state.
    Passwords,
    /// Only clients with a certificate of the deployment's own authority get in at all, and nobody
    /// but the broker has one: while a restored deployment still holds the source's users, and
    /// while a full database would check no rights.
    Certificates,
}
