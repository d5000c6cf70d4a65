//! Connections to running members.
//!
//! A client talks to one member: a token that one member gave is not known at once to the others.
//! A call that fails in passing (a leader change, a member that is down, a token that another
//! change of users made void) is made anew through the next member, as a whole; so what is tried
//! must be idempotent.

use std::{error::Error, future::Future, io, time::Duration};

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{
    engine::EngineError,
    model::{
        deployment::{Access, Deployment, DeploymentSecrets, Member, Site},
        limits::{
            ENGINE_CALL_TIMEOUT, ENGINE_CONNECT_TIMEOUT, ENGINE_RETRY_FIRST, ENGINE_RETRY_MAX,
        },
    },
};

use super::{
    addresses,
    certificates::{self, ROOT},
};

/// The number of gRPC for a member that cannot answer now. The names of the numbers are in a crate that we do
/// not use ourselves.
pub(super) const UNAVAILABLE: i32 = 14;

/// Texts by which etcd tells why it refuses: alike in all versions, while the codes differ.
pub(super) mod says {
    pub(crate) const AUTH_IS_OFF: &str = "authentication is not enabled";
    pub(crate) const WRONG_PASSWORD: &str = "authentication failed";
    /// How a login fails that is not let in.
    pub(crate) const REFUSED_LOGINS: [&str; 2] = [WRONG_PASSWORD, NO_USER];
    pub(crate) const USER_EXISTS: &str = "user name already exists";
    pub(crate) const NO_USER: &str = "user name not found";
    pub(crate) const NO_USER_TOLD: &str = "user name is empty";
    pub(crate) const NO_ROLE: &str = "role name not found";
    pub(crate) const ROLE_EXISTS: &str = "role name already exists";
    /// Somebody changed users meanwhile; the two texts are of the server and of its log of changes.
    pub(crate) const OLD_USERS: [&str; 2] =
        ["revision of auth store is old", "revision in header is old"];
    pub(crate) const NO_MEMBER: &str = "member not found";
    pub(crate) const MEMBER_EXISTS: &str = "Peer URLs already exists";
    pub(crate) const BUSY: &str = "too many requests";
    /// An answer, and a request, that is too large.
    pub(crate) const TOO_MUCH: &str = "message length too large";
    pub(crate) const TOO_LARGE: &str = "request is too large";
    pub(crate) const COMPACTED: &str = "required revision has been compacted";
    pub(crate) const WAY_BACK_BEGUN: &str = "cluster has a downgrade job in progress";
    pub(crate) const NO_WAY_BACK: &str = "no inflight downgrade";

    /// What users should be told of etcd's refusals in other words than its own.
    pub(crate) const IN_WORDS: [(&str, &str); 4] = [
        (
            "database space exceeded",
            "etcd is full: it takes no writes. Ask for more units, or delete keys",
        ),
        (
            "corrupt cluster",
            "etcd takes no requests, since its members do not hold the same",
        ),
        (
            "no leader",
            "the members have no leader: too few of them serve",
        ),
        (
            "request timed out",
            "etcd did not answer in its own time: too few members serve, or they are slow",
        ),
    ];

    /// Whether a member is of a version that does not know the call.
    pub(crate) fn is_unknown_call(error: &etcd_client::Error) -> bool {
        // gRPC's number; its name is in a crate that we do not use ourselves.
        const UNIMPLEMENTED: i32 = 12;
        matches!(error, etcd_client::Error::GRpcStatus(status) if status.code() as i32 == UNIMPLEMENTED)
    }
}

/// Why one try failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// etcd refused, or could not be reached.
    Call(etcd_client::Error),
    /// No answer came for this long.
    Silent(Duration),
    /// Trying again is of no use.
    Final(EngineError),
}

impl From<etcd_client::Error> for Fault {
    fn from(error: etcd_client::Error) -> Self {
        Self::Call(error)
    }
}

impl From<EngineError> for Fault {
    fn from(error: EngineError) -> Self {
        Self::Final(error)
    }
}

impl Fault {
    /// Whether etcd refused with this text.
    pub(super) fn says(&self, text: &str) -> bool {
        matches!(self, Self::Call(error) if says_so(error, text))
    }

    /// Whether the same may succeed in a moment, or through another member.
    fn is_passing(&self) -> bool {
        const UNAUTHENTICATED: i32 = 16;
        match self {
            Self::Final(_) => false,
            Self::Silent(_) | Self::Call(etcd_client::Error::TransportError(_)) => true,
            Self::Call(etcd_client::Error::GRpcStatus(status)) => {
                let code = status.code() as i32;
                let broken_off = status.source().is_some();
                // A member that is behind does not know yet that users were switched on.
                let behind = self.says(says::AUTH_IS_OFF);
                broken_off
                    || behind
                    || [UNAVAILABLE, UNAUTHENTICATED].contains(&code)
                    || self.says(says::BUSY)
                    || says::OLD_USERS.iter().any(|text| self.says(text))
            }
            Self::Call(_) => false,
        }
    }

