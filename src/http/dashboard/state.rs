//! The words, signs and colours for states. Colour never tells anything alone.

use crate::model::{
    alert::Gravity,
    backup::BackupState,
    binding::BindingState,
    health::{DownReason, HealthState},
    operation::{Operation, OperationState},
};

/// What a page shows of a state.
pub struct Label {
    /// In words.
    pub text: &'static str,
    /// As a sign.
    pub icon: &'static str,
    /// Classes of the style sheet.
    pub tone: &'static str,
}

const WAITS: (&str, &str) = ("\u{25cb}", "warn busy");
const GOES_ON: (&str, &str) = ("\u{25d4}", "warn busy");
const GOOD: (&str, &str) = ("\u{2713}", "good");
const BAD: (&str, &str) = ("\u{2715}", "bad");
const WARNING: (&str, &str) = ("!", "warn");
const UNKNOWN: (&str, &str) = ("?", "warn");
const NOTE: (&str, &str) = ("i", "muted");
const PAST: (&str, &str) = ("\u{2013}", "muted");

fn label(text: &'static str, (icon, tone): (&'static str, &'static str)) -> Label {
    Label { text, icon, tone }
}

/// How an instance is.
pub fn label_of_health(state: HealthState) -> Label {
    let how = match state {
        HealthState::Ready => GOOD,
        HealthState::Changing | HealthState::Deleting => GOES_ON,
        HealthState::Unknown => UNKNOWN,
        HealthState::Degraded | HealthState::ReadOnly => WARNING,
        HealthState::Failed | HealthState::Stuck | HealthState::Down => BAD,
    };
    label(state.word(), how)
}

/// Where a backup is in its life.
pub fn label_of_backup(state: BackupState) -> Label {
    match state {
        BackupState::Pending => label("Waiting", WAITS),
        BackupState::Running => label("Running", GOES_ON),
        BackupState::Complete => label("Complete", GOOD),
        BackupState::Failed => label("Failed", BAD),
        BackupState::Expired => label("Expired", PAST),
    }
}

/// Where credentials are in their life; `down`: why nobody gets in with them now, whatever they are good for.
pub fn label_of_binding(state: BindingState, down: Option<DownReason>) -> Label {
    match state {
        BindingState::Creating => label("Being made", GOES_ON),
        BindingState::Ready => match down {
            None => label("Usable", GOOD),
            Some(DownReason::Members) => label("Usable once enough members serve", WARNING),
            Some(DownReason::Closed) => label("Usable once there is room", WARNING),
            Some(DownReason::Recovery) => label("Usable once it is recovered", WARNING),
        },
        BindingState::Failed => label("Failed", BAD),
        BindingState::Deleting => label("Being revoked", GOES_ON),
        BindingState::Expiring => label("Ending", GOES_ON),
        BindingState::Expired => label("Expired", PAST),
    }
}

/// How bad an alert is.
pub fn label_of_alert(gravity: Gravity) -> Label {
    match gravity {
        Gravity::Critical => label("Critical", BAD),
        Gravity::Warning => label("Warning", WARNING),
        Gravity::Unknown => label("Unknown", UNKNOWN),
        Gravity::Notice => label("Notice", NOTE),
    }
}

/// Where a task is in its life.
pub fn label_of_task(operation: &Operation) -> Label {
    match operation.state {
        _ if operation.halted => label("Stopped", BAD),
        OperationState::Queued => label("Waiting", WAITS),
        OperationState::Running => label("Running", GOES_ON),
        OperationState::Succeeded => label("Succeeded", GOOD),
        OperationState::Failed | OperationState::Stuck | OperationState::Abandoned => {
            label("Failed", BAD)
        }
    }
}

/// Where an operation is in its life, for operators: what users need not tell apart, they do.
pub fn label_of_operation(operation: &Operation) -> Label {
    match operation.state {
        OperationState::Stuck => label("Stuck", BAD),
        OperationState::Abandoned => label("Given up", PAST),
        _ => label_of_task(operation),
    }
}
