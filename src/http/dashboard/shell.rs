//! What stands around every page: title, subject, navigation; and pages that tell of errors.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header::ContentType},
};
use askama::Template;

use super::{assets, path_of};
use crate::{
    broker::{Broker, InstanceView},
    http::request::query,
    model::{
        ids::InstanceId,
        limits::{PAGE_FOLLOWED_EVERY, PAGE_REFRESHED_EVERY},
        session::{Scope, Session},
    },
};

/// The frame of a page.
pub struct Shell {
    /// The page's title.
    pub title: String,
    /// The entry of the navigation that the page is, if it is one.
    pub here: &'static str,
    /// The instance that it is about.
    pub subject: Option<Subject>,
    /// Who is signed in.
    pub visitor: Option<Visitor>,
    /// Whether work is under way that the page shows: it is fetched again at once.
    pub under_way: bool,
    /// Whether something is about to be known that the page shows: it is fetched again soon.
    pub awaits: bool,
    /// Whether the page is fetched again while it is open, so that it stays true. Not for what an
    /// answer to a form shows once.
    pub follows: bool,
    /// What became of a form on another page that led here.
    pub said: Option<String>,
    /// When it was made, in milliseconds since 1970: the page's times count on from there.
    pub now: Option<i64>,
    /// Where the assets are.
    pub assets: assets::Paths,
}

/// The address of a page that one comes to after the deletion of an instance was asked for: it says how far that is.
pub fn after_deletion_of(instance: &InstanceId, page: &str) -> String {
    format!("{page}?{DELETED}={}", instance.in_path())
}

/// The instance whose deletion was asked for before one came to a page.
pub fn deletion_asked(request: &HttpRequest) -> Option<InstanceId> {
    query(request, DELETED)?.parse().ok()
}

/// What a page says of a deletion that goes on.
pub fn is_being_deleted(name: &str) -> String {
    format!("{name} is being deleted.")
}

/// By what an address names the instance whose deletion was asked for.
const DELETED: &str = "deleted";

/// The instance that a page is about.
pub struct Subject {
    /// Its offering.
    pub offering: String,
    /// What it is called.
    pub name: String,
    /// The path of its overview.
    pub href: String,
    /// By what the page asks what became of it.
    pub code: String,
}

impl Subject {
    /// That of the page of an instance.
    pub fn of(view: &InstanceView) -> Self {
        Self {
            offering: view.offering.clone(),
            name: view.name().to_owned(),
            href: path_of(&view.of.instance.id),
            code: view.page_code.clone(),
        }
    }
}

/// Who is signed in.
pub struct Visitor {
    /// What the visitor's forms carry.
    pub csrf: String,
    /// Whether every instance is open to them.
    pub is_operator: bool,
    /// Whether they may change nothing.
    pub is_read_only: bool,
}

impl Shell {
    /// The frame of a page for anybody.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            here: "",
            subject: None,
            visitor: None,
            under_way: false,
            awaits: false,
            follows: false,
            said: None,
            now: None,
            assets: assets::paths(),
        }
    }

    /// The frame of a page for the user of the session.
    pub fn signed_in(title: impl Into<String>, broker: &Broker, session: &Session) -> Self {
        Self {
            visitor: Some(Visitor {
                csrf: broker.sessions.form_token(session),
                is_operator: session.scope == Scope::Operator,
                is_read_only: session.is_read_only(),
            }),
            now: Some(broker.clock.now().timestamp_millis()),
            ..Self::new(title)
        }
    }

    /// The same of one of the pages of an instance, which is `of` it: its settings, say.
    pub fn of_instance(of: &str, view: &InstanceView, broker: &Broker, session: &Session) -> Self {
        Self {
            subject: Some(Subject::of(view)),
            ..Self::signed_in(format!("{of} of {}", view.name()), broker, session)
        }
    }

    /// After how many milliseconds the page is fetched again; none: it stays as it is.
    pub fn every(&self) -> Option<u128> {
        let every = if self.under_way || self.awaits {
            Some(PAGE_FOLLOWED_EVERY)
        } else {
            self.follows.then_some(PAGE_REFRESHED_EVERY)
        };
        every.map(|every| every.as_millis())
    }

    /// Whether every instance is open to the visitor.
    pub fn is_operator(&self) -> bool {
        self.visitor.as_ref().is_some_and(|v| v.is_operator)
    }

    /// Whether the visitor's forms would be taken.
    pub fn may_change(&self) -> bool {
        self.visitor.as_ref().is_some_and(|v| !v.is_read_only)
    }

    /// What the visitor's forms carry.
    pub fn csrf(&self) -> &str {
        self.visitor.as_ref().map_or("", |v| &v.csrf)
    }
}

/// An answer with a page.
pub fn answer(status: StatusCode, page: &impl Template) -> HttpResponse {
    match page.render() {
        Ok(html) => HttpResponse::build(status)
            .content_type(ContentType::html())
            .body(html),
        Err(error) => {
            log::error!("a page cannot be made: {error}");
            HttpResponse::build(StatusCode::INTERNAL_SERVER_ERROR).finish()
        }
    }
}

#[derive(Template)]
#[template(path = "error.html", whitespace = "minimize")]
struct ErrorPage<'a> {
    shell: Shell,
    message: &'a str,
    advice: &'static str,
}

/// A page that tells of an error, and of what to do next. It is the same for everybody.
pub fn error_page(status: StatusCode, message: &str) -> HttpResponse {
    let (title, advice) = match status {
        StatusCode::BAD_REQUEST => ("That did not work", "Go back, correct it, and try again."),
        StatusCode::FORBIDDEN => ("Not allowed", "Nothing was changed."),
        StatusCode::NOT_FOUND => (
            "Not found",
            "Check the address; the instance may have been deleted. Backups of deleted instances are kept for a \
             while: operators find them under Deleted.",
        ),
        StatusCode::CONFLICT => ("Not now", "Nothing was changed."),
        StatusCode::TOO_MANY_REQUESTS => ("Too much at once", "Wait a moment, then try again."),
        status if status.is_server_error() => (
            "Something is wrong on our side",
            "Your databases go on meanwhile. Try again in a minute; if it stays so, tell the one who \
             runs the broker.",
        ),
        _ => ("That did not work", "Go back, and try again."),
    };
    let page = ErrorPage {
        shell: Shell::new(title),
        message,
        advice,
    };
    answer(status, &page)
}

/// A page that says one thing to a visitor, where there is nothing else to show.
pub fn note(status: StatusCode, shell: Shell, message: &str) -> HttpResponse {
    let page = ErrorPage {
        shell,
        message,
        advice: "",
    };
    answer(status, &page)
}
