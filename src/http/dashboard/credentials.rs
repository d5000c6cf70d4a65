//! The page of credentials: who has some, and making, showing once, rotating and revoking them.

use actix_web::{HttpRequest, http::StatusCode, web};
use askama::Template;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use url::Url;

use super::{
    Answer, Api,
    door::see_other,
    form_of,
    id::Id,
    overview, path_of,
    shell::{Shell, answer},
    show::Moment,
    state::{Label, label_of_binding},
};
use crate::{
    broker::{Credential, Credentials, CredentialsRequest, InstanceView},
    http::{
        error::HttpError,
        request::{Form, query},
    },
    model::{
        binding::{AUTHORITIES, BindParameters, Binding, BindingState, Role},
        health::DownReason,
        ids::{BindingId, InstanceId},
        instance::InstanceState,
        limits::{CREDENTIALS_NAME_CHARS_MAX, prefix::KEY_PREFIX_BYTES_MAX},
        operation::OperationKind,
        session::Session,
    },
};

/// The ends that the page offers, in seconds and in words.
const LIVES: [(u32, &str); 6] = [
    (3600, "in 1 hour"),
    (24 * 3600, "in 1 day"),
    (7 * 24 * 3600, "in 7 days"),
    (30 * 24 * 3600, "in 30 days"),
    (90 * 24 * 3600, "in 90 days"),
    (365 * 24 * 3600, "in 365 days"),
];

#[derive(Template)]
#[template(path = "credentials.html", whitespace = "minimize")]
struct CredentialsPage {
    shell: Shell,
    href: String,
    engine: String,
    version: String,
    message: Option<String>,
    /// Why none can be made now.
    refusal: Option<&'static str>,
    /// Until when what is asked for waits; none: it does not.
    waits: Option<&'static str>,
    /// Whether the database is full, and lets in nobody but the broker for that.
    is_closed: bool,
    /// Whether users can be held to rights.
    can_limit: bool,
    name_max: usize,
    prefix_max: usize,
    lives: &'static [(u32, &'static str)],
    /// The binding that what the visitor makes ends with.
    with: Option<String>,
    rows: Vec<Row>,
}

struct Row {
    /// What its elements' ids end in.
    mark: String,
    href: String,
    name: String,
    label: Label,
    state: &'static str,
    rights: String,
    made: Moment,
    by: &'static str,
    with: Option<String>,
    user: String,
    id: String,
    expires: Option<Moment>,
    failure: Option<String>,
    can_show: bool,
    can_rotate: bool,
    can_revoke: bool,
    is_foreign: bool,
}

#[derive(Template)]
#[template(path = "credentials_shown.html", whitespace = "minimize")]
struct ShownPage {
    shell: Shell,
    href: String,
    name: String,
    engine: String,
    user: String,
    password: String,
    uris: String,
    cli: String,
    certificate: String,
    token: Option<String>,
    whole: String,
    expires: Option<Moment>,
}

/// `GET /dashboard/instances/:iid/credentials`
pub async fn page(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(id): Id<InstanceId>,
    request: HttpRequest,
) -> Answer {
    let view = api.broker.views.instance_view(&session, id.clone()).await?;
    let credentials = api.broker.credentials.of_instance(&session, id).await?;
    let kinds = [OperationKind::Bind, OperationKind::Unbind];
    let active = |kind| {
        view.operations
            .iter()
            .any(|o| o.kind == kind && o.state.is_active())
    };
    let shell = Shell {
        here: "credentials",
        follows: true,
        under_way: view.running_change().is_some() || kinds.into_iter().any(active),
        ..Shell::of_instance("Credentials", &view, &api.broker, &session)
    };
    let href = format!("{}/credentials", path_of(&view.of.instance.id));
    let read_only = session
        .is_read_only()
        .then_some("Read-only visitors cannot make credentials.");
    let deployment = &view.of.deployment;
    let down = overview::down(&api.broker, &view);
    let limits = |profile: &crate::model::engine::Profile| profile.limits_users(deployment.version);
    let page = CredentialsPage {
        shell,
        engine: deployment.engine.clone(),
        version: deployment.version.to_string(),
        message: message(&credentials, query(&request, "made").as_deref()),
        refusal: refusal(&view).or(read_only),
        waits: down.and_then(DownReason::waits_until),
        is_closed: down == Some(DownReason::Closed),
        can_limit: view.profile.is_some_and(limits),
        name_max: CREDENTIALS_NAME_CHARS_MAX,
        prefix_max: KEY_PREFIX_BYTES_MAX,
        lives: &LIVES,
        with: credentials.with.as_ref().map(BindingId::to_string),
        rows: credentials
            .all
            .iter()
            .map(|of| row(&view, &href, of, down))
            .collect(),
        href,
    };
    Ok(answer(StatusCode::OK, &page))
}

