//! Every step of every operation, broken in every way: the work ends as if nothing had happened,
//! or fails, says so and leaves nothing behind.
//!
//! The steps are taken from the operations' definitions, so that a new one is broken here from
//! its first day.

use std::sync::Arc;

use compose_broker::{
    app::Surroundings,
    model::operation::{OperationKind, OperationState},
    operation::fault::{Fault, Moment},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use similar::TextDiff;
use tokio::sync::OnceCell;

use crate::{
    broker::{
        SERVICE, STANDARD, TestBroker, answer, binding_path, eventually, text, with_one_backup,
        with_rules,
    },
    catalog::catalog_file,
    control::surroundings,
    database::{Database, with},
    etcd, imports,
    inside::{Inside, files_of_deployments},
    proofs, readdress,
    registers::REGISTER,
    restore_keys,
    saboteur::{Saboteur, cleanup_names, names},
};

/// The story that every operation has a part in, and all that can be seen of it. In its midst the broker
/// is started `again`.
async fn story(of: &Database, broker: &mut TestBroker, again: Surroundings) -> Value {
    let [old, new] = of.versions();
    let inside = Inside::of(broker);
    broker
        .provision("source", json!({ "db_version": old }))
        .await;
    let source = broker.bind("source", "app").await;
    of.fill(&source, 20, "v").await;
    broker.back_up(&source).await;
    of.fill(&source, 30, "w").await;
    let backup = broker.back_up(&source).await;
    broker.bind("source", "short-lived").await;
    let unbound = broker.unbind("source", "short-lived").await;
    assert_eq!(unbound.status, StatusCode::OK, "{unbound:?}");
    broker.provision("copy", from_backup(&backup)).await;
    broker.bind("copy", "app").await;
    relieve(broker, &source).await;
    defragment(broker, &source).await;
    repair(broker, &source, of.last_member()).await;
    recover(of, broker, &source).await;
    renew(broker, &source).await;
    readdress::restart(broker, "127.0.0.1", "localhost", again).await;
    for instance in ["source", "copy"] {
        readdress::moved(broker, instance, 1).await;
    }
    restore_keys(broker, &source, &backup).await;
    // A link for a download is good by the clock that made it: no step that sets another may come between.
    all_are_proved(broker, "source").await;
    inside.idle("source").await;
    import(broker, &source, &backup).await;
    update(broker, json!({ "db_version": new, "units": 2 })).await;
    for instance in ["source", "copy"] {
        all_are_proved(broker, instance).await;
        inside.idle(instance).await;
    }
    let seen = json!({
        "source": sight(of, broker, &inside, "source").await,
        "copy": sight(of, broker, &inside, "copy").await,
        "files": of.files_without_ids(broker),
        "members": of.running(broker).len(),
        "ports": inside.ports_reserved().await,
    });
    for id in ["copy", "source"] {
        broker.deprovision(id).await;
        assert!(!inside.work_is_remembered(id).await, "{id}");
    }
    give_up_what_is_kept(broker, 2).await;
    assert_nothing_is_left(of, broker, &inside).await;
    seen
}

/// Has the backups of so many deleted instances removed, each of which has its last one.
async fn give_up_what_is_kept(broker: &TestBroker, count: usize) {
    const DELETED: &str = "/operator/deleted_instances";
    let listed = async || {
        let told = answer(broker.osb(Method::GET, DELETED)).await;
        told.body["deleted_instances"]
            .as_array()
            .expect("a list")
            .clone()
    };
    let kept = listed().await;
    assert_eq!(kept.len(), count);
    for of in kept {
        assert_eq!(of["final_backup_failure"], Value::Null, "{of}");
        let path = format!("{DELETED}/{}", text(&of["deployment_id"]));
        let purged = answer(broker.osb(Method::DELETE, &path)).await;
        assert_eq!(purged.status, StatusCode::ACCEPTED, "{purged:?}");
    }
    eventually("the end of what is kept", || async {
        listed().await.is_empty().then_some(())
    })
    .await;
}

/// Makes room in a database, without some of its keys.
async fn relieve(broker: &TestBroker, of: &Value) {
    let path = format!("/deployments/{}/reliefs", text(&of["deployment_id"]));
    let body = json!({ "deployment": { "delete_prefix": "key-001" } });
    let accepted = answer(broker.compose(Method::POST, of, &path).json(&body)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let end = broker.recipe_end(of, &accepted.body).await;
    assert_eq!(end["status"], "complete", "{end}");
}

/// Has keys put back that are gone.
async fn restore_keys(broker: &TestBroker, of: &Value, backup: &Value) {
    let wanted = json!({ "prefix": "key-00", "mode": "mirror" });
    let end = restore_keys::restored(broker, of, backup, &wanted).await;
    let changes = json!({ "written": 10, "deleted": 0, "left": 0 });
    assert_eq!(end["prefix_restore"]["changes"], changes, "{end}");
}

/// Brings the snapshot of a backup along as if it were of elsewhere.
async fn import(broker: &TestBroker, of: &Value, backup: &Value) {
    let snapshot = imports::snapshot_of(broker, of, backup).await;
    let imported = imports::imported(broker, of, &snapshot).await;
    assert_eq!(imported["keys"], backup["keys"], "{imported}");
}

/// Has unused storage given back.
async fn defragment(broker: &TestBroker, of: &Value) {
    let path = format!(
        "/deployments/{}/defragmentations",
        text(&of["deployment_id"])
    );
    let accepted = answer(broker.compose(Method::POST, of, &path)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let end = broker.recipe_end(of, &accepted.body).await;
    assert_eq!(end["status"], "complete", "{end}");
    assert_eq!(end["name"], "Defragment the database");
}

/// Replaces a member of the instance `source`.
async fn repair(broker: &TestBroker, of: &Value, member: &str) {
    let path = "/operator/instances/source/repair";
    let request = broker.osb(Method::POST, path);
    let accepted = answer(request.json(&json!({ "member": member }))).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let recipe = json!({ "id": accepted.body["operation"] });
    let end = broker.recipe_end(of, &recipe).await;
    assert_eq!(end["status"], "complete", "{end}");
    assert_eq!(end["name"], format!("Replace member {member}"));
}

/// Gives the members of `source` another certificate.
async fn renew(broker: &TestBroker, of: &Value) {
    let path = "/operator/instances/source/renew";
    let accepted = answer(broker.osb(Method::POST, path)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let recipe = json!({ "id": accepted.body["operation"] });
    let end = broker.recipe_end(of, &recipe).await;
    assert_eq!(end["status"], "complete", "{end}");
    assert_eq!(end["name"], "Renew the certificates");
}

/// Makes the database of `source` anew of what a member still has.
async fn recover(database: &Database, broker: &TestBroker, of: &Value) {
    database.lose_all_but_one(broker, "source").await;
    let path = "/operator/instances/source/recover";
    let body = json!({ "from": "survivor", "yes": true });
    let recipe = eventually("a majority that is lost", || async {
        let accepted = answer(broker.osb(Method::POST, path).json(&body)).await;
        // The last of them may answer for a moment yet.
        let id = accepted.body.get("operation")?;
        Some(json!({ "id": id }))
    })
    .await;
    let end = broker.recipe_end(of, &recipe).await;
    assert_eq!(end["status"], "complete", "{end}");
    assert_eq!(end["name"], "Recover the database");
}

/// Changes the instance `source`.
async fn update(broker: &TestBroker, parameters: Value) {
    let path = "/v2/service_instances/source";
    let body = json!({ "service_id": SERVICE, "parameters": parameters });
    let request = broker.osb(Method::PATCH, &format!("{path}?accepts_incomplete=true"));
    let accepted = answer(request.json(&body)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let end = broker.instance_end("source", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
}

/// Waits until each backup of an instance is proved.
async fn all_are_proved(broker: &TestBroker, instance: &str) {
    let bound = answer(broker.osb(Method::GET, &binding_path(instance, "app"))).await;
    let credentials = &bound.body["credentials"];
    eventually("backups that are proved", || async {
        let all = backups(broker, credentials).await;
        let waits = |b: &Value| b[0] == "complete" && b[3] != "proved";
        (!all.iter().any(waits)).then_some(())
    })
    .await;
}

fn from_backup(backup: &Value) -> Value {
    json!({ "source_service_instance_id": "source", "backup_id": backup["id"] })
}

/// All that can be seen of an instance, without what differs from run to run.
async fn sight(of: &Database, broker: &TestBroker, inside: &Inside, id: &str) -> Value {
    // Its members may have moved since the binding was made.
    let bound = answer(broker.osb(Method::GET, &binding_path(id, "app"))).await;
    let credentials = &bound.body["credentials"];
    let fetched = answer(broker.osb(Method::GET, &format!("/v2/service_instances/{id}"))).await;
    let mut parameters = fetched.body["parameters"].clone();
    if !parameters["backup_id"].is_null() {
        parameters["backup_id"] = json!("ID");
    }
    let users = of.users(inside, id, credentials).await;
    assert_eq!(users, [etcd::user(credentials)]);
    let mut outcomes = inside.outcomes(id).await;
    // A backup that gives way to another one may be proved before, or not, and goes sooner or later.
    outcomes.retain(|(kind, _)| *kind != OperationKind::Proof.as_str());
    let is_prune = |(kind, _): &(&str, _)| *kind == OperationKind::Prune.as_str();
    outcomes.dedup_by(|a, b| is_prune(a) && a == b);
    let fields: Vec<&String> = credentials.as_object().expect("fields").keys().collect();
    json!({
        "fetched": [fetched.status.as_u16(), fetched.body["plan_id"], parameters,
            fetched.body["maintenance_info"]],
        "fields": fields,
        "keys": of.dump(credentials).await,
        "backups": backups(broker, credentials).await,
        "outcomes": format!("{outcomes:?}"),
    })
}

/// The listed backups: what is in them, newest first.
async fn backups(broker: &TestBroker, credentials: &Value) -> Vec<Value> {
    let path = format!(
        "/deployments/{}/backups",
        text(&credentials["deployment_id"])
    );
    let listed = answer(broker.compose(Method::GET, credentials, &path)).await;
    let backups = listed.body["_embedded"]["backups"].as_array();
    backups
        .expect("backups")
        .iter()
        .map(|b| json!([b["status"], b["revision"], b["keys"], b["proof"]]))
        .collect()
}

/// No process, no port and no file of any deployment.
async fn assert_nothing_is_left(of: &Database, broker: &TestBroker, inside: &Inside) {
    assert_eq!(of.running(broker), Vec::<String>::new());
    assert_eq!(inside.ports_reserved().await, 0);
    assert_eq!(of.files(broker), Vec::<String>::new());
}

/// What the story of a kind of database looks like when nothing is broken; told once for all tests.
async fn undisturbed(of: &Database) -> &'static Value {
    static OF_ETCD: OnceCell<Value> = OnceCell::const_new();
    static OF_MEMORY: OnceCell<Value> = OnceCell::const_new();
    let told = match of {
        Database::Etcd => &OF_ETCD,
        Database::Memory(_) => &OF_MEMORY,
    };
    told.get_or_init(|| tell(of, surroundings)).await
}

async fn tell(of: &Database, surroundings: impl Fn() -> Surroundings) -> Value {
    // When the schedule takes the first backup of what was restored is no part of the story.
    let surroundings = || Surroundings {
        scheduled: false,
        ..surroundings()
    };
    let flags = [&readdress::AT_FIRST[..], &proofs::ON].concat();
    // A last backup is taken of what is deleted.
    let catalog = with_rules(with_one_backup(catalog_file()), |rules| {
        rules["after_delete"] = json!({});
    });
    let mut broker = of.broker_with(&catalog, &flags, surroundings()).await;
    story(of, &mut broker, of.surroundings(surroundings())).await
}

/// Tells the story with faults, and compares it with the undisturbed one.
async fn assert_harmless(of: &Database, faults: &[(Moment, Fault)]) {
    let saboteur = Saboteur::everywhere(faults);
    assert_same_story(of, || saboteur.surroundings()).await;
    assert_eq!(saboteur.spared(), [], "steps that were not broken");
}

/// Tells the story in other surroundings, and compares it with the undisturbed one.
pub async fn assert_same_story(of: &Database, surroundings: impl Fn() -> Surroundings) {
    let expected = undisturbed(of).await;
    let seen = tell(of, surroundings).await;
    let pretty = |value| serde_json::to_string_pretty(value).expect("JSON");
    let (expected, seen) = (pretty(expected), pretty(&seen));
    // Only the lines that differ: the whole of both is too long to read.
    let difference = TextDiff::from_lines(&expected, &seen);
    assert!(expected == seen, "{}", difference.unified_diff());
}

async fn a_step_that_fails_or_panics_once_is_tried_again(of: Database) {
    assert_harmless(
        &of,
        &[(Moment::Begun, Fault::Panic), (Moment::Done, Fault::Fail)],
    )
    .await;
}

async fn a_step_that_runs_twice_ends_as_if_it_had_run_once(of: Database) {
    assert_harmless(&of, &[(Moment::Done, Fault::Repeat)]).await;
}

async fn a_worker_that_dies_before_its_record_is_made_up_for(of: Database) {
    assert_harmless(&of, &[(Moment::Done, Fault::Die)]).await;
}

async fn a_worker_that_dies_between_two_steps_is_made_up_for(of: Database) {
    assert_harmless(
        &of,
        &[(Moment::Begun, Fault::Die), (Moment::Recorded, Fault::Die)],
    )
    .await;
}

/// What a platform is told of work that a test broke for good.
const BROKEN: &str = "a deliberate fault";

/// A broker that can be broken, with a look inside.
async fn breakable(of: &Database) -> (Arc<Saboteur>, TestBroker, Inside) {
    let saboteur = Saboteur::everywhere(&[]);
    let broker = of.broker(&[], saboteur.surroundings()).await;
    let inside = Inside::of(&broker);
    (saboteur, broker, inside)
}

fn assert_says_why(end: &Value) {
    assert_eq!(end["state"], "failed", "{end}");
    assert!(text(&end["description"]).contains(BROKEN), "{end}");
}

/// Asks for an instance that comes to nothing.
async fn provision_in_vain(broker: &TestBroker, id: &str, parameters: &Value) {
    let accepted = broker.put_instance(id, parameters.clone()).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    assert_says_why(&broker.instance_end(id, &accepted.body).await);
    let path = format!("/v2/service_instances/{id}");
    let fetched = answer(broker.osb(Method::GET, &path)).await;
    assert_eq!(fetched.status, StatusCode::NOT_FOUND, "{fetched:?}");
}

async fn a_provision_that_fails_for_good_leaves_nothing_behind(of: Database) {
    let (saboteur, broker, inside) = breakable(&of).await;
    let kind = OperationKind::Provision;
    for step in names(kind) {
        saboteur.break_for_good(kind, step);
        provision_in_vain(&broker, "i", &json!({})).await;
        assert_eq!(inside.newest("i", kind).await.state, OperationState::Failed);
        assert_nothing_is_left(&of, &broker, &inside).await;
        saboteur.rest();
        broker.deprovision("i").await;
    }
    for step in cleanup_names(kind) {
        saboteur.break_for_good(kind, "start");
        saboteur.forbid(kind, step);
        provision_in_vain(&broker, "i", &json!({})).await;
        assert_eq!(inside.newest("i", kind).await.state, OperationState::Stuck);
        saboteur.rest();
        broker.deprovision("i").await;
        assert_nothing_is_left(&of, &broker, &inside).await;
        assert!(!inside.work_is_remembered("i").await);
    }
    broker.provision("i", json!({})).await;
    let kind = OperationKind::Deprovision;
    for step in names(kind) {
        saboteur.break_for_good(kind, step);
        let accepted = broker.delete_instance("i").await;
        assert_says_why(&broker.instance_end("i", &accepted.body).await);
        let again = broker.put_instance("i", json!({})).await;
        assert_eq!(again.status, StatusCode::CONFLICT, "{again:?}");
        saboteur.rest();
    }
    broker.deprovision("i").await;
    assert_nothing_is_left(&of, &broker, &inside).await;
}

async fn a_restore_that_fails_for_good_leaves_nothing_behind(of: Database) {
    let (saboteur, broker, inside) = breakable(&of).await;
    broker.provision("source", json!({})).await;
    let credentials = broker.bind("source", "app").await;
    of.fill(&credentials, 20, "v").await;
    let parameters = from_backup(&broker.back_up(&credentials).await);
    inside.idle("source").await;
    let before = (of.files(&broker), of.running(&broker));
    let kind = OperationKind::Restore;
    let stuck = cleanup_names(kind).map(|cleanup| ("start", Some(cleanup)));
    for (step, cleanup) in names(kind).map(|step| (step, None)).chain(stuck) {
        saboteur.break_for_good(kind, step);
        cleanup.inspect(|cleanup| saboteur.forbid(kind, cleanup));
        provision_in_vain(&broker, "copy", &parameters).await;
        let ended = inside.newest("copy", kind).await.state;
        if cleanup.is_some() {
            assert_eq!(ended, OperationState::Stuck);
        } else {
            assert_eq!(ended, OperationState::Failed);
            assert_eq!(inside.ports_reserved().await, of.ports(), "after {step}");
            assert_eq!(of.running(&broker), before.1, "after {step}");
        }
        saboteur.rest();
        broker.deprovision("copy").await;
        assert_eq!(inside.ports_reserved().await, of.ports(), "after {step}");
        assert_eq!(of.running(&broker), before.1, "after {step}");
        assert_eq!(of.files(&broker), before.0);
    }
    broker.provision("copy", parameters).await;
    let copy = broker.bind("copy", "app").await;
    assert_eq!(of.dump(&copy).await, of.dump(&credentials).await);
}

/// An instance with a binding and some keys.
async fn with_an_instance(of: &Database, broker: &TestBroker) -> Value {
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    of.fill(&credentials, 20, "v").await;
    credentials
}

/// Asks for a binding, or its end, and waits for how that ends.
async fn binding_end(broker: &TestBroker, method: Method, binding: &str) -> Value {
    let path = format!("/v2/service_instances/i/service_bindings/{binding}");
    let parameters = json!({ "role": "reader", "prefix": "/app/", "expires_in": 3600 });
    let body = json!({ "service_id": SERVICE, "plan_id": STANDARD, "parameters": parameters });
    let query = format!("accepts_incomplete=true&service_id={SERVICE}&plan_id={STANDARD}");
    let request = broker.osb(method, &format!("{path}?{query}"));
    let accepted = answer(request.json(&body)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let operation = text(&accepted.body["operation"]);
    broker
        .end_of(&format!("{path}/last_operation?operation={operation}"))
        .await
}

async fn a_binding_that_fails_for_good_leaves_no_user_behind(of: Database) {
    let (saboteur, broker, inside) = breakable(&of).await;
    let credentials = with_an_instance(&of, &broker).await;
    let only_own = [etcd::user(&credentials)];
    let kind = OperationKind::Bind;
    let stuck = cleanup_names(kind).map(|cleanup| ("issue", Some(cleanup)));
    for (step, cleanup) in names(kind).map(|step| (step, None)).chain(stuck) {
        saboteur.break_for_good(kind, step);
        cleanup.inspect(|cleanup| saboteur.forbid(kind, cleanup));
        assert_says_why(&binding_end(&broker, Method::PUT, "b").await);
        let ended = inside.newest("i", kind).await.state;
        if cleanup.is_some() {
            assert_eq!(ended, OperationState::Stuck);
        } else {
            assert_eq!(ended, OperationState::Failed);
            let left = of.users(&inside, "i", &credentials).await;
            assert_eq!(left, only_own, "after {step}");
        }
        saboteur.rest();
        let unbound = broker.unbind("i", "b").await;
        assert_eq!(unbound.status, StatusCode::OK, "{unbound:?}");
        let left = of.users(&inside, "i", &credentials).await;
        assert_eq!(left, only_own, "after {step}");
    }
    let bound = broker.bind("i", "b").await;
    of.dump(&bound).await;
    let kind = OperationKind::Unbind;
    for step in names(kind) {
        saboteur.break_for_good(kind, step);
        assert_says_why(&binding_end(&broker, Method::DELETE, "b").await);
        saboteur.rest();
        let refused = answer(broker.compose(Method::GET, &bound, "")).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{refused:?}");
    }
    let gone = binding_end(&broker, Method::DELETE, "b").await;
    assert_eq!(gone["state"], "succeeded", "{gone}");
    assert_eq!(of.users(&inside, "i", &credentials).await, only_own);
}

async fn a_backup_that_fails_for_good_leaves_no_object_behind(of: Database) {
    let (saboteur, broker, inside) = breakable(&of).await;
    let credentials = with_an_instance(&of, &broker).await;
    let good = broker.back_up(&credentials).await;
    inside.idle("i").await;
    let before = of.files(&broker);
    let kind = OperationKind::Backup;
    let stuck = cleanup_names(kind).map(|cleanup| ("describe", Some(cleanup)));
    for (step, cleanup) in names(kind).map(|step| (step, None)).chain(stuck) {
        saboteur.break_for_good(kind, step);
        cleanup.inspect(|cleanup| saboteur.forbid(kind, cleanup));
        let failed = broker.back_up(&credentials).await;
        assert_eq!(failed["status"], "failed", "{failed}");
        assert!(text(&failed["status_detail"]).contains(BROKEN), "{failed}");
        assert_eq!(failed["download_link"], Value::Null, "{failed}");
        let ended = inside.newest("i", kind).await.state;
        if cleanup.is_some() {
            assert_eq!(ended, OperationState::Stuck);
        } else {
            assert_eq!(ended, OperationState::Failed);
            assert_eq!(of.files(&broker), before);
        }
        saboteur.rest();
    }
    broker
        .provision(
            "copy",
            json!({ "source_service_instance_id": "i", "backup_id": good["id"] }),
        )
        .await;
    broker.deprovision("copy").await;

    // What retention gives up and cannot delete goes with the next backup.
    let kind = OperationKind::Prune;
    for step in names(kind) {
        saboteur.break_for_good(kind, step);
        let kept = broker.back_up(&credentials).await;
        assert_eq!(kept["status"], "complete", "{kept}");
        inside.idle("i").await;
        assert_eq!(inside.newest("i", kind).await.state, OperationState::Failed);
        saboteur.rest();
    }
    let last = broker.back_up(&credentials).await;
    inside.idle("i").await;
    let listed = backups(&broker, &credentials).await;
    let complete = listed.iter().filter(|b| b[0] == "complete").count();
    assert_eq!(complete, 1, "{listed:?}");
    let stuck = inside.stuck_backup("i").await;
    for file in files_of_deployments(&broker) {
        let expected = [text(&last["id"]), &stuck];
        let is_backup = file.starts_with("backups/") && !file.ends_with(REGISTER);
        assert!(
            !is_backup || expected.iter().any(|id| file.contains(id)),
            "{file}"
        );
    }
    broker.deprovision("i").await;
    assert_nothing_is_left(&of, &broker, &inside).await;
}

with! {
    in_memory, Database::in_memory(),
    a_step_that_fails_or_panics_once_is_tried_again
    a_step_that_runs_twice_ends_as_if_it_had_run_once
    a_worker_that_dies_before_its_record_is_made_up_for
    a_worker_that_dies_between_two_steps_is_made_up_for
    a_provision_that_fails_for_good_leaves_nothing_behind
    a_restore_that_fails_for_good_leaves_nothing_behind
    a_binding_that_fails_for_good_leaves_no_user_behind
    a_backup_that_fails_for_good_leaves_no_object_behind
}

// What only real members show: that each of their calls may be made twice, and that nothing of a
// process or of a folder is left.
with! {
    on_etcd, Database::Etcd,
    a_step_that_runs_twice_ends_as_if_it_had_run_once
    a_worker_that_dies_between_two_steps_is_made_up_for
    a_restore_that_fails_for_good_leaves_nothing_behind
}
