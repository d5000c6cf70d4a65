//! The door: signing in and out, one-time links, the cookie, and who gets past.

use actix_web::{
    Error, HttpMessage as _, HttpRequest, HttpResponse, ResponseError as _,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Method, StatusCode,
        header::{COOKIE, ContentType, HeaderMap, LOCATION, ORIGIN, SET_COOKIE},
    },
    middleware::Next,
    web,
};
use askama::Template;
use url::Url;

use super::{
    AUDIT, Answer, Api, CLUSTERS, INSTANCES, LATE_BACKUPS, OPERATIONS,
    error::PageError,
    form_of, parameters_of_latest, path_of,
    shell::{Shell, answer, note},
};
use crate::{
    broker::{BrokerError, Fate, Left, SignInWay, SignedIn, read_only},
    caller::Caller,
    http::{
        error::HttpError,
        id::{PathId as _, path_id},
        origin::ClientAddress,
        request::{Form, query},
    },
    model::{
        ids::InstanceId,
        limits::SESSION_TTL,
        secret::Secret,
        sentence::{counted, is_or_are},
        session::{Scope, Session},
        trouble::Moment,
    },
};

/// The cookie's name.
const COOKIE_NAME: &str = "compose_broker_session";
/// By what an open page asks what became of what it shows.
const PAGE_CODE: &str = "x-page";
/// What it is told.
const FATE: &str = "x-fate";
/// Where the door is.
const SIGN_IN: &str = "/dashboard/sign-in";
/// The way out.
const SIGN_OUT: &str = "/dashboard/sign-out";

/// Sends a browser elsewhere.
pub fn see_other(path: &str) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((LOCATION, path))
        .finish()
}

/// Lets a request in that has a good session; everybody else is sent to the door. An open page that asks
/// whether it is still true learns what became of what it shows.
pub async fn guard<B: MessageBody + 'static>(
    api: web::Data<Api>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let response = match session_of(&api, request.headers()).await {
        // What only reads is in no audit, and pages are read again and again.
        Ok(Some(session)) if request.method().is_safe() => {
            let fate = fate_of(&api, request.headers());
            let of = session.clone();
            request.extensions_mut().insert(session);
            let response = next.call(request).await?;
            if response.status() != StatusCode::NOT_FOUND {
                return Ok(response.map_into_left_body());
            }
            let told = match fate.await {
                None => gone(&api, &of, response.request()).await,
                told => told,
            };
            return Ok(match told {
                Some(told) => response.into_response(told).map_into_right_body(),
                None => response.map_into_left_body(),
            });
        }
        // Nobody is kept in.
        Ok(Some(session)) if session.is_read_only() && !is_way_out(request.path()) => {
            PageError::from(read_only()).error_response()
        }
        Ok(Some(session)) => {
            let caller = match api.broker.sessions.user_of(&session).await {
                Ok(user) => Caller {
                    platform: Some("dashboard".to_owned()),
                    user: Some(user),
                    ..Caller::current()
                },
                Err(error) => {
                    let response = PageError::from(error).error_response();
                    return Ok(request.into_response(response).map_into_right_body());
                }
            };
            request.extensions_mut().insert(session);
            let response = caller.during(next.call(request)).await?;
            return Ok(response.map_into_left_body());
        }
        Ok(None) => match fate_of(&api, request.headers()).await {
            Some(told) => told,
            None => see_other(&door_of(&request)),
        },
        Err(error) => PageError(error).error_response(),
    };
    Ok(request.into_response(response).map_into_right_body())
}

fn is_way_out(path: &str) -> bool {
    path.trim_end_matches('/') == SIGN_OUT
}

/// What an open page is told in place of itself, which is not to be had any more; none for a visitor
/// without one.
fn fate_of(
    api: &web::Data<Api>,
    headers: &HeaderMap,
) -> impl Future<Output = Option<HttpResponse>> + use<> {
    let code = headers.get(PAGE_CODE).and_then(|code| code.to_str().ok());
    let (api, code) = (api.clone(), code.map(str::to_owned));
    async move {
        let (told, more) = match api.broker.fates.of(&code?).await {
            Ok(fate) => match fate? {
                Fate::There => ("signed-out", String::new()),
                Fate::Deleting => ("deleting", String::new()),
                Fate::Deleted { left } => ("deleted", what_is_left(left)),
            },
            Err(error) => return Some(PageError::from(error).error_response()),
        };
        let mut response = HttpResponse::Ok();
        response.insert_header((FATE, told));
        Some(response.content_type(ContentType::plaintext()).body(more))
    }
}

