//! Who may see the dashboard: ways to sign in, sessions, one-time links.
//!
//! A session stands on what it was opened with and is looked at together with it at every request:
//! it ends with its token, with its instance, with the operator's password. Looking writes
//! nothing.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use chrono::{DateTime, TimeDelta, Utc};

use super::{
    BrokerError, BrokerParts,
    audit::Audit,
    token::{Tokens, descends},
};
use crate::{
    clock::Clock,
    model::{
        address::network,
        holder::Holder,
        ids::InstanceId,
        instance::{Instance, InstanceState},
        limits::{DASHBOARD_LINK_TTL, SESSION_TTL},
        origin::Origin,
        secret::{Credentials, Secret},
        session::{OPERATOR_NAME, OpenedWith, READER_NAME, Scope, Session},
        throttle::{Door, Throttle},
        trail::{Accessed, AuditedAccess},
    },
    seal::{KeyRing, SealError, fingerprint, random_secret},
    store::{self, Conn, Store, StoreError},
    timekeeper::Timekeeper,
};

/// What signatures are made for; none serves for another.
const LINK: &str = "dashboard link";
const CSRF: &str = "dashboard form";
const OPERATOR: &str = "operator";

/// A way to sign in: what somebody shows. A platform's own sign-in (OAuth2, OIDC) would be one
/// more, with what the platform says of its user, and [`Sessions::sign_in`] would say what that reaches.
#[derive(Debug)]
pub enum SignInWay {
    /// A token of the administration API.
    Token(Secret),
    /// The code of a one-time link, see [`Sessions::link_to`].
    Link(String),
    /// The credentials that platforms use, or such as read alone.
    Operator {
        /// User name.
        username: String,
        /// Password.
        password: Secret,
    },
}

/// A session that was just opened.
#[derive(Debug)]
pub struct SignedIn {
    /// For the cookie; it is kept nowhere else.
    pub cookie: Secret,
    /// The session.
    pub session: Session,
}

/// Who signs in as operator, and how often a client may fail to sign in.
#[derive(Debug)]
pub struct Doorkeeper {
    operator_marks: Vec<String>,
    reader_marks: Vec<String>,
    failures: Mutex<Throttle<IpAddr>>,
}

impl Doorkeeper {
    /// Knows the credentials of operators, and of those who only read, by marks, which a copy of the
    /// store does not give away. Each address may show wrong credentials so often in a row; 0: any
    /// number.
    pub fn new(
        keys: &KeyRing,
        operators: &[Credentials],
        readers: &[Credentials],
        failures: u32,
    ) -> Self {
        let mark = |known: &Credentials| keys.sign(OPERATOR, known.joined().expose());
        Self {
            operator_marks: operators.iter().map(mark).collect(),
            reader_marks: readers.iter().map(mark).collect(),
            failures: Mutex::new(Throttle::new(failures)),
        }
    }

    fn failures(&self) -> MutexGuard<'_, Throttle<IpAddr>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens, finds and ends sessions.
pub struct Sessions {
    store: Arc<Store>,
    keys: Arc<KeyRing>,
    clock: Clock,
    time: Arc<Timekeeper>,
    tokens: Tokens,
    audit: Arc<Audit>,
    doorkeeper: Arc<Doorkeeper>,
}

/// A one-time link as it was followed.
struct Link {
    instance: InstanceId,
    /// The deployment behind it when the link was made: ids of instances are used again.
    deployment: String,
    nonce: String,
    expires_at: DateTime<Utc>,
}

impl Link {
    /// Whether it leads to what it was made for.
    fn leads(&self, conn: &mut Conn<'_>) -> Result<bool, StoreError> {
        let found = linkable(conn, &self.instance)?;
        Ok(found.is_some_and(|instance| instance.deployment.as_str() == self.deployment))
    }
}

fn link_message(instance: &InstanceId, deployment: &str, expires: i64, nonce: &str) -> String {
    format!("{expires} {nonce} {deployment} {instance}")
}

/// A link that opens the dashboard of an instance once, within [`DASHBOARD_LINK_TTL`]. It is
/// signed, not stored: who asks for links writes nothing.
fn dashboard_link(
    keys: &KeyRing,
    public_url: &str,
    instance: &Instance,
    now: DateTime<Utc>,
) -> Result<String, SealError> {
    let (instance, deployment) = (&instance.id, instance.deployment.as_str());
    let expires = now.timestamp() + DASHBOARD_LINK_TTL.as_secs().cast_signed();
    let nonce = random_secret()?;
    let nonce = nonce.expose();
    let signature = keys.sign(LINK, &link_message(instance, deployment, expires, nonce));
    let instance = BASE64.encode(instance.as_str());
    Ok(format!(
        "{public_url}/dashboard/link?code={instance}.{deployment}.{expires}.{nonce}.{signature}"
    ))
}

/// The instance of that id, for somebody who wants to make a link to it.
pub(super) fn linkable(
    conn: &mut Conn<'_>,
    id: &InstanceId,
) -> Result<Option<Instance>, StoreError> {
    let found = store::instance::find(conn, id)?;
    Ok(found.filter(|instance| instance.state != InstanceState::Deleting))
}

/// Whether a link's end has not come, and is no further off than links live: one that was made while the
/// clock was ahead is good no longer.
pub(super) fn is_within(end: DateTime<Utc>, now: DateTime<Utc>, life: std::time::Duration) -> bool {
    let left = (end - now).to_std();
    left.is_ok_and(|left| !left.is_zero() && left <= life)
}

fn bad_link() -> BrokerError {
    BrokerError::Denied(
        "This link is not good, or not good any more: it works once, and not for long. Ask for a \
         new one."
            .to_owned(),
    )
}

impl Sessions {
    pub(super) fn new(parts: &BrokerParts, tokens: Tokens, audit: Arc<Audit>) -> Self {
        Self {
            store: parts.store.clone(),
            keys: parts.keys.clone(),
            clock: parts.clock.clone(),
            time: parts.time.clone(),
            tokens,
            audit,
            doorkeeper: parts.doorkeeper.clone(),
        }
    }