/// `POST /dashboard/instances/:iid/credentials`
pub async fn make(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(instance): Id<InstanceId>,
    payload: web::Payload,
) -> Answer {
    let form = form_of(&api, &session, payload).await?;
    let request = CredentialsRequest {
        instance: instance.clone(),
        name: form.text("name").trim().to_owned(),
        parameters: parameters(&form)?,
    };
    let made = api.broker.credentials.make(&session, request).await?;
    Ok(see_other(&path_to(&instance, &made)))
}

/// `POST /dashboard/instances/:iid/credentials/:bid/rotate`
pub async fn rotate(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(instance): Id<InstanceId>,
    Id(binding): Id<BindingId>,
    payload: web::Payload,
) -> Answer {
    form_of(&api, &session, payload).await?;
    let made = api
        .broker
        .credentials
        .rotate(&session, instance.clone(), binding)
        .await?;
    Ok(see_other(&path_to(&instance, &made)))
}

/// `POST /dashboard/instances/:iid/credentials/:bid/revoke`
pub async fn revoke(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(instance): Id<InstanceId>,
    Id(binding): Id<BindingId>,
    payload: web::Payload,
) -> Answer {
    let form = form_of(&api, &session, payload).await?;
    if form.text("sure") != "yes" {
        let reason = "Nothing was revoked: say that you know what becomes of applications that use \
                      the credentials.";
        return Err(HttpError::bad_request(reason).into());
    }
    api.broker
        .credentials
        .revoke(&session, instance.clone(), binding)
        .await?;
    Ok(see_other(&format!("{}/credentials", path_of(&instance))))
}

/// `POST /dashboard/instances/:iid/credentials/:bid/show`
pub async fn show(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(instance): Id<InstanceId>,
    Id(binding): Id<BindingId>,
    payload: web::Payload,
) -> Answer {
    form_of(&api, &session, payload).await?;
    let view = api
        .broker
        .views
        .instance_view(&session, instance.clone())
        .await?;
    let (binding, fetched) = api
        .broker
        .credentials
        .show(&session, instance, binding)
        .await?;
    let name = name_of(&binding);
    let shell = Shell {
        here: "credentials",
        ..Shell::of_instance(&format!("Credentials {name}"), &view, &api.broker, &session)
    };
    let href = format!("{}/credentials", path_of(&view.of.instance.id));
    let credentials = &fetched.credentials;
    let uris = uris(credentials);
    let (user, password) = login(&uris);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pem = BASE64.decode(text(&credentials[AUTHORITIES]));
    let token = &credentials["instance_administration_api"]["token"];
    let page = ShownPage {
        shell,
        href,
        name,
        engine: view.of.deployment.engine.clone(),
        user,
        password,
        uris: uris.join("\n"),
        cli: text(&credentials["uri_cli"]),
        certificate: String::from_utf8(pem.unwrap_or_default()).unwrap_or_default(),
        token: token.as_str().map(str::to_owned),
        whole: serde_json::to_string_pretty(credentials).unwrap_or_default(),
        expires: fetched
            .life
            .map(|life| Moment::new(life.expires_at, view.now)),
    };
    Ok(answer(StatusCode::OK, &page))
}

/// The page, which tells of what was made.
fn path_to(instance: &InstanceId, made: &BindingId) -> String {
    format!("{}/credentials?made={}", path_of(instance), made.in_path())
}

/// What a form asks for, as a platform would send it.
fn parameters(form: &Form) -> Result<Value, HttpError> {
    let mut parameters = json!({});
    match form.text("role") {
        "" | "writer" => {}
        role => parameters["role"] = role.into(),
    }
    let prefix = form.text("prefix");
    if !prefix.is_empty() {
        parameters["prefix"] = prefix.into();
    }
    let life = form.text("expires_in");
    if !life.is_empty() {
        let seconds: u32 = life
            .parse()
            .map_err(|_| HttpError::bad_request("The end is a whole number of seconds."))?;
        parameters["expires_in"] = seconds.into();
    }
    Ok(parameters)
}