/// What an operator is shown at the address of an instance that was deleted; none for all others.
async fn gone(api: &Api, session: &Session, request: &HttpRequest) -> Option<HttpResponse> {
    let is_of_instance = request.match_info().get(InstanceId::PLACE).is_some();
    if session.scope != Scope::Operator || !is_of_instance {
        return None;
    }
    let id = path_id(request).ok()?;
    let gone = match api.broker.fates.of_id(id).await {
        Ok(gone) => gone?,
        Err(error) => return Some(PageError::from(error).error_response()),
    };
    let title = format!("{} was deleted", gone.name);
    let shell = Shell::signed_in(title, &api.broker, session);
    Some(note(
        StatusCode::NOT_FOUND,
        shell,
        &what_is_left(Some(gone.left)),
    ))
}

/// What the page of an instance that is gone says of its backups.
fn what_is_left(left: Option<Left>) -> String {
    let Some(left) = left else {
        return "No backup of it is kept.".to_owned();
    };
    let (backups, are) = (counted(left.backups, "backup"), is_or_are(left.backups));
    format!(
        "{backups} of it {are} kept until {}. Until then, a new instance in the same organization and space can be \
         made of them, with these parameters: {}",
        Moment(left.until),
        parameters_of_latest(&left.instance),
    )
}

/// The page that a form is on, by where the form is sent to.
fn page_of_form(path: &str) -> &str {
    const PAGES: [&str; 5] = [
        "/backups",
        "/versions",
        "/credentials",
        "/settings",
        "/activity",
    ];
    if path.starts_with(OPERATIONS) {
        return OPERATIONS;
    }
    // Behind the instance, whose id has no slash as it stands in a path.
    let below = path.match_indices('/').nth(3);
    let Some((at, _)) = below else { return path };
    let page = PAGES.into_iter().find(|page| path[at..].starts_with(page));
    &path[..at + page.map_or(0, str::len)]
}

/// The door, with the way back to what was asked for.
fn door_of(request: &ServiceRequest) -> String {
    let path = request
        .uri()
        .path_and_query()
        .map_or("", |path| path.as_str());
    // What was to be done has to be asked for again, on the page that it was asked for on.
    let page = match request.method() {
        &Method::GET => path,
        _ => page_of_form(path),
    };
    let next: String = url::form_urlencoded::byte_serialize(page.as_bytes()).collect();
    format!("{SIGN_IN}?next={next}")
}

async fn session_of(api: &Api, headers: &HeaderMap) -> Result<Option<Session>, HttpError> {
    match cookie(headers) {
        Some(cookie) => Ok(api.broker.sessions.of_cookie(cookie).await?),
        None => Ok(None),
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(COOKIE)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE_NAME && !value.is_empty()).then_some(value))
}

fn set_cookie(api: &Api, value: &str, seconds: u64) -> String {
    let secure = if api.broker.public_url.starts_with("https://") {
        "; Secure"
    } else {
        ""
    };
    format!(
        "{COOKIE_NAME}={value}; Path=/dashboard; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"
    )
}

/// A path of the dashboard that somebody may be sent to; none for everything else.
fn own_path(next: &str) -> Option<String> {
    // Any base serves: a path stays on it, everything else leaves it.
    let base = Url::parse("http://own.invalid/").ok()?;
    let url = base.join(next).ok()?;
    let pages = [INSTANCES, OPERATIONS, LATE_BACKUPS, CLUSTERS, AUDIT];
    let own = url.origin() == base.origin()
        && next.starts_with("/dashboard")
        && pages.iter().any(|page| url.path().starts_with(page));
    own.then(|| match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    })
}

