//! Pages for who runs the broker: what needs a look, in numbers that lead to lists, and the lists.

use actix_web::{
    Error, HttpMessage as _, HttpRequest, ResponseError as _,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
};

use super::{Api, INSTANCES, LATE_BACKUPS, OPERATIONS, error::PageError};
use crate::{
    broker::{BrokerError, Estate, no_such_page},
    http::request::query,
    model::{
        health::HealthState,
        ids::InstanceId,
        operation::OperationState,
        session::{Scope, Session},
    },
};

pub mod audit;
pub mod backups;
pub mod clusters;
pub mod deleted;
pub mod operations;
pub mod webhook;

/// How instances may be that somebody should look at, the worst in front. Each has its place whether there
/// are any or not, so that no number moves when another changes.
const UNWELL: [HealthState; 6] = [
    HealthState::Down,
    HealthState::Stuck,
    HealthState::Failed,
    HealthState::ReadOnly,
    HealthState::Degraded,
    HealthState::Unknown,
];

/// Operations in these states are counted on every page, the most urgent in front.
const COUNTED: [(OperationState, &str, &str); 4] = [
    (OperationState::Stuck, "stuck", "bad"),
    (OperationState::Failed, "failed", "warn"),
    (OperationState::Running, "running", ""),
    (OperationState::Queued, "waiting", ""),
];

/// Lets sessions in that see every instance; to all others there is no such page.
pub async fn guard<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let scope = request
        .extensions()
        .get()
        .map(|of: &Session| of.scope.clone());
    if scope == Some(Scope::Operator) {
        return Ok(next.call(request).await?.map_into_left_body());
    }
    let response = PageError::from(no_such_page()).error_response();
    Ok(request.into_response(response).map_into_right_body())
}

/// A number that leads to the list of what it counts.
pub struct Count {
    pub href: String,
    pub number: u64,
    pub what: String,
    pub tone: &'static str,
}

impl Count {
    fn of(number: u64, what: impl Into<String>, tone: &'static str, href: String) -> Self {
        Self {
            href,
            number,
            what: what.into(),
            // What is not there is no reason for a look.
            tone: if number == 0 { "muted" } else { tone },
        }
    }
}

/// What needs a look, and what goes on.
pub async fn counts(api: &Api, estate: &Estate) -> Result<Vec<Count>, BrokerError> {
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let all = number(estate.instances.len());
    let mut counts = vec![Count::of(
        all,
        as_many(all, "instance"),
        "",
        INSTANCES.to_owned(),
    )];
    for state in UNWELL {
        let of_it = number(estate.count(state));
        let href = format!("{INSTANCES}?health={}", state.as_str());
        let tone = super::state::label_of_health(state).tone;
        counts.push(Count::of(of_it, state.word().to_lowercase(), tone, href));
    }
    let late = number(
        estate
            .instances
            .iter()
            .filter(|of| of.late.is_some())
            .count(),
    );
    counts.push(Count::of(
        late,
        as_many(late, "late backup"),
        "bad",
        LATE_BACKUPS.to_owned(),
    ));
    let operations = api.broker.estates.operation_counts().await?;
    for (state, what, tone) in COUNTED {
        let of_it = operations.iter().find(|(of, _)| *of == state);
        let of_it = of_it.map_or(0, |(_, count)| *count);
        let href = format!("{OPERATIONS}?state={}", state.as_str());
        counts.push(Count::of(
            of_it,
            as_many(of_it, &format!("{what} operation")),
            tone,
            href,
        ));
    }
    Ok(counts)
}

/// What is counted, in one or in many.
fn as_many(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{what}{plural}")
}

/// `1 try`, `3 tries`.
fn tries(count: u32) -> String {
    if count == 1 {
        "1 try".to_owned()
    } else {
        format!("{count} tries")
    }
}

/// Which instance a list is held to.
pub enum Meant {
    /// None: the list has all.
    All,
    /// This one.
    One(InstanceId),
    /// Several are called so.
    Several(Vec<InstanceId>),
    /// What was given is neither an id nor a name.
    Nobody,
}

impl Meant {
    /// Whom a text means: an instance that is there, by its id, else by what people call it; else one that is
    /// gone, by its id.
    pub fn by(text: &str, estate: &Estate) -> Self {
        if text.is_empty() {
            return Self::All;
        }
        let id: Option<InstanceId> = text.parse().ok();
        let all = || estate.instances.iter();
        if let Some(id) = &id
            && all().any(|of| of.instance.id == *id)
        {
            return Self::One(id.clone());
        }
        let called = all().filter(|of| of.instance.name.as_deref() == Some(text));
        let mut called: Vec<InstanceId> = called.map(|of| of.instance.id.clone()).collect();
        match (called.len(), id) {
            (0, Some(id)) => Self::One(id),
            (0, None) => Self::Nobody,
            (1, _) => called.pop().map_or(Self::Nobody, Self::One),
            _ => Self::Several(called),
        }
    }

    /// The instance, where it is one.
    pub fn one(&self) -> Option<InstanceId> {
        match self {
            Self::One(id) => Some(id.clone()),
            Self::All | Self::Several(_) | Self::Nobody => None,
        }
    }

    /// Links to the lists of those that are called so, where it is several.
    pub fn links(&self, path: &str) -> Vec<(String, String)> {
        let Self::Several(ids) = self else {
            return Vec::new();
        };
        let link = |id: &InstanceId| (address(path, &[("instance", id.as_str())]), id.to_string());
        ids.iter().map(link).collect()
    }
}

/// The page that the query asks for; the first one is 1.
pub fn page_number(request: &HttpRequest) -> usize {
    let number = query(request, "page").and_then(|page| page.parse().ok());
    number.unwrap_or(1)
}

/// An address with what is asked for in its query, without what is empty.
pub fn address(path: &str, query: &[(&str, &str)]) -> String {
    let mut pairs = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in query {
        if !value.is_empty() {
            pairs.append_pair(name, value);
        }
    }
    let query = pairs.finish();
    if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    }
}

/// One of the things that a list can be held to.
pub struct Choice {
    pub value: String,
    pub label: String,
    pub is_chosen: bool,
}

impl Choice {
    /// Anything at all, and then these, by what addresses and people call them.
    pub fn among(
        all: &str,
        values: impl IntoIterator<Item = (String, String)>,
        chosen: &str,
    ) -> Vec<Self> {
        let any = (String::new(), all.to_owned());
        let values = std::iter::once(any).chain(values);
        let choice = |(value, label): (String, String)| Self {
            is_chosen: value == chosen,
            value,
            label,
        };
        values.map(choice).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_hold_what_is_asked_for() {
        assert_eq!(address("/x", &[("a", ""), ("b", "")]), "/x");
        let asked = [("a", ""), ("b", "1 & 2"), ("c", "ü")];
        assert_eq!(address("/x", &asked), "/x?b=1+%26+2&c=%C3%BC");
    }
}