fn refusal(view: &InstanceView) -> Option<&'static str> {
    match view.of.instance.state {
        InstanceState::Ready => None,
        InstanceState::Provisioning => Some("The instance is being made; it has no users yet."),
        InstanceState::Failed => Some("The instance could not be made, so it has no users."),
        InstanceState::Deleting => Some("The instance is being deleted, with its users."),
    }
}

/// What is told of what was made just now.
fn message(credentials: &Credentials, made: Option<&str>) -> Option<String> {
    let of = credentials
        .all
        .iter()
        .find(|of| Some(of.binding.id.as_str()) == made)?;
    let name = name_of(&of.binding);
    match of.binding.state {
        BindingState::Creating => Some(format!("{name} is being made.")),
        BindingState::Ready if of.waits_to_be_shown() => {
            Some(format!("{name} is ready. Show it below: that works once."))
        }
        BindingState::Failed => Some(format!("{name} could not be made.")),
        _ => None,
    }
}

fn name_of(binding: &Binding) -> String {
    let made = binding.request.on_page.as_ref();
    made.map_or_else(|| binding.id.to_string(), |made| made.name.clone())
}

fn row(view: &InstanceView, page: &str, of: &Credential, down: Option<DownReason>) -> Row {
    let binding = &of.binding;
    let made_here = binding.request.on_page.as_ref();
    let is_ready = binding.state == BindingState::Ready && !binding.is_expired(view.now);
    let is_there = !matches!(
        binding.state,
        BindingState::Deleting | BindingState::Expiring
    );
    Row {
        // Our own, where the binding's id may be any text.
        mark: binding.database_user.clone(),
        href: format!("{page}/{}", binding.id.in_path()),
        name: name_of(binding),
        label: label_of_binding(binding.state, down),
        state: binding.state.as_str(),
        rights: rights(binding),
        made: Moment::new(binding.created_at, view.now),
        by: match made_here {
            Some(_) => "on this page",
            None => "by the platform",
        },
        with: made_here.and_then(|made| made.with.as_ref().map(BindingId::to_string)),
        user: binding.database_user.clone(),
        id: binding.id.to_string(),
        expires: binding.expires_at.map(|at| Moment::new(at, view.now)),
        failure: of.failure.clone(),
        can_show: is_ready && of.may_end && of.waits_to_be_shown(),
        can_rotate: is_ready && of.may_end,
        can_revoke: is_there && of.may_end,
        is_foreign: !of.may_end,
    }
}

/// What the user of a binding may do, in words.
fn rights(binding: &Binding) -> String {
    let read = BindParameters::read(&binding.request.parameters);
    let rights = read.map(|asked| asked.rights()).unwrap_or_default();
    let what = match rights.role {
        Role::Reader => "Reads",
        Role::Writer => "Reads and writes",
    };
    if rights.prefix.is_empty() {
        format!("{what} every key")
    } else {
        format!("{what} keys that begin with {}", rights.prefix)
    }
}

/// The addresses in credentials, user and password in each.
fn uris(credentials: &Value) -> Vec<String> {
    let others = (1..).map(|i| &credentials[format!("uri_direct_{i}")]);
    std::iter::once(&credentials["uri"])
        .chain(others)
        .map_while(|uri| uri.as_str().map(str::to_owned))
        .collect()
}

/// User and password, as they stand in the first address. Both are of letters and digits that need no
/// escape.
fn login(uris: &[String]) -> (String, String) {
    let url = uris.first().and_then(|uri| Url::parse(uri).ok());
    url.map_or_else(Default::default, |url| {
        let password = url.password().unwrap_or_default();
        (url.username().to_owned(), password.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_login_are_read_from_credentials() {
        let credentials = json!({
            "uri": "https://u1:p-_2@db.example:1/",
            "uri_direct_1": "https://u1:p-_2@db.example:2/",
            "uri_cli": "tool --user u1",
        });
        let found = uris(&credentials);
        assert_eq!(found.len(), 2);
        assert_eq!(login(&found), ("u1".to_owned(), "p-_2".to_owned()));
        assert_eq!(login(&[]), (String::new(), String::new()));
    }
}
