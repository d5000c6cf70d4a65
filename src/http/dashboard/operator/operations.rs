//! Operations of all instances: which go on, which do not, why, and an operator's word on them.

use actix_web::{HttpRequest, http::StatusCode, web};
use askama::Template;
use chrono::{DateTime, TimeDelta, Utc};

use super::{Choice, Count, Meant, address, counts, tries};
use crate::{
    broker::{BrokerError, OperationDetail, OperationsPage, OperationsQuery, StepTold, status_of},
    http::dashboard::{
        Answer, Api, OPERATIONS,
        door::see_other,
        error::PageError,
        form_of,
        id::Id,
        path_of,
        shell::{Shell, answer},
        show::{Moment, counted, dates_whole, duration},
        state::{Label, label_of_operation},
    },
    http::request::query,
    model::{
        ids::OperationId,
        instance::Names,
        limits::ROWS_ON_A_PAGE,
        operation::{Operation, OperationKind, OperationState},
        oversight::{Overseen, StepSeen},
        session::Session,
        trouble::Moment as At,
    },
};

/// What the list calls operations that a deletion stopped. They are no failed ones.
const STOPPED: &str = "stopped";

/// States that a list can be held to, with what people call them.
const STATES: [(OperationState, &str); 6] = [
    (OperationState::Queued, "Waiting"),
    (OperationState::Running, "Running"),
    (OperationState::Stuck, "Stuck"),
    (OperationState::Failed, "Failed"),
    (OperationState::Abandoned, "Given up"),
    (OperationState::Succeeded, "Complete"),
];

#[derive(Template)]
#[template(path = "operator_operations.html", whitespace = "minimize")]
struct ListPage {
    shell: Shell,
    counts: Vec<Count>,
    states: Vec<Choice>,
    kinds: Vec<Choice>,
    instance: String,
    rows: Vec<Row>,
    newest: Option<String>,
    older: Option<String>,
    /// Those that are called as was asked for, where it is several.
    called: Vec<(String, String)>,
}

struct Row {
    href: String,
    id: String,
    what: String,
    instance_href: String,
    /// What people call it, where that is known.
    name: Option<String>,
    instance: String,
    label: Label,
    says: String,
    trouble: Option<String>,
    next_try: Option<Moment>,
    /// Through which door it was asked for.
    by: &'static str,
    /// Who stood there; empty where nobody knows.
    user: String,
    since: Moment,
    moved: Moment,
}

impl Row {
    fn of(
        seen: &Overseen,
        (name, user): (Option<&String>, Option<&String>),
        now: DateTime<Utc>,
    ) -> Self {
        let operation = &seen.operation;
        let waits = operation.state == OperationState::Queued && seen.not_before > now;
        let trouble = operation.trouble.as_ref().map(|trouble| {
            let tries = tries(trouble.tries);
            let since = At(trouble.since);
            dates_whole(&format!(
                "{tries} in a row came to nothing since {since}: {}",
                trouble.reason
            ))
        });
        Self {
            href: format!("{OPERATIONS}/{}", operation.id),
            id: operation.id.to_string(),
            what: operation.words().into_owned(),
            instance_href: path_of(&operation.instance),
            // One that is its id says nothing more.
            name: name
                .filter(|name| *name != operation.instance.as_str())
                .cloned(),
            instance: operation.instance.to_string(),
            label: label_of_operation(operation),
            says: dates_whole(&says(operation, now)),
            trouble,
            next_try: waits.then(|| Moment::new(seen.not_before, now)),
            by: operation.origin.words(),
            user: user.cloned().unwrap_or_default(),
            since: Moment::new(operation.created_at, now),
            moved: Moment::new(operation.updated_at, now),
        }
    }
}

/// What came of it, or how far it is. What keeps it from getting on stands beside it.
fn says(operation: &Operation, now: DateTime<Utc>) -> String {
    match (&operation.failure, operation.state) {
        (Some(failure), _) => failure.clone(),
        (None, OperationState::Succeeded) => {
            let took = duration(operation.updated_at - operation.created_at);
            format!("It took {took}.")
        }
        (None, OperationState::Queued | OperationState::Running) => operation.standing(),
        _ => status_of(operation, now).description,
    }
}

/// What the list can be held to, by what addresses and people call it.
fn states() -> impl Iterator<Item = (String, String)> {
    let states = STATES.map(|(state, label)| (state.as_str(), label));
    let states = states.into_iter().chain([(STOPPED, "Stopped")]);
    states.map(|(state, label)| (state.to_owned(), label.to_owned()))
}

/// Whether a list that is held to this state has those that were halted; none: it does not matter.
fn halted(state: &str) -> Option<bool> {
    match state {
        STOPPED => Some(true),
        failed if failed == OperationState::Failed.as_str() => Some(false),
        _ => None,
    }
}

