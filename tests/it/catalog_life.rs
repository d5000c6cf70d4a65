//! The catalog as platforms keep it, and as operators replace it.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use reqwest::{
    Method, RequestBuilder, StatusCode,
    header::{ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, VARY},
};
use serde_json::{Value, json};

use crate::{
    broker::{
        ENTERPRISE, SERVICE, STANDARD, TestBroker, answer, eventually, instance_path, new_folder,
    },
    catalog::catalog_file,
    control::surroundings,
    disk::Volume,
    postgres,
    process::{BrokerProcess, Settings, command, refused},
    transport::description,
};

/// A request for the catalog by a platform that speaks 2.`minor`.
fn ask(broker: &TestBroker, minor: u32) -> RequestBuilder {
    let (username, password) = broker.platform();
    broker
        .anonymous(Method::GET, "/v2/catalog")
        .basic_auth(username, Some(password))
        .header("X-Broker-API-Version", format!("2.{minor}"))
}

async fn send(request: RequestBuilder) -> (StatusCode, HeaderMap, String) {
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status(), response.headers().clone());
    (status, headers, response.text().await.expect("a body"))
}

fn text_of(headers: &HeaderMap, name: impl reqwest::header::AsHeaderName) -> String {
    let value = headers.get(name).expect("a header");
    value.to_str().expect("a text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_039_a_catalog_that_is_known_is_not_sent_again() {
    // Of long ago, by whatever clock: a file is not told to be newer than the broker's now.
    let folder = new_folder();
    let file = folder.join("catalog.json");
    fs::write(&file, catalog_file().to_string()).expect("a file");
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let kept = fs::File::options().write(true).open(&file);
    kept.and_then(|kept| kept.set_modified(old))
        .expect("a time");
    let flags = ["--catalog", file.to_str().expect("UTF-8")];
    let mut broker = TestBroker::start_in(folder.clone(), &flags, surroundings()).await;
    let (status, headers, body) = send(ask(&broker, 17)).await;
    assert_eq!(status, StatusCode::OK);
    let tag = text_of(&headers, ETAG);
    assert!(tag.starts_with('"') && tag.len() == 34, "strong: {tag}");
    let modified = text_of(&headers, LAST_MODIFIED);
    assert_eq!(text_of(&headers, VARY), "x-broker-api-version");
    let hour_ago = "Sat, 01 Jan 2000 00:00:00 GMT";
    let in_2100 = "Fri, 01 Jan 2100 00:00:00 GMT";
    let known = [
        vec![(IF_NONE_MATCH, tag.clone())],
        vec![(IF_NONE_MATCH, format!("W/{tag}"))],
        vec![(IF_NONE_MATCH, "*".to_owned())],
        vec![(IF_NONE_MATCH, format!("\"other\", W/\"x\", {tag}"))],
        vec![
            (IF_NONE_MATCH, "\"other\"".to_owned()),
            (IF_NONE_MATCH, tag.clone()),
        ],
        vec![(IF_MODIFIED_SINCE, modified.clone())],
        vec![(IF_MODIFIED_SINCE, in_2100.to_owned())],
        // Who names tags is not asked for a time.
        vec![
            (IF_NONE_MATCH, tag.clone()),
            (IF_MODIFIED_SINCE, hour_ago.to_owned()),
        ],
    ];
    for fields in known {
        let request = fields
            .iter()
            .fold(ask(&broker, 17), |r, (k, v)| r.header(k, v));
        let (status, headers, body) = send(request).await;
        assert_eq!(status, StatusCode::NOT_MODIFIED, "{fields:?}");
        assert_eq!(body, "");
        assert_eq!(text_of(&headers, ETAG), tag);
        assert_eq!(text_of(&headers, LAST_MODIFIED), modified);
    }
    let unknown = [
        vec![(IF_NONE_MATCH, "\"other\"".to_owned())],
        vec![(IF_NONE_MATCH, String::new())],
        vec![(IF_NONE_MATCH, tag.trim_matches('"').to_owned())],
        vec![
            (IF_NONE_MATCH, "\"other\"".to_owned()),
            (IF_MODIFIED_SINCE, in_2100.to_owned()),
        ],
        vec![(IF_MODIFIED_SINCE, hour_ago.to_owned())],
        vec![(IF_MODIFIED_SINCE, "yesterday".to_owned())],
    ];
    for fields in unknown {
        let request = fields
            .iter()
            .fold(ask(&broker, 17), |r, (k, v)| r.header(k, v));
        let (status, _, again) = send(request).await;
        assert_eq!((status, &again), (StatusCode::OK, &body), "{fields:?}");
    }
    // Credentials and version come first.
    let nobody = broker.anonymous(Method::GET, "/v2/catalog");
    let (status, ..) = send(nobody.header(IF_NONE_MATCH, "*")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let (username, password) = broker.platform();
    let versionless = broker
        .anonymous(Method::GET, "/v2/catalog")
        .basic_auth(username, Some(password))
        .header(IF_NONE_MATCH, &tag);
    assert_eq!(send(versionless).await.0, StatusCode::PRECONDITION_FAILED);

    // 38: older platforms are told another catalog, and no tag of one is good for the other.
    let told: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(told["services"][0]["plans"][0]["binding_rotatable"], true);
    for minor in [13, 15, 16] {
        let (status, headers, body) = send(ask(&broker, minor).header(IF_NONE_MATCH, &tag)).await;
        assert_eq!(status, StatusCode::OK);
        assert_ne!(text_of(&headers, ETAG), tag);
        assert!(!body.contains("binding_rotatable"), "2.{minor}");
    }

    broker.restart_with(surroundings()).await;
    let (_, headers, _) = send(ask(&broker, 17)).await;
    assert_eq!(text_of(&headers, ETAG), tag);
    assert_eq!(text_of(&headers, LAST_MODIFIED), modified);
}

/// A broker in a process, with a catalog file of its own.
async fn with_its_own_catalog() -> (BrokerProcess, PathBuf) {
    let mut file = PathBuf::new();
    let mut broker = BrokerProcess::stopped_with(|settings| {
        file = PathBuf::from(&settings["DATA_DIR"]).with_file_name("catalog.json");
        settings.insert("CATALOG", file.display().to_string());
    });
    fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    fs::write(&file, catalog_file().to_string()).expect("a file");
    broker.start_again().await;
    (broker, file)
}

/// How often the log says so.
fn said(broker: &BrokerProcess, what: &str) -> usize {
    broker
        .logged()
        .lines()
        .filter(|line| line.contains(what))
        .count()
}

const READ: &str = "the catalog was read anew";
const STAYS: &str = "the catalog stays what it was";

/// Gives the broker another catalog, and waits until it says what came of it.
async fn reload(broker: &BrokerProcess, file: &PathBuf, catalog: &str) -> String {
    let before = said(broker, READ) + said(broker, STAYS);
    fs::write(file, catalog).expect("a file");
    broker.hang_up();
    eventually("a word about the catalog", || async {
        (said(broker, READ) + said(broker, STAYS) > before).then_some(())
    })
    .await;
    let log = broker.logged();
    let told = log.lines().rfind(|l| l.contains(READ) || l.contains(STAYS));
    told.expect("a line").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_that_cannot_be_written_down_is_not_served() {
    // The disk that is full here has no PostgreSQL on it.
    if postgres::is_store() {
        return;
    }
    let mut data = PathBuf::new();
    let mut broker = BrokerProcess::stopped_with(|settings| {
        data = PathBuf::from(&settings["DATA_DIR"]);
        let file = data.with_file_name("catalog.json");
        settings.insert("CATALOG", file.display().to_string());
    });
    let file = data.with_file_name("catalog.json");
    let Some(volume) = Volume::mount(&data, 20) else {
        return;
    };
    fs::write(&file, catalog_file().to_string()).expect("a file");
    broker.start_again().await;
    // Gone before the broker, which clears its folder away.
    let volume = volume;
    let before = send(ask(&broker, 17)).await;
    let mut renamed = catalog_file();
    renamed["services"][0]["description"] = json!("Renamed");
    let filler = volume.fill_up_to(0);
    let told = reload(&broker, &file, &renamed.to_string()).await;
    assert!(told.contains(STAYS), "{told}");
    let after = send(ask(&broker, 17)).await;
    assert_eq!(after.2, before.2);
    fs::remove_file(filler).expect("room");
    let told = reload(&broker, &file, &renamed.to_string()).await;
    assert!(told.contains(READ), "{told}");
    assert!(send(ask(&broker, 17)).await.2.contains("Renamed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_is_replaced_while_the_broker_runs_and_a_bad_one_is_not() {
    let (broker, file) = with_its_own_catalog().await;
    let first = send(ask(&broker, 17)).await;
    let mut renamed = catalog_file();
    renamed["services"][0]["description"] = json!("Renamed");
    renamed["services"][0]["plans"][0]["id"] = json!("another-plan");
    let told = reload(&broker, &file, &renamed.to_string()).await;
    assert!(told.contains(READ), "{told}");
    let second = send(ask(&broker, 17)).await;
    assert!(second.2.contains("Renamed"));
    assert_ne!(text_of(&first.1, ETAG), text_of(&second.1, ETAG));
    let body = json!({
        "service_id": SERVICE, "plan_id": STANDARD,
        "organization_guid": "org", "space_guid": "space",
    });
    let path = format!("{}?accepts_incomplete=true", instance_path("i"));
    let old_plan = answer(broker.osb(Method::PUT, &path).json(&body)).await;
    assert!(description(&old_plan, StatusCode::BAD_REQUEST).contains(STANDARD));

    // What is broken is refused in one line that names the first place and how many there are.
    let mut broken = renamed.clone();
    broken["services"][0]["plans"][1]["free"] = json!("no");
    broken["services"][0]["name"] = json!("two words");
    for (text, named) in [
        (broken.to_string(), "services[0].plans[1].free"),
        ("{".to_owned(), "not JSON"),
        (json!({ "services": [] }).to_string(), "services"),
    ] {
        let told = reload(&broker, &file, &text).await;
        assert!(told.contains(STAYS) && told.contains(named), "{told}");
        assert!(!told.contains("at :"), "{told}");
        let same = send(ask(&broker, 17)).await;
        assert_eq!(text_of(&same.1, ETAG), text_of(&second.1, ETAG));
    }
    fs::remove_file(&file).expect("removed");
    let before = said(&broker, STAYS);
    broker.hang_up();
    eventually("a word", || async {
        (said(&broker, STAYS) > before).then_some(())
    })
    .await;
    let told = reload(&broker, &file, &catalog_file().to_string()).await;
    assert!(told.contains(READ), "{told}");
    let back = send(ask(&broker, 17)).await;
    assert_eq!(text_of(&back.1, ETAG), text_of(&first.1, ETAG));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_instances_use_is_not_taken_away() {
    let (mut broker, file) = with_its_own_catalog().await;
    for id in ["one", "another \"id\""] {
        let accepted = broker.put_instance(id, json!({})).await;
        assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    }
    let mut without = catalog_file();
    let plans = without["services"][0]["plans"]
        .as_array_mut()
        .expect("plans");
    plans.retain(|plan| plan["id"] == ENTERPRISE);
    let mut other_service = catalog_file();
    other_service["services"][0]["id"] = json!("other");
    for catalog in [&without, &other_service] {
        let told = reload(&broker, &file, &catalog.to_string()).await;
        for named in [STAYS, STANDARD, SERVICE, "one", "another"] {
            assert!(told.contains(named), "{told}");
        }
        let (_, _, body) = send(ask(&broker, 17)).await;
        assert!(body.contains(STANDARD) && body.contains(SERVICE));
    }
    // At a start too: one line says why. Those before it tell of members, which are looked after first.
    broker.kill();
    let settings: Settings = broker.settings().clone();
    let refused = refused(&settings).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{said}");
    let (of_members, reason): (Vec<&str>, Vec<&str>) =
        said.lines().partition(|line| line.contains(" member="));
    assert_eq!(reason.len(), 1, "{said}");
    assert_eq!(said.lines().last(), Some(reason[0]), "{of_members:?}");
    for named in ["COMPOSE_BROKER_CATALOG", SERVICE, "one", "another"] {
        assert!(reason[0].contains(named), "{said}");
    }
    fs::write(&file, catalog_file().to_string()).expect("a file");
    broker.start_again().await;
    for id in ["one", "another \"id\""] {
        broker.deprovision(id).await;
    }
    // Nobody uses it any more.
    let told = reload(&broker, &file, &without.to_string()).await;
    assert!(told.contains(READ), "{told}");
}

#[test]
fn a_catalog_can_be_checked_without_a_broker() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |name: &str, text: Option<&str>| {
        let file = folder.path().join(name);
        text.inspect(|text| fs::write(&file, text).expect("a file"));
        let file = file.display().to_string();
        let output = command(&["catalog", "check", &file], &Settings::new()).output();
        let output = output.expect("an end");
        let told = String::from_utf8(output.stdout).expect("a text");
        (output.status.code(), told)
    };
    let (code, told) = check("sound.json", Some(&catalog_file().to_string()));
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("1 service, 2 plans"), "{told}");
    let mut broken = catalog_file();
    broken["services"][0]["plans"][1]["free"] = json!("no");
    broken["services"][0]["plans"][1]["id"] = json!(STANDARD);
    broken["services"][0]["name"] = json!("two words");
    broken["services"][0]["plans"][0]["pony"] = json!(true);
    let (code, told) = check("broken.json", Some(&broken.to_string()));
    assert_eq!(code, Some(1));
    let places: Vec<&str> = told
        .lines()
        .filter_map(|line| line.strip_prefix("at ")?.split_once(": "))
        .map(|(place, _)| place)
        .collect();
    for place in [
        "services[0].name",
        "services[0].plans[0].pony",
        "services[0].plans[1].free",
        "services[0].plans[1].id",
    ] {
        assert!(places.contains(&place), "{place}: {told}");
    }
    assert_eq!(places.len(), 4, "{told}");
    assert_eq!(check("empty.json", Some("")).0, Some(1));
    assert_eq!(check("absent.json", None).0, Some(1));
}
