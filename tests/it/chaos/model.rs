//! What has to be true when all is calm again: of what platforms were told, and of what there is. It knows
//! no broker, so it can be shown what it has to find.

use std::collections::{BTreeMap, BTreeSet};

use compose_broker::model::operation::{OperationKind, OperationState};

use super::journal::{Asked, Journal};

/// An operation, as the store has it.
#[derive(Debug, Clone)]
pub struct OperationSeen {
    pub instance: String,
    pub kind: OperationKind,
    pub state: OperationState,
    /// Whether somebody asked for it.
    pub is_asked: bool,
    /// Whether it was told to stop, since its instance was deleted.
    pub halted: bool,
    pub failure: Option<String>,
    /// Entries of the audit that tell of its beginning.
    pub audited: usize,
}

/// A deployment, as store and machine have it.
#[derive(Debug, Clone, Default)]
pub struct DeploymentSeen {
    pub instance: String,
    /// Ports that are reserved for it.
    pub ports: usize,
    /// Members that run.
    pub processes: usize,
    pub has_folder: bool,
    /// Users that the database has, and those of the bindings that there are.
    pub users: Vec<String>,
    pub users_of_bindings: Vec<String>,
}

/// A backup, as the store has it, and its objects.
#[derive(Debug, Clone)]
pub struct BackupSeen {
    pub instance: String,
    pub is_complete: bool,
    pub objects: usize,
}

/// What there is.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Members that a deployment has, and the ports of all of them.
    pub members: usize,
    pub ports: usize,
    pub operations: BTreeMap<String, OperationSeen>,
    pub instances: BTreeSet<String>,
    /// Instance and binding.
    pub bindings: BTreeSet<(String, String)>,
    pub deployments: BTreeMap<String, DeploymentSeen>,
    pub backups: BTreeMap<String, BackupSeen>,
    /// Rows that nothing leads to, processes, folders and objects of nobody.
    pub orphans: Vec<String>,
}

/// Objects of a backup: the snapshot, and what tells of it.
const OBJECTS: usize = 2;

/// Everything that is not as it has to be.
pub fn violations(journal: &Journal, seen: &Seen) -> Vec<String> {
    let mut found = journal.complaints.clone();
    let accepted = journal.asked.iter().filter(|of| of.is_accepted()).count();
    if 2 * accepted < journal.asked.len() {
        found.push(format!(
            "of {} only {accepted} were accepted",
            journal.asked.len()
        ));
    }
    found.extend(seen.orphans.iter().map(|what| format!("left over: {what}")));
    found.extend(
        journal
            .asked
            .iter()
            .filter_map(|of| broken_promise(of, seen)),
    );
    found.extend(
        seen.operations
            .iter()
            .filter_map(|(id, of)| wrong_end(id, of)),
    );
    found.extend(
        seen.operations
            .iter()
            .filter_map(|(id, of)| match of.audited {
                1 => None,
                count => Some(format!(
                    "{id} ({} of {}) is {count} times in the audit",
                    of.kind, of.instance
                )),
            }),
    );
    found.extend(wrong_counts(journal, seen));
    found.extend(wrong_existence(journal, seen));
    found.extend(
        seen.deployments
            .iter()
            .filter_map(|(id, of)| wrong_deployment(id, of, seen)),
    );
    found.extend(wrong_backups(seen));
    found
}

/// What was accepted has ended, and as was told.
fn broken_promise(of: &Asked, seen: &Seen) -> Option<String> {
    let id = of.operation.as_ref()?;
    let Some(operation) = seen.operations.get(id) else {
        return Some(format!("{id} was accepted, and is not there: {of:?}"));
    };
    let told = of.end.as_deref()?;
    let agrees = match told {
        "succeeded" | "complete" => operation.state == OperationState::Succeeded,
        "failed" => operation.state == OperationState::Failed,
        // Nobody tells of what is deleted.
        "gone" => true,
        _ => false,
    };
    (!agrees).then(|| format!("{id} was told to be {told}: {operation:?}"))
}

/// Nothing that passes makes an operation fail: it succeeds, unless it was told to stop.
fn wrong_end(id: &str, of: &OperationSeen) -> Option<String> {
    let is_right = match of.state {
        OperationState::Succeeded => true,
        OperationState::Failed => of.halted,
        _ => false,
    };
    (!is_right).then(|| {
        let failure = of.failure.as_deref().unwrap_or_default();
        format!("{id} has not ended well ({failure}): {of:?}")
    })
}