    /// A link that opens the dashboard of an instance once, see [`DASHBOARD_LINK_TTL`], and its end.
    pub async fn link_to(
        &self,
        public_url: &str,
        id: InstanceId,
    ) -> Result<(String, DateTime<Utc>), BrokerError> {
        let wanted = id.clone();
        let found = self.store.read(move |conn| linkable(conn, &wanted));
        let instance = found.await?.ok_or_else(|| {
            BrokerError::NotFound(format!("there is no service instance \"{id}\""))
        })?;
        let now = self.clock.now();
        let link = dashboard_link(&self.keys, public_url, &instance, now)?;
        Ok((
            link,
            now + TimeDelta::seconds(DASHBOARD_LINK_TTL.as_secs().cast_signed()),
        ))
    }

    /// Opens a session for a visitor who shows something good. Failures are counted per client and in
    /// all; too many of them, and nothing is looked at for a while.
    pub async fn sign_in(&self, client: IpAddr, way: SignInWay) -> Result<SignedIn, BrokerError> {
        let now = self.clock.now();
        self.may_show_credentials(client, Door::Page)?;
        let signed_in = self.open_session(way, now).await;
        match &signed_in {
            Ok(SignedIn { session, .. }) => self.note_sign_in(session, client).await,
            Err(BrokerError::Denied(_)) => {
                self.credentials_were_wrong(client, Door::Page);
                self.audit
                    .note_refusal(Origin::Dashboard, Some(client))
                    .await;
            }
            Err(_) => {}
        }
        signed_in
    }

    /// Fails when too many credentials were wrong that came from there, at whichever door.
    pub fn may_show_credentials(&self, client: IpAddr, door: Door) -> Result<(), BrokerError> {
        self.doorkeeper
            .failures()
            .check(&network(client), door, self.clock.read().elapsed)
            .map_err(|wait| BrokerError::Throttled(wait.max(Duration::from_secs(1))))
    }

    /// Counts wrong credentials.
    pub fn credentials_were_wrong(&self, client: IpAddr, door: Door) {
        let now = self.clock.read().elapsed;
        self.doorkeeper
            .failures()
            .failed(network(client), door, now);
    }

    async fn note_sign_in(&self, session: &Session, client: IpAddr) {
        let what = match &session.opened_with {
            OpenedWith::Link(_) => Accessed::OneTimeLink,
            OpenedWith::Token(_) | OpenedWith::Operator(_) | OpenedWith::Reader(_) => {
                Accessed::Session
            }
        };
        // Somebody else may end the binding at this very moment.
        let user = self.user_of(session).await.ok();
        let access = AuditedAccess {
            what,
            origin: Origin::Dashboard,
            instance: match &session.scope {
                Scope::Instance(id) => Some(id.clone()),
                Scope::Operator => None,
            },
            binding: None,
            backup: None,
            platform: user.as_ref().map(|_| "dashboard".to_owned()),
            user,
            address: Some(client),
        };
        self.audit.note(access).await;
    }