/// The instance that a path of the dashboard is about.
fn instance_in(path: &str) -> Option<InstanceId> {
    let rest = path.strip_prefix(INSTANCES)?.strip_prefix('/')?;
    let part = rest.split(['/', '?']).next()?;
    // The decoder reads a plus sign as a space; in a path it is none.
    let form = format!("id={}", part.replace('+', "%2B"));
    let (_, id) = url::form_urlencoded::parse(form.as_bytes()).next()?;
    id.parse().ok()
}

/// Where a session begins: where its owner wanted to go, if it reaches that.
async fn beginning(api: &Api, session: &Session, next: &str) -> Result<String, HttpError> {
    let wanted = own_path(next);
    Ok(match (&session.scope, wanted) {
        (Scope::Operator, Some(path)) => path,
        (Scope::Operator, None) => INSTANCES.to_owned(),
        (Scope::Instance(own), wanted) => {
            let reached = match wanted.as_deref().and_then(instance_in) {
                Some(id) => api.broker.sessions.reaches(session, id).await?,
                None => false,
            };
            let home = || path_of(own);
            wanted.filter(|_| reached).unwrap_or_else(home)
        }
    })
}

/// Whether a form was sent by a page of ours: browsers tell, and no page can make them lie. Who
/// tells nothing is no browser.
fn is_from_own_page(request: &HttpRequest, api: &Api) -> bool {
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .map(|v| v.to_str().unwrap_or(""))
    };
    if let Some(site) = header("sec-fetch-site") {
        return ["same-origin", "none"].contains(&site);
    }
    let Some(origin) = header(ORIGIN.as_str()) else {
        return true;
    };
    let of_host = header("host").is_some_and(|host| {
        let own = |scheme: &str| origin.eq_ignore_ascii_case(&format!("{scheme}://{host}"));
        own("http") || own("https")
    });
    let public = Url::parse(&api.broker.public_url);
    of_host || public.is_ok_and(|url| url.origin().ascii_serialization() == origin)
}

fn check_origin(request: &HttpRequest, api: &Api) -> Result<(), HttpError> {
    if is_from_own_page(request, api) {
        return Ok(());
    }
    Err(BrokerError::Denied("This form was sent by a page of another site.".to_owned()).into())
}

#[derive(Template)]
#[template(path = "sign_in.html", whitespace = "minimize")]
struct SignInPage<'a> {
    shell: Shell,
    message: Option<String>,
    next: &'a str,
}

/// `GET /`: people who know only where the broker is.
pub async fn root() -> HttpResponse {
    see_other("/dashboard")
}

/// `GET /dashboard`
pub async fn home(api: web::Data<Api>, request: HttpRequest) -> Answer {
    Ok(match session_of(&api, request.headers()).await? {
        Some(session) => see_other(&beginning(&api, &session, "").await?),
        None => see_other(SIGN_IN),
    })
}

/// `GET /dashboard/sign-in`
pub async fn sign_in_page(request: HttpRequest) -> Answer {
    let next = query(&request, "next").unwrap_or_default();
    let page = SignInPage {
        shell: Shell::new("Sign in"),
        message: None,
        next: &own_path(&next).unwrap_or_default(),
    };
    Ok(answer(StatusCode::OK, &page))
}

/// `POST /dashboard/sign-in`
pub async fn sign_in(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Answer {
    check_origin(&request, &api)?;
    let form = Form::read(payload).await?;
    let next = form.text("next");
    let way = match form.text("way") {
        "token" => SignInWay::Token(Secret::new(form.text("token").trim())),
        "operator" => SignInWay::Operator {
            username: form.text("username").to_owned(),
            password: Secret::new(form.text("password")),
        },
        _ => return Err(HttpError::bad_request("There is no such way to sign in.").into()),
    };
    match enter(&api, &request, way, next).await {
        Err(HttpError::Broker(error @ (BrokerError::Denied(_) | BrokerError::Throttled(_)))) => {
            let page = SignInPage {
                shell: Shell::new("Sign in"),
                message: Some(error.to_string()),
                next: &own_path(next).unwrap_or_default(),
            };
            Ok(PageError::from(error).with_page(|status| answer(status, &page)))
        }
        other => Ok(other?),
    }
}

async fn enter(
    api: &Api,
    request: &HttpRequest,
    way: SignInWay,
    next: &str,
) -> Result<HttpResponse, HttpError> {
    let ClientAddress(address) = ClientAddress::of(request)
        .ok_or_else(|| HttpError::bad_request("Nobody knows where this request comes from."))?;
    let SignedIn { cookie, session } = api.broker.sessions.sign_in(address, way).await?;
    let mut response = see_other(&beginning(api, &session, next).await?);
    let value = set_cookie(api, cookie.expose(), SESSION_TTL.as_secs());
    if let Ok(value) = value.parse() {
        response.headers_mut().insert(SET_COOKIE, value);
    }
    Ok(response)
}

#[derive(Template)]
#[template(path = "link.html", whitespace = "minimize")]
struct LinkPage<'a> {
    shell: Shell,
    code: &'a str,
}