    /// Whether etcd refuses for what it is asked, and will do so again.
    fn is_final(&self) -> bool {
        // gRPC's numbers, as above: a wrong argument, a right that is missing, an unknown call.
        const FINAL: [i32; 3] = [3, 7, 12];
        match self {
            Self::Final(_) => true,
            Self::Call(etcd_client::Error::GRpcStatus(status)) => {
                // A member that is behind lets in nobody whom it does not know yet.
                let behind = [says::WRONG_PASSWORD, says::NO_USER_TOLD];
                FINAL.contains(&(status.code() as i32))
                    && !self.is_passing()
                    && !behind.iter().any(|text| self.says(text))
            }
            _ => false,
        }
    }

    /// Whether no answer came, or that there is no majority: not what etcd thinks of the call.
    fn is_silence(&self) -> bool {
        match self {
            Self::Silent(_) | Self::Call(etcd_client::Error::TransportError(_)) => true,
            Self::Call(etcd_client::Error::GRpcStatus(status)) => {
                status.source().is_some() || status.code() as i32 == UNAVAILABLE
            }
            Self::Call(_) | Self::Final(_) => false,
        }
    }

    /// Whether a member says that it cannot ask the others: that it has no leader, or that they do not agree
    /// in time. A connection that breaks off says neither.
    pub(super) fn lacks_majority(&self) -> bool {
        match self {
            Self::Silent(_) => true,
            Self::Call(etcd_client::Error::GRpcStatus(status)) => {
                status.source().is_none() && status.code() as i32 == UNAVAILABLE
            }
            Self::Call(_) | Self::Final(_) => false,
        }
    }

    /// What it means, for people: in no library's words.
    pub(super) fn meaning(&self) -> String {
        match self {
            Self::Final(error) => error.to_string(),
            Self::Silent(time) => format!("no answer within {} s", time.as_secs()),
            Self::Call(etcd_client::Error::TransportError(error)) => {
                let why = refused_by_system(error).map(|why| format!(": {why}"));
                format!("a member cannot be reached{}", why.unwrap_or_default())
            }
            Self::Call(etcd_client::Error::GRpcStatus(status)) => {
                let said = status.message();
                // What etcd itself says is a sentence of its own; the rest is a library's.
                let own = ["etcdserver: ", "auth: ", "mvcc: "];
                let own = own.iter().find_map(|who| said.strip_prefix(who));
                let known = says::IN_WORDS.iter().find(|(text, _)| said.contains(text));
                match (own, status.source()) {
                    (Some(_), _) if let Some((_, words)) = known => (*words).to_owned(),
                    (Some(own), _) => format!("etcd refuses: {own}"),
                    (None, Some(source)) => {
                        let why = refused_by_system(source).map(|why| format!(": {why}"));
                        format!("a member does not answer{}", why.unwrap_or_default())
                    }
                    (None, None) => format!("a member refuses: {}", status.code().description()),
                }
            }
            Self::Call(_) => "the call could not be made".to_owned(),
        }
    }

    /// The fault as the engine's error.
    pub(super) fn into_engine_error(self, doing: &'static str) -> EngineError {
        let (meaning, is_final) = (self.meaning(), self.is_final());
        let is_silence = self.is_silence();
        let source: Box<dyn Error + Send + Sync> = match self {
            Self::Final(error) => return error,
            Self::Silent(time) => Box::new(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {} s", time.as_secs()),
            )),
            // The client's own error type would end the chain of causes.
            Self::Call(etcd_client::Error::TransportError(error)) => Box::new(error),
            Self::Call(etcd_client::Error::GRpcStatus(status)) => Box::new(status),
            Self::Call(error) => Box::new(error),
        };
        EngineError::Call {
            doing,
            meaning,
            is_final,
            is_silence,
            source,
        }
    }
}

/// What the system said at the bottom of an error, when it did.
pub(super) fn refused_by_system(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind().to_string());
        }
        next = error.source();
    }
    None
}

/// Whether this is a refusal with this text.
pub(super) fn says_so(error: &etcd_client::Error, text: &str) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.message().contains(text))
}

/// Turns the refusal `text` into success: what was wanted is there already.
pub(super) fn unless_it_says<T>(
    result: Result<T, etcd_client::Error>,
    text: &str,
) -> Result<(), Fault> {
    match result {
        Err(error) if !says_so(&error, text) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Connects to the members of a deployment, as one who is let in.
pub(super) struct Dialer<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) secrets: &'a DeploymentSecrets,
    access: Access,
    tls: TlsOptions,
    /// What says that the broker is the administrator, where certificates do.
    pub(super) root: Option<certificates::Identity>,
}