    async fn open_session(
        &self,
        way: SignInWay,
        now: DateTime<Utc>,
    ) -> Result<SignedIn, BrokerError> {
        let (scope, opened_with, link) = self.check(way, now).await?;
        let cookie = random_secret()?;
        let session = Session {
            fingerprint: fingerprint(cookie.expose()),
            scope,
            opened_with,
            created_at: now,
            expires_at: now + TimeDelta::seconds(SESSION_TTL.as_secs().cast_signed()),
        };
        let (row, trusted) = (session.clone(), self.time.trusted());
        self.store
            .decide(move |conn| {
                // A link that was used must not be forgotten before it is good for nothing.
                if let Some(now) = trusted {
                    store::session::forget_expired(conn, now)?;
                }
                if let Some(link) = &link {
                    use_link(conn, link)?;
                }
                store::session::insert(conn, &row)?;
                Ok::<_, BrokerError>(())
            })
            .await?;
        Ok(SignedIn { cookie, session })
    }

    /// What somebody may see who shows `way`.
    async fn check(
        &self,
        way: SignInWay,
        now: DateTime<Utc>,
    ) -> Result<(Scope, OpenedWith, Option<Link>), BrokerError> {
        let denied = |reason: &str| Err(BrokerError::Denied(reason.to_owned()));
        match way {
            SignInWay::Token(token) => match self.tokens.instance(token.expose()).await? {
                Some(instance) => {
                    let opened_with = OpenedWith::Token(fingerprint(token.expose()));
                    Ok((Scope::Instance(instance), opened_with, None))
                }
                None => denied("Unknown token. Was its service key deleted?"),
            },
            SignInWay::Operator { username, password } => {
                let shown = Credentials { username, password }.joined();
                let known = |marks| self.mark_of(marks, shown.expose()).cloned();
                let operator = known(&self.doorkeeper.operator_marks).map(OpenedWith::Operator);
                let reader = known(&self.doorkeeper.reader_marks).map(OpenedWith::Reader);
                match operator.or(reader) {
                    Some(opened_with) => Ok((Scope::Operator, opened_with, None)),
                    None => denied("The user name or the password is wrong."),
                }
            }
            SignInWay::Link(code) => {
                let link = self.read_link(&code, now).ok_or_else(bad_link)?;
                let scope = Scope::Instance(link.instance.clone());
                Ok((scope, OpenedWith::Link(link.nonce.clone()), Some(link)))
            }
        }
    }

    /// Whether a one-time link would open a session now. Nothing is used up.
    pub async fn check_link(&self, code: &str) -> Result<(), BrokerError> {
        let link = self
            .read_link(code, self.clock.now())
            .ok_or_else(bad_link)?;
        let good = self
            .store
            .read(move |conn| {
                Ok(link.leads(conn)? && !store::session::link_is_used(conn, &link.nonce)?)
            })
            .await?;
        if good { Ok(()) } else { Err(bad_link()) }
    }

    fn read_link(&self, code: &str, now: DateTime<Utc>) -> Option<Link> {
        let mut parts = code.split('.');
        let (instance, deployment) = (parts.next()?, parts.next()?);
        let (expires, nonce, signature) = (parts.next()?, parts.next()?, parts.next()?);
        let instance = String::from_utf8(BASE64.decode(instance).ok()?).ok()?;
        let instance: InstanceId = instance.parse().ok()?;
        let expires: i64 = expires.parse().ok()?;
        let message = link_message(&instance, deployment, expires, nonce);
        let link = Link {
            instance,
            deployment: deployment.to_owned(),
            nonce: nonce.to_owned(),
            expires_at: DateTime::from_timestamp(expires, 0)?,
        };
        let good = parts.next().is_none()
            && self.keys.verify(LINK, &message, signature)
            && is_within(link.expires_at, now, DASHBOARD_LINK_TTL);
        good.then_some(link)
    }

    /// The session of a cookie, if it is good now.
    pub async fn of_cookie(&self, cookie: &str) -> Result<Option<Session>, BrokerError> {
        self.find(fingerprint(cookie)).await
    }

    /// The session of a cookie with that fingerprint, if it is good now.
    pub(super) async fn find(&self, fingerprint: String) -> Result<Option<Session>, BrokerError> {
        let now = self.clock.now();
        let doorkeeper = self.doorkeeper.clone();
        let found = self
            .store
            .read(move |conn| {
                let found = store::session::find(conn, &fingerprint)?;
                match found.filter(|session| session.is_in_time(now)) {
                    Some(session) if holds(conn, &session, &doorkeeper)? => Ok(Some(session)),
                    _ => Ok(None),
                }
            })
            .await?;
        Ok(found)
    }

    /// What the audit calls the user of a session.
    pub async fn user_of(&self, session: &Session) -> Result<String, BrokerError> {
        Ok(match &session.opened_with {
            OpenedWith::Operator(_) => OPERATOR_NAME.to_owned(),
            OpenedWith::Reader(_) => READER_NAME.to_owned(),
            OpenedWith::Link(_) => "one-time link".to_owned(),
            OpenedWith::Token(token) => {
                let token = token.clone();
                let holder = self
                    .store
                    .read(move |conn| store::binding::holder_of_token(conn, &token))
                    .await?;
                let binding = holder.map(|(_, binding)| format!("binding {binding}"));
                binding.unwrap_or_else(|| "a binding that is gone".to_owned())
            }
        })
    }

