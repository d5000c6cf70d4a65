//! What befalls single databases in a real cluster, and what comes of it. What befalls the cluster as a whole
//! is in `outages`.

use std::time::Duration;

use compose_broker::{
    model::limits::STOP_GRACE,
    provisioner::{Provisioner, ProvisionerError, kubernetes::KubernetesProvisioner},
};
use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    apply,
    databases::{Databases, NAMESPACE, is_ready, name, told, uid, waited},
    evict, kubeconfig, kubectl, namespace, settings, tellers, try_kubectl,
};
use crate::{
    broker::text,
    contract::provisioner as teller,
    control::{now, surroundings},
    crash, etcd,
    process::BrokerProcess,
    repair,
    updates::{GAP_MAX, Writer, assert_same_everywhere},
};

/// Has a server's container use more memory than it may. Small processes beside the server do, so that it is
/// the largest of them, which the kernel ends.
const USE_MEMORY: &str = "b=/tools/busybox; i=0; while [ $i -lt 30 ]; do \
    $b head -c 25000000 /dev/zero | $b tail -c 25000000 | $b sleep 30 & i=$((i + 1)); done; wait";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes"]
async fn a_database_outlives_a_pod_its_memory_and_a_volume() {
    let cluster = Databases::new("losses", "31600-31649");
    let broker = cluster.broker(&[], surroundings()).await;
    let credentials = repair::with_keys(&broker, "3.6.16").await;
    cluster.ready(3).await;
    let writer = Writer::start_slow(&credentials);

    // Somebody deletes a pod.
    let before = cluster.pod("m0").expect("a pod");
    let delete = ["-n", NAMESPACE, "delete", "--wait=false"];
    kubectl(&[&delete[..], &["pod", name(&before)]].concat());
    let is_another = |pod: &Value| uid(pod) != uid(&before) && is_ready(pod);
    cluster.pod_that("m0", "serves again", is_another).await;

    // One uses more memory than it may.
    let pod = cluster.pod("m1").expect("a pod");
    let inside = ["exec", name(&pod), "-c", "server", "--", "/tools/busybox"];
    let begun = [&["-n", NAMESPACE][..], &inside, &["sh", "-c", USE_MEMORY]].concat();
    // The command ends with its container.
    let _ = try_kubectl(&begun);
    let was_ended =
        |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"] == 1 && is_ready(pod);
    let what = "was ended for its memory and serves again";
    cluster.pod_that("m1", what, was_ended).await;

    // Somebody deletes a volume. It goes with the pod that uses it.
    let claims = cluster.all("persistentvolumeclaim");
    let of_m2 = |claim: &&Value| name(claim).ends_with("-m2");
    let claim = claims.iter().find(of_m2).expect("a claim");
    kubectl(&[&delete[..], &["persistentvolumeclaim", name(claim)]].concat());
    kubectl(&[&delete[..], &["pod", &format!("{}-0", name(claim))]].concat());
    let words = "Member m2 lost its data. It was replaced";
    repair::says(&broker, &credentials, words).await;
    cluster.ready(3).await;
    let now_claimed = cluster.all("persistentvolumeclaim");
    let now_claimed = now_claimed.iter().find(of_m2).expect("a claim");
    assert_ne!(uid(now_claimed), uid(claim));

    let written = writer.end().await;
    println!("{written:?}");
    assert!(written.longest_gap < GAP_MAX, "{written:?}");
    assert_same_everywhere(&credentials, written.keys).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes"]
async fn no_member_is_taken_beside_one_that_the_broker_has_stopped() {
    namespace(NAMESPACE);
    let settings = settings(
        &format!("budget-{}", now().timestamp_millis()),
        NAMESPACE,
        &tellers(),
    );
    let opened = KubernetesProvisioner::open(Some(&kubeconfig()), None, settings).await;
    let (at, id) = (opened.expect("a cluster"), teller::new_id());
    for member in ["m0", "m1", "m2"] {
        let mut server = teller::server(&id, "a");
        member.clone_into(&mut server.member);
        at.start(&server).await.expect("started");
    }
    let budget = |healthy: usize| {
        let name = format!("db-{id}");
        async move {
            waited(&format!("{healthy} members in a budget"), || async {
                let told = [
                    "get",
                    "pdb",
                    &name,
                    "-o",
                    "jsonpath={.status.currentHealthy}",
                ];
                let told = kubectl(&[&["-n", NAMESPACE][..], &told].concat());
                (told == healthy.to_string()).then_some(())
            })
            .await;
        }
    };
    budget(3).await;
    at.stop(&id, "m0", STOP_GRACE).await.expect("stopped");
    budget(2).await;
    let refused = evict(NAMESPACE, &format!("db-{id}-m1-0")).expect_err("a budget");
    assert!(refused.contains("disruption budget"), "{refused}");
    at.start(&teller::server(&id, "a")).await.expect("started");
    budget(3).await;
    evict(NAMESPACE, &format!("db-{id}-m1-0")).expect("moved away");
    at.destroy(&id).await.expect("destroyed");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes"]
async fn an_image_that_cannot_be_pulled_is_told_of_and_leaves_nothing() {
    let cluster =
        Databases::new("pull", "31650-31699").with_image("3.5.35", "bed.local/etcd:unheard");
    let broker = cluster.broker(&[], surroundings()).await;
    let wanted = json!({ "db_version": "3.5.35" });
    let accepted = broker.put_instance("i", wanted).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let words = "does not start: its image cannot be pulled; the cluster's operator has to look";
    told(&broker, "i", &accepted.body, words).await;
    broker.deprovision("i").await;
    assert_eq!(cluster.left(), "");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes"]
async fn what_keeps_a_database_from_going_is_told_of_until_it_lets_go() {
    let cluster = Databases::new("kept", "31700-31749");
    let broker = cluster.broker(&[], surroundings()).await;
    broker.provision("i", json!({})).await;
    let claims = cluster.all("persistentvolumeclaim");
    let patch = |finalizers: &Value| {
        let patch = json!({ "metadata": { "finalizers": finalizers } }).to_string();
        let of = [
            "-n",
            NAMESPACE,
            "patch",
            "persistentvolumeclaim",
            name(&claims[0]),
        ];
        kubectl(&[&of[..], &["--type=merge", "-p", &patch]].concat());
    };
    patch(&json!([
        "example.org/hangs",
        "kubernetes.io/pvc-protection"
    ]));
    let accepted = broker.delete_instance("i").await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let words = "the cluster keeps something of it that was told to go";
    told(&broker, "i", &accepted.body, words).await;
    let left = cluster.left();
    assert_eq!(
        left.trim(),
        format!("persistentvolumeclaim/{}", name(&claims[0]))
    );
    patch(&Value::Null);
    let end = broker.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    assert_eq!(cluster.left(), "");
}

/// Objects of others that have the names of what a member would be made of.
fn foreign(id: &str) -> [Value; 3] {
    let of = |version: &str, kind: &str, name: String| {
        let meta = json!({ "name": name, "namespace": NAMESPACE, "labels": { "whose": "theirs" } });
        json!({ "apiVersion": version, "kind": kind, "metadata": meta })
    };
    let mut service = of("v1", "Service", format!("db-{id}-m0"));
    service["spec"] = json!({ "ports": [{ "name": "theirs", "port": 80 }] });
    let mut claim = of("v1", "PersistentVolumeClaim", format!("db-{id}-m0"));
    claim["spec"] = json!({
        "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Mi" } },
    });
    let mut pod = of("v1", "Pod", format!("db-{id}-m0-0"));
    let security = json!({
        "allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": 1000,
        "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" },
    });
    pod["spec"] = json!({ "terminationGracePeriodSeconds": 0, "containers": [{
        "name": "theirs", "image": "bed.local/busybox:1", "command": ["sleep", "600"],
        "securityContext": security,
    }] });
    [service, claim, pod]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes"]
async fn what_others_have_made_stays_as_it_is() {
    namespace(NAMESPACE);
    let settings = settings(
        &format!("foreign-{}", now().timestamp_millis()),
        NAMESPACE,
        &tellers(),
    );
    let opened = KubernetesProvisioner::open(Some(&kubeconfig()), None, settings).await;
    let at = opened.expect("a cluster");
    for place in 0..3 {
        let id = teller::new_id();
        let theirs = &foreign(id.as_str())[place];
        apply(theirs);
        let kind = text(&theirs["kind"]);
        let refused = at.start(&teller::server(&id, "a")).await;
        let is_told =
            matches!(&refused, Err(ProvisionerError::NameTaken { kind: of, .. }) if of == kind);
        assert!(is_told, "{kind}: {refused:?}");
        // Nor when it goes on after that.
        let _ = at.stop(&id, "m0", Duration::ZERO).await;
        let _ = at.wipe(&id, "m0").await;
        at.destroy(&id).await.expect("the rest goes");
        let which = [kind, name(theirs)];
        let told = [
            "-o",
            "jsonpath={.metadata.labels.whose}{.metadata.deletionTimestamp}",
        ];
        let left = kubectl(&[&["-n", NAMESPACE, "get"][..], &which, &told].concat());
        assert_eq!(left, "theirs", "{kind}");
        kubectl(&[&["-n", NAMESPACE, "delete"][..], &which].concat());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes"]
async fn a_broker_that_is_killed_in_each_step_is_made_up_for() {
    let cluster = Databases::new("killed", "31750-31799");
    let folder = tempfile::tempdir().expect("a folder");
    let mut broker = BrokerProcess::stopped_with(|settings| {
        settings.insert("CLUSTERS", cluster.file(folder.path()));
        // It is asked again and again, so that no step is missed, and a cluster takes its time.
        settings.insert("REQUESTS_PER_SECOND", "0".to_owned());
    });
    broker.start_again().await;
    let work = crash::provision(&broker, "i", json!({ "db_version": "3.5.35" })).await;
    let (end, met) = work.end_with_a_kill_in_each_step(&mut broker).await;
    assert!(end.starts_with("succeeded"), "killed in {met:?}: {end}");
    assert!(met.len() >= 2, "killed in {met:?} only");
    let credentials = broker.bind("i", "app").await;
    etcd::fill(&mut etcd::connect(&credentials).await, 50, "v").await;
    assert_same_everywhere(&credentials, 50).await;
    let work = crash::deprovision(&broker, "i").await;
    let (end, met) = work.end_with_a_kill_in_each_step(&mut broker).await;
    assert!(end.starts_with("succeeded"), "killed in {met:?}: {end}");
    assert_eq!(cluster.left(), "");
}

/// The process of a member, by the id of its database.
fn process_of(deployment: &str, member: &str) -> i32 {
    let is_its = |line: Vec<String>| {
        line.contains(&format!("--name={member}"))
            && line.contains(&format!("--initial-cluster-token={deployment}"))
    };
    let all = procfs::process::all_processes().expect("processes");
    let mut its = all
        .flatten()
        .filter(|process| process.cmdline().is_ok_and(is_its));
    its.next().expect("a process").pid
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes"]
async fn a_member_that_hangs_while_no_broker_runs_is_started_anew() {
    let cluster = Databases::new("hang", "31950-31999");
    let mut broker = cluster.broker(&[], surroundings()).await;
    let credentials = repair::with_keys(&broker, "3.6.16").await;
    cluster.ready(3).await;
    broker.stop().await;
    let writer = Writer::start_slow(&credentials);
    let hung = process_of(text(&credentials["deployment_id"]), "m1");
    repair::signal(hung, Signal::STOP);
    let begun = Instant::now();
    let is_anew =
        |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"] == 1 && is_ready(pod);
    cluster.pod_that("m1", "was started anew", is_anew).await;
    println!("started anew {:.0?} after it hung", begun.elapsed());
    let written = writer.end().await;
    println!("{written:?}");
    assert!(written.longest_gap < GAP_MAX, "{written:?}");
    assert_same_everywhere(&credentials, written.keys).await;
    broker.start_again(surroundings()).await;
    broker.deprovision("i").await;
    assert_eq!(cluster.left(), "");
}