impl<'a> Dialer<'a> {
    pub(super) fn new(site: Site<'a>) -> Result<Self, EngineError> {
        let Site {
            deployment,
            secrets,
            access,
        } = site;
        let authority = Certificate::from_pem(secrets.trusted());
        let mut tls = TlsOptions::new().ca_certificate(authority);
        let root = match access {
            Access::Passwords => None,
            Access::Certificates => Some(certificates::root_client(secrets)?),
        };
        if let Some(root) = &root {
            let (certificate, key) = (&root.certificate, root.key.expose());
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        Ok(Self {
            deployment,
            secrets,
            access,
            tls,
            root,
        })
    }

    /// A client of one member, not logged in. Connects when it is used.
    pub(super) async fn client(&self, member: &Member) -> Result<Client, Fault> {
        let options = ConnectOptions::new()
            .with_tls(self.tls.clone())
            .with_connect_timeout(ENGINE_CONNECT_TIMEOUT);
        let url = addresses::url(addresses::own(member));
        Ok(Client::connect([url], Some(options)).await?)
    }

    /// Logs the client in with the administrator's password.
    pub(super) async fn log_in(&self, client: &mut Client) -> Result<(), Fault> {
        let password = self.secrets.root_password.expose();
        let login = client.update_user(Some((ROOT.to_owned(), password.to_owned())));
        match timeout(ENGINE_CONNECT_TIMEOUT, login).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(Fault::Silent(ENGINE_CONNECT_TIMEOUT)),
        }
    }

    /// Whether any member lets `user` in with this password. Members may differ: some store what
    /// others do not.
    pub(super) async fn authenticates(&self, user: &str, password: &str) -> Result<bool, Fault> {
        for member in &self.deployment.members {
            let mut client = self.client(member).await?;
            let login = client.update_user(Some((user.to_owned(), password.to_owned())));
            match timeout(ENGINE_CONNECT_TIMEOUT, login).await {
                Ok(Ok(())) => return Ok(true),
                Ok(Err(error)) if says::REFUSED_LOGINS.iter().any(|t| says_so(&error, t)) => {}
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(Fault::Silent(ENGINE_CONNECT_TIMEOUT)),
            }
        }
        Ok(false)
    }

    /// Makes the client an administrator in the way that the deployment's access asks for.
    pub(super) async fn become_root(&self, client: &mut Client) -> Result<(), Fault> {
        match self.access {
            Access::Passwords => self.log_in(client).await,
            // The certificate says who we are. A token would be asked first.
            Access::Certificates => Ok(()),
        }
    }

    /// Tries with a client of one member after the other until it succeeds, fails for good, or
    /// [`ENGINE_CALL_TIMEOUT`] is over.
    pub(super) async fn trying<T, F, Fut>(
        &self,
        doing: &'static str,
        attempt: F,
    ) -> Result<T, EngineError>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, Fault>>,
    {
        let deadline = Instant::now() + ENGINE_CALL_TIMEOUT;
        self.try_until(deadline, doing, attempt).await
    }

    async fn try_until<T, F, Fut>(
        &self,
        deadline: Instant,
        doing: &'static str,
        attempt: F,
    ) -> Result<T, EngineError>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, Fault>>,
    {
        let mut pause = ENGINE_RETRY_FIRST;
        let mut last = Fault::Silent(ENGINE_CALL_TIMEOUT);
        for member in self.deployment.members.iter().cycle() {
            let one_try = async { attempt(self.client(member).await?).await };
            match timeout_at(deadline, one_try).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(fault)) if fault.is_passing() => last = fault,
                Ok(Err(fault)) => return Err(fault.into_engine_error(doing)),
                Err(_) => break,
            }
            if Instant::now() + pause >= deadline {
                break;
            }
            sleep(pause).await;
            pause = (pause * 2).min(ENGINE_RETRY_MAX);
        }
        Err(last.into_engine_error(doing))
    }

    /// [`Dialer::trying`] as the administrator.
    pub(super) async fn trying_as_root<T, F, Fut>(
        &self,
        doing: &'static str,
        attempt: F,
    ) -> Result<T, EngineError>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, Fault>>,
    {
        self.trying_for(ENGINE_CALL_TIMEOUT, doing, attempt).await
    }

    /// The same with another limit of the time.
    pub(super) async fn trying_for<T, F, Fut>(
        &self,
        limit: Duration,
        doing: &'static str,
        attempt: F,
    ) -> Result<T, EngineError>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, Fault>>,
    {
        let attempt = &attempt;
        self.try_until(Instant::now() + limit, doing, |mut client| async move {
            self.become_root(&mut client).await?;
            attempt(client).await
        })
        .await
    }
}