/// `GET /dashboard/operations`
pub async fn page(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    request: HttpRequest,
) -> Answer {
    let given = |name: &str| query(&request, name).unwrap_or_default().trim().to_owned();
    let (state, kind, instance, before) = (
        given("state"),
        given("kind"),
        given("instance"),
        given("before"),
    );
    let estate = api.broker.estates.estate().await?;
    let meant = Meant::by(&instance, &estate);
    let asked = OperationsQuery {
        state: OperationState::parse(&state),
        halted: halted(&state),
        kind: OperationKind::parse(&kind),
        instance: meant.one(),
        before: before.parse().ok(),
        limit: Some(ROWS_ON_A_PAGE),
        ..OperationsQuery::default()
    };
    let found = if matches!(meant, Meant::Several(_) | Meant::Nobody) {
        OperationsPage {
            operations: Vec::new(),
            names: Names::new(),
            next: None,
        }
    } else {
        api.broker.oversight.operations(asked).await?
    };
    let link = |before: &str| {
        let query = [
            ("state", state.as_str()),
            ("kind", &kind),
            ("instance", &instance),
            ("before", before),
        ];
        address(OPERATIONS, &query)
    };
    let mut shell = Shell::signed_in("Operations", &api.broker, &session);
    shell.here = "operations";
    shell.follows = true;
    shell.under_way = (found.operations.iter()).any(|seen| seen.operation.state.is_active());
    let kinds = OperationKind::ALL.map(|kind| (kind.to_string(), kind.words().to_owned()));
    let page = ListPage {
        shell,
        counts: counts(&api, &estate).await?,
        states: Choice::among("Any state", states(), &state),
        kinds: Choice::among("Any kind", kinds, &kind),
        rows: rows(&api, &found).await?,
        newest: (!before.is_empty()).then(|| link("")),
        older: found.next.map(|id| link(id.as_str())),
        called: meant.links(OPERATIONS),
        instance,
    };
    Ok(answer(StatusCode::OK, &page))
}

#[derive(Template)]
#[template(path = "operator_operation.html", whitespace = "minimize")]
struct DetailPage {
    shell: Shell,
    row: Row,
    href: String,
    facts: Vec<(&'static str, String)>,
    steps: Vec<Step>,
    left: Vec<String>,
    /// What a retry does, where it may be asked for.
    retry: Option<&'static str>,
    /// What giving up does, where it may be asked for.
    abandon: Option<&'static str>,
}

struct Step {
    title: String,
    label: &'static str,
    tries: String,
    took: String,
    error: Option<String>,
    failed: Option<Moment>,
}

impl Step {
    fn of(StepTold { seen: step, title }: &StepTold, is_active: bool, now: DateTime<Utc>) -> Self {
        let trial = &step.trial;
        Self {
            title: title.clone(),
            label: if step.is_done { "done" } else { "not done" },
            tries: match (trial.failures, trial.shortages) {
                (0, 0) => "0 failed".to_owned(),
                (failures, 0) => format!("{failures} failed"),
                (failures, short) => format!("{failures} failed, {short} waited for resources"),
            },
            took: duration(passed(step, is_active, now)),
            error: step.last_error.clone(),
            failed: step.failed_at.map(|at| Moment::new(at, now)),
        }
    }
}

/// The time that has passed since a step was begun; of one that is tried no more, up to its last failure. A pause
/// that has just begun is no part of it.
fn passed(step: &StepSeen, is_active: bool, now: DateTime<Utc>) -> TimeDelta {
    let until = if is_active { Some(now) } else { step.failed_at };
    let passed = || Some(until? - step.begun_at?);
    let took = step.took.or_else(passed).unwrap_or_default();
    took.max(TimeDelta::zero())
}

async fn rows(api: &Api, found: &OperationsPage) -> Result<Vec<Row>, PageError> {
    let now = api.broker.clock.now();
    let operations = found.operations.iter();
    let operations = operations.map(|seen| &seen.operation);
    let askers = api.broker.oversight.askers(operations).await?;
    let row = |of: &Overseen| {
        let name = found.names.get(&of.operation.instance);
        Row::of(of, (name, askers.get(&of.operation.id)), now)
    };
    Ok(found.operations.iter().map(row).collect())
}

/// `GET /dashboard/operations/:oid`
pub async fn show(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(id): Id<OperationId>,
) -> Answer {
    let detail = api.broker.oversight.operation(id).await?;
    let now = api.broker.clock.now();
    let operation = &detail.seen.operation;
    let mut shell = Shell::signed_in("", &api.broker, &session);
    let of = (detail.name.as_deref()).unwrap_or_else(|| operation.instance.as_str());
    shell.title = format!("{}: {of}", operation.words());
    shell.here = "operations";
    shell.follows = true;
    shell.under_way = operation.state.is_active();
    let may = shell.may_change();
    let page = DetailPage {
        row: Row::of(
            &detail.seen,
            (detail.name.as_ref(), detail.user.as_ref()),
            now,
        ),
        href: format!("{OPERATIONS}/{}", operation.id),
        facts: facts(&detail),
        steps: (detail.steps.iter())
            .map(|of| Step::of(of, operation.state.is_active(), now))
            .collect(),
        retry: what_a_retry_does(&detail.seen).filter(|_| may),
        abandon: what_giving_up_does(&detail.seen).filter(|_| may),
        left: detail.left,
        shell,
    };
    Ok(answer(StatusCode::OK, &page))
}

fn facts(detail: &OperationDetail) -> Vec<(&'static str, String)> {
    let operation = &detail.seen.operation;
    let optional = [
        (
            "Binding",
            operation.binding.as_ref().map(ToString::to_string),
        ),
        ("Backup", operation.backup.as_ref().map(ToString::to_string)),
        (
            "Worked on by",
            detail.seen.lease.as_ref().map(|lease| lease.owner.clone()),
        ),
    ];
    let mut facts = vec![
        ("Operation ID", operation.id.to_string()),
        ("Instance ID", operation.instance.to_string()),
        (
            "Asked for by",
            operation.origin.words_with(detail.user.as_deref()),
        ),
        ("Started", started(operation.epoch)),
    ];
    let optional = optional.into_iter();
    facts.extend(optional.filter_map(|(name, value)| Some((name, value?))));
    facts
}

/// How often a worker took it up.
fn started(times: i64) -> String {
    match times {
        0 => "not yet".to_owned(),
        1 => "once".to_owned(),
        times => counted(times, "time"),
    }
}

fn what_a_retry_does(seen: &Overseen) -> Option<&'static str> {
    let operation = &seen.operation;
    match operation.state {
        OperationState::Queued => Some("Its next try is made at once, with all patience there is."),
        OperationState::Stuck | OperationState::Abandoned if operation.kind.deletes() => {
            Some("It begins anew, from its first step.")
        }
        OperationState::Stuck | OperationState::Abandoned => Some(
            "What is left of it is cleaned up again. What it was to do has to be asked for anew.",
        ),
        _ => None,
    }
}

