//! All instances as operators' lists have them.

use super::*;

fn names(page: &EstatePage<'_>) -> Vec<String> {
    page.shown.iter().map(|of| of.name().to_owned()).collect()
}

async fn estate_of(office: &Office) -> Arc<Estate> {
    for (id, version) in [("b", "3.5.30"), ("A", "3.5.16"), ("c", "3.5.30")] {
        let parameters = json!({ "db_version": version });
        office.instance(id, STANDARD, parameters).await;
    }
    office.broker.estates.estate().await.expect("an estate")
}

fn asked(change: impl FnOnce(&mut EstateQuery)) -> EstateQuery {
    let mut query = EstateQuery::default();
    change(&mut query);
    query
}

#[tokio::test]
async fn a_list_has_those_that_are_asked_for_in_the_order_that_is_asked_for() {
    let office = Office::open();
    let estate = estate_of(&office).await;
    let shown = |query: EstateQuery| names(&estate.page(&query));
    assert_eq!(shown(EstateQuery::default()), ["c", "A", "b"]);
    let reversed = asked(|q| q.reverse = true);
    assert_eq!(shown(reversed), ["b", "A", "c"]);
    let by_name = asked(|q| q.order = Order::Name);
    assert_eq!(shown(by_name), ["A", "b", "c"]);
    let from_behind = asked(|q| (q.order, q.reverse) = (Order::Name, true));
    assert_eq!(shown(from_behind), ["c", "b", "A"]);
    let by_version = asked(|q| q.order = Order::Version);
    assert_eq!(shown(by_version)[0], "A");
    let of_version = asked(|q| q.version = Some("3.5.16".parse().expect("a version")));
    assert_eq!(shown(of_version), ["A"]);
    let of_text = asked(|q| q.text = "a".to_owned());
    assert!(shown(of_text).contains(&"A".to_owned()));
    let elsewhere = asked(|q| q.cluster = Some("far".to_owned()));
    assert!(shown(elsewhere).is_empty());
    let well = asked(|q| q.health = Some(HealthState::Ready));
    assert!(shown(well).is_empty(), "nobody has seen them");
    assert_eq!(estate.count(HealthState::Unknown), 3);
}

#[tokio::test]
async fn a_page_beyond_the_last_is_the_last() {
    let office = Office::open();
    let estate = estate_of(&office).await;
    let page = estate.page(&asked(|q| q.page = 1_000_000));
    assert_eq!((page.page, page.pages, page.found), (1, 1, 3));
    let none = estate.page(&asked(|q| q.text = "nowhere".to_owned()));
    assert_eq!((none.page, none.pages, none.found), (1, 1, 0));
    let late = estate.late(1);
    assert_eq!(late.found, 0);
}

#[tokio::test]
async fn a_cluster_tells_what_is_on_it_and_what_fits() {
    let office = Office::open();
    let estate = estate_of(&office).await;
    let clusters = office
        .broker
        .estates
        .clusters_seen(&estate)
        .await
        .expect("clusters");
    let of = |id: &str| clusters.iter().find(|of| of.cluster.id == id).expect("one");
    assert_eq!(of("near").placed.instances, 3);
    assert_eq!(of("far").placed.instances, 0);
    assert_eq!(of("far").units_free, Some(u64::from(FAR_UNITS)));
}