/// `GET /dashboard/link`: a page with a button. Programs that look at every link they see in a
/// mail do not press it.
pub async fn link_page(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let code = query(&request, "code").unwrap_or_default();
    api.broker.sessions.check_link(&code).await?;
    let page = LinkPage {
        shell: Shell::new("A link to a dashboard"),
        code: &code,
    };
    Ok(answer(StatusCode::OK, &page))
}

/// `POST /dashboard/link`
pub async fn redeem(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> Answer {
    check_origin(&request, &api)?;
    let form = Form::read(payload).await?;
    let way = SignInWay::Link(form.text("code").to_owned());
    Ok(enter(&api, &request, way, "").await?)
}

/// `POST /dashboard/sign-out`
pub async fn sign_out(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    payload: web::Payload,
) -> Answer {
    form_of(&api, &session, payload).await?;
    api.broker.sessions.sign_out(&session).await?;
    let mut response = see_other(SIGN_IN);
    if let Ok(value) = set_cookie(&api, "", 0).parse() {
        response.headers_mut().insert(SET_COOKIE, value);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_another_place() {
        for (next, path) in [
            ("/dashboard/instances", Some("/dashboard/instances")),
            (
                "/dashboard/instances/a%2Fb/backups?kind=daily",
                Some("/dashboard/instances/a%2Fb/backups?kind=daily"),
            ),
            ("", None),
            ("/", None),
            ("/v2/catalog", None),
            ("//evil.example/dashboard/instances", None),
            ("/\\evil.example/dashboard/instances", None),
            ("https://evil.example/dashboard/instances", None),
            ("/dashboard/../v2/catalog", None),
            ("/dashboard/instances/../../v2/catalog", None),
            ("/dashboard/instances/%2e%2e/%2E%2e/v2", None),
            ("javascript:alert(1)", None),
            ("dashboard/instances", None),
            ("/dashboard/sign-out", None),
            (
                "/dashboard/operations?state=stuck",
                Some("/dashboard/operations?state=stuck"),
            ),
            ("/dashboard/audit", Some("/dashboard/audit")),
            ("/dashboard/operations/../sign-out", None),
            ("/dashboard@evil.example/dashboard/instances", None),
        ] {
            assert_eq!(own_path(next).as_deref(), path, "{next}");
        }
        let safe = own_path("/dashboard/instances/\r\nset-cookie: x").expect("made harmless");
        assert!(safe.bytes().all(|byte| byte.is_ascii_graphic()), "{safe}");
    }

    #[test]
    fn the_instance_in_a_path_is_found() {
        for id in ["plain", "a/b", "a b+c", "é?", "100%"] {
            let id: InstanceId = id.parse().expect("an id");
            for path in ["", "/backups", "?x=y"] {
                let path = format!("/dashboard/instances/{}{path}", id.in_path());
                assert_eq!(instance_in(&path).as_ref(), Some(&id), "{path}");
            }
        }
        assert_eq!(instance_in("/dashboard/instances"), None);
        assert_eq!(instance_in("/dashboard/instances/"), None);
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        assert_eq!(cookie(&headers), None);
        let value = format!("a=b; {COOKIE_NAME}=c=d; e");
        headers.insert(COOKIE, value.parse().expect("a header"));
        assert_eq!(cookie(&headers), Some("c=d"));
    }
}