/// Each thing was done as often as it was accepted. Where nobody knew what became of a request, it may have been
/// accepted without a word.
fn wrong_counts(journal: &Journal, seen: &Seen) -> Vec<String> {
    type Counted = BTreeMap<(String, &'static str), (BTreeSet<String>, usize)>;
    let mut asked = Counted::new();
    for of in &journal.asked {
        let (known, unknown) = asked
            .entry((of.instance.clone(), of.kind.as_str()))
            .or_default();
        known.extend(of.operation.clone().filter(|_| of.is_accepted()));
        // What was done at once names no operation.
        *unknown += of.unknown + usize::from(of.is_accepted() && of.operation.is_none());
    }
    let mut found = Vec::new();
    let mut done: BTreeMap<(String, &'static str), usize> = BTreeMap::new();
    let is_known = |id: &String, of: &OperationSeen| {
        let known = asked.get(&(of.instance.clone(), of.kind.as_str()));
        known.is_some_and(|(known, _)| known.contains(id))
    };
    // Who asks for a backup while one is being taken that was due is told of that one.
    let counted = seen.operations.iter();
    for (_, of) in counted.filter(|(id, of)| of.is_asked || is_known(id, of)) {
        *done
            .entry((of.instance.clone(), of.kind.as_str()))
            .or_default() += 1;
    }
    for (key, count) in done {
        let (known, unknown) = asked.remove(&key).unwrap_or_default();
        if count < known.len() || count > known.len() + unknown {
            let (instance, kind) = key;
            found.push(format!(
                "{instance} has {count} times {kind}: accepted {}, unknown {unknown}",
                known.len()
            ));
        }
    }
    found
}

/// There is what was made and not deleted since.
fn wrong_existence(journal: &Journal, seen: &Seen) -> Vec<String> {
    let (mut instances, mut bindings) = (BTreeSet::new(), BTreeSet::new());
    let succeeded = |of: &Asked| match of.operation.as_ref().and_then(|id| seen.operations.get(id))
    {
        Some(operation) => operation.state == OperationState::Succeeded,
        None => of.is_accepted(),
    };
    for of in &journal.asked {
        let instance = of.instance.clone();
        match of.kind {
            OperationKind::Provision | OperationKind::Restore if succeeded(of) => {
                instances.insert(instance);
            }
            // It may have been accepted the first time, and be over the next.
            OperationKind::Deprovision if succeeded(of) || of.status == 410 => {
                instances.remove(&instance);
                bindings.retain(|(of, _): &(String, String)| *of != instance);
            }
            OperationKind::Bind if succeeded(of) => {
                bindings.insert((instance, of.binding.clone().unwrap_or_default()));
            }
            OperationKind::Unbind if succeeded(of) || of.status == 410 => {
                bindings.remove(&(instance, of.binding.clone().unwrap_or_default()));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    if instances != seen.instances {
        found.push(format!(
            "instances are {:?}, not {instances:?}",
            seen.instances
        ));
    }
    if bindings != seen.bindings {
        found.push(format!(
            "bindings are {:?}, not {bindings:?}",
            seen.bindings
        ));
    }
    found
}

fn wrong_deployment(id: &str, of: &DeploymentSeen, seen: &Seen) -> Option<String> {
    let is_whole = of.processes == seen.members
        && of.ports == seen.ports
        && of.has_folder
        && of.users == of.users_of_bindings;
    (!is_whole).then(|| format!("deployment {id} is not whole: {of:?}"))
}

fn wrong_backups(seen: &Seen) -> Vec<String> {
    let mut found = Vec::new();
    for (id, of) in &seen.backups {
        if of.is_complete && of.objects != OBJECTS || !of.is_complete && of.objects > 0 {
            found.push(format!("backup {id} has {} objects: {of:?}", of.objects));
        }
        if !seen.instances.contains(&of.instance) {
            found.push(format!("backup {id} is of no instance: {of:?}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One instance with a binding and a backup, and nothing wrong.
    fn good() -> (Journal, Seen) {
        let kinds = [
            OperationKind::Provision,
            OperationKind::Bind,
            OperationKind::Backup,
        ];
        let asked = kinds.map(|kind| Asked {
            instance: "i".to_owned(),
            binding: (kind == OperationKind::Bind).then(|| "b".to_owned()),
            kind,
            status: 202,
            operation: Some(kind.as_str().to_owned()),
            unknown: 0,
            end: Some("succeeded".to_owned()),
        });
        let operations = kinds.map(|kind| {
            let seen = OperationSeen {
                instance: "i".to_owned(),
                kind,
                state: OperationState::Succeeded,
                is_asked: true,
                halted: false,
                failure: None,
                audited: 1,
            };
            (kind.as_str().to_owned(), seen)
        });
        let users = vec!["u".to_owned()];
        let deployment = DeploymentSeen {
            instance: "i".to_owned(),
            ports: 6,
            processes: 3,
            has_folder: true,
            users: users.clone(),
            users_of_bindings: users,
        };
        let backup = BackupSeen {
            instance: "i".to_owned(),
            is_complete: true,
            objects: 2,
        };
        let seen = Seen {
            members: 3,
            ports: 6,
            operations: operations.into(),
            instances: ["i".to_owned()].into(),
            bindings: [("i".to_owned(), "b".to_owned())].into(),
            deployments: [("d".to_owned(), deployment)].into(),
            backups: [("k".to_owned(), backup)].into(),
            orphans: Vec::new(),
        };
        let journal = Journal {
            asked: asked.into(),
            ..Journal::default()
        };
        (journal, seen)
    }

    /// Breaks one thing, of which the model has to tell in these words.
    fn is_found(what: &str, break_it: impl Fn(&mut Journal, &mut Seen)) {
        let (mut journal, mut seen) = good();
        break_it(&mut journal, &mut seen);
        let found = violations(&journal, &seen);
        assert!(
            found.iter().any(|said| said.contains(what)),
            "{what}: {found:?}"
        );
    }

    #[test]
    fn what_is_as_it_has_to_be_is_not_complained_of() {
        let (journal, seen) = good();
        assert_eq!(violations(&journal, &seen), Vec::<String>::new());
    }

    #[test]
    fn each_promise_that_is_broken_is_found() {
        fn of<'s>(seen: &'s mut Seen, id: &str) -> &'s mut OperationSeen {
            seen.operations.get_mut(id).expect("an operation")
        }
        fn deployment(seen: &mut Seen) -> &mut DeploymentSeen {
            seen.deployments.get_mut("d").expect("a deployment")
        }
        is_found("is not there", |_, seen| {
            seen.operations.remove("bind");
        });
        is_found("has not ended well", |_, seen| {
            of(seen, "bind").state = OperationState::Running;
        });
        is_found("has not ended well", |_, seen| {
            of(seen, "bind").state = OperationState::Stuck;
        });
        is_found("was told to be", |journal, _| {
            journal.asked[0].end = Some("failed".to_owned());
        });
        is_found("times in the audit", |_, seen| {
            of(seen, "backup").audited = 0
        });
        is_found("2 times backup", |_, seen| {
            let again = of(seen, "backup").clone();
            seen.operations.insert("again".to_owned(), again);
        });
        is_found("instances are", |_, seen| seen.instances.clear());
        is_found("bindings are", |_, seen| seen.bindings.clear());
        is_found("is not whole", |_, seen| deployment(seen).processes = 2);
        is_found("is not whole", |_, seen| deployment(seen).ports = 7);
        is_found("is not whole", |_, seen| deployment(seen).users.clear());
        is_found("objects", |_, seen| {
            seen.backups.get_mut("k").expect("a backup").objects = 1;
        });
        is_found("left over", |_, seen| seen.orphans.push("a row".to_owned()));
    }

    #[test]
    fn a_backup_that_was_due_may_be_the_one_that_was_asked_for() {
        let (journal, mut seen) = good();
        let backup = seen.operations.get_mut("backup").expect("an operation");
        backup.is_asked = false;
        assert_eq!(violations(&journal, &seen), Vec::<String>::new());
    }

    #[test]
    fn a_request_of_which_nobody_knew_may_have_been_accepted_once_more() {
        let (mut journal, mut seen) = good();
        let again = seen.operations["backup"].clone();
        seen.operations.insert("again".to_owned(), again);
        journal.asked[2].unknown = 1;
        assert_eq!(violations(&journal, &seen), Vec::<String>::new());
    }
}