fn what_giving_up_does(seen: &Overseen) -> Option<&'static str> {
    let operation = &seen.operation;
    match operation.state {
        OperationState::Queued | OperationState::Running
            if operation.failure.is_some() || operation.kind.deletes() =>
        {
            Some("It ends as it is. What is left of it stays, and is listed here.")
        }
        OperationState::Queued | OperationState::Running => {
            Some("It stops, and what it has made so far is removed.")
        }
        OperationState::Stuck => {
            Some("Nobody goes on with it. What is left of it stays, and is listed here.")
        }
        _ => None,
    }
}

/// `POST /dashboard/operations/:oid/retry`
pub async fn retry(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(id): Id<OperationId>,
    payload: web::Payload,
) -> Answer {
    form_of(&api, &session, payload).await?;
    api.broker.oversight.retry(id.clone()).await?;
    Ok(see_other(&format!("{OPERATIONS}/{id}")))
}

/// `POST /dashboard/operations/:oid/abandon`
pub async fn abandon(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(id): Id<OperationId>,
    payload: web::Payload,
) -> Answer {
    let form = form_of(&api, &session, payload).await?;
    if form.text("sure") != "yes" {
        let text = "Nothing was given up: say that you are sure.".to_owned();
        return Err(BrokerError::BadRequest(text).into());
    }
    api.broker.oversight.abandon(id.clone()).await?;
    Ok(see_other(&format!("{OPERATIONS}/{id}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::patience::Trial;

    #[test]
    fn a_step_has_the_duration_that_has_passed() {
        let at = |seconds: i64| DateTime::from_timestamp(1_700_000_000 + seconds, 0);
        let step = |took| StepSeen {
            name: "snapshot".to_owned(),
            is_done: false,
            begun_at: at(0),
            took,
            trial: Trial {
                failures: 9,
                spent: std::time::Duration::from_secs(147),
                ..Trial::default()
            },
            last_error: None,
            failed_at: at(90),
        };
        let now = at(98).expect("a moment");
        let seconds = |step: &StepSeen, is_active| passed(step, is_active, now).num_seconds();
        assert_eq!(seconds(&step(None), true), 98);
        assert_eq!(seconds(&step(None), false), 90);
        assert_eq!(seconds(&step(Some(TimeDelta::seconds(7))), false), 7);
    }
}