    /// Whether a session reaches an instance.
    pub async fn reaches(&self, session: &Session, id: InstanceId) -> Result<bool, BrokerError> {
        let session = session.clone();
        let found = self
            .store
            .read(move |conn| reached(conn, &session, &id))
            .await?;
        Ok(found.is_some())
    }

    /// Ends a session.
    pub async fn sign_out(&self, session: &Session) -> Result<(), BrokerError> {
        let fingerprint = session.fingerprint.clone();
        Ok(self
            .store
            .write(move |conn| store::session::delete(conn, &fingerprint))
            .await?)
    }

    /// Whose links are that somebody makes who shows these credentials: none where they are not good. They
    /// end with the credentials.
    pub fn operator(&self, shown: &str) -> Option<Holder> {
        let mark = self.mark_of(&self.doorkeeper.operator_marks, shown)?;
        Some(Holder::Operator(fingerprint(mark)))
    }

    /// The mark among these of credentials, `NAME:PASSWORD`; none where they are not good.
    fn mark_of<'a>(&self, marks: &'a [String], shown: &str) -> Option<&'a String> {
        // All are looked at, whichever it is.
        marks.iter().fold(None, |found, mark| {
            if self.keys.verify(OPERATOR, shown, mark) {
                Some(mark)
            } else {
                found
            }
        })
    }

    /// Whether credentials are good still, by the fingerprint of the broker's mark of them.
    pub(super) fn is_operator(&self, of_mark: &str) -> bool {
        let mut marks = self.doorkeeper.operator_marks.iter();
        marks.any(|mark| fingerprint(mark) == of_mark)
    }

    /// What each form of a session carries, so that no other site's form can pass for one.
    pub fn form_token(&self, session: &Session) -> String {
        self.keys.sign(CSRF, &session.fingerprint)
    }

    /// Checks what a form carries.
    pub fn check_form_token(&self, session: &Session, sent: &str) -> Result<(), BrokerError> {
        if self.keys.verify(CSRF, &session.fingerprint, sent) {
            return Ok(());
        }
        Err(BrokerError::Denied(
            "This form is not of your session, or it is too old. Go back, load the page again, \
             and try once more."
                .to_owned(),
        ))
    }
}

fn use_link(conn: &mut Conn<'_>, link: &Link) -> Result<(), BrokerError> {
    if !link.leads(conn)? {
        return Err(bad_link());
    }
    match store::session::use_link(conn, &link.nonce, link.expires_at) {
        Err(StoreError::Duplicate) => Err(bad_link()),
        other => Ok(other?),
    }
}

/// Whether what a session was opened with still is what it was.
fn holds(
    conn: &mut Conn<'_>,
    session: &Session,
    doorkeeper: &Doorkeeper,
) -> Result<bool, StoreError> {
    match (&session.opened_with, &session.scope) {
        (OpenedWith::Token(token), Scope::Instance(instance)) => {
            let granted = store::binding::instance_of_token(conn, token)?;
            Ok(granted.as_ref() == Some(instance))
        }
        (OpenedWith::Link(_), Scope::Instance(instance)) => Ok(linkable(conn, instance)?.is_some()),
        (OpenedWith::Operator(mark), Scope::Operator) => {
            Ok(doorkeeper.operator_marks.contains(mark))
        }
        (OpenedWith::Reader(mark), Scope::Operator) => Ok(doorkeeper.reader_marks.contains(mark)),
        _ => Ok(false),
    }
}

/// The instance of that id, when a session reaches it. What it does not reach is like what is not
/// there.
pub(super) fn reached(
    conn: &mut Conn<'_>,
    session: &Session,
    id: &InstanceId,
) -> Result<Option<Instance>, StoreError> {
    let in_reach = match &session.scope {
        Scope::Operator => true,
        Scope::Instance(own) => own == id || descends(conn, id, own)?,
    };
    if in_reach {
        store::instance::find(conn, id)
    } else {
        Ok(None)
    }
}

/// What somebody is told who may read alone and wants more.
pub fn read_only() -> BrokerError {
    BrokerError::Denied(
        "These credentials only read: all below /operator, the pages, and of the Compose API deployments, \
         alerts, members, recipes, history, versions, sizes, storage, schedules and the list of backups. They \
         change nothing, and get no credentials, links, downloads and logs. Use the platform's user name and \
         password for that."
            .to_owned(),
    )
}

/// One answer for what is unknown, foreign or impossible.
pub fn no_such_page() -> BrokerError {
    BrokerError::NotFound("There is no such page, or it is not one of yours.".to_owned())
}
