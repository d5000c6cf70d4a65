//! What the namespace of a tenant is made of.

use insta::assert_json_snapshot;

use super::*;
use crate::{model::tenant, provisioner::kubernetes::place::tests::settings};

fn tenant(space: &str) -> Tenant {
    tenant::tests::tenant("acme", space)
}

/// Settings as they are seen from the namespace of a tenant.
fn within(tenant: &Tenant) -> Settings {
    let settings = settings();
    Settings {
        namespace: name(&settings, tenant),
        ..settings
    }
}

#[test]
fn each_tenant_has_a_name_of_its_own_that_stays() {
    let settings = settings();
    let names = ["blue", "green"].map(|space| name(&settings, &tenant(space)));
    assert_ne!(names[0], names[1]);
    for of in &names {
        assert_eq!(of.len(), settings.namespace.len() + NAME_BYTES_MORE);
        let end = of.strip_prefix("databases-").expect("the broker's own");
        assert!(end.chars().all(|c| c.is_ascii_hexdigit()), "{of}");
    }
    // Databases are in the namespaces that were made before.
    let text = r#"{"platform":"cloudfoundry","organization":"acme","space":"blue"}"#;
    assert_eq!(super::text(&tenant("blue")), text);
    let hash = &labels::sha256(text)[..12];
    assert_eq!(names[0], format!("databases-{hash}"));
}

#[test]
fn what_is_in_it_before_any_database_is() {
    let of = tenant("blue");
    let settings = within(&of);
    let hard = BTreeMap::from([
        ("limits.memory".to_owned(), "8Gi".to_owned()),
        ("pods".to_owned(), "20".to_owned()),
    ]);
    assert_json_snapshot!("namespace", namespace(&settings, &of));
    assert_json_snapshot!("binding", binding(&settings, "system:user"));
    assert_json_snapshot!("policy", policy(&settings));
    assert_json_snapshot!("quota", quota(&settings, &hard));
}

#[test]
fn what_keeps_a_namespace_is_told_in_the_words_of_the_api_server() {
    let of = |status: &str| -> Namespace {
        let condition = json!({
            "type": "NamespaceContentRemaining", "status": status,
            "reason": "SomeResourcesRemain", "message": "pods. has 1 resource instances",
            "lastTransitionTime": null,
        });
        let namespace = json!({ "metadata": {}, "status": { "conditions": [condition] } });
        serde_json::from_value(namespace).expect("a namespace")
    };
    assert_eq!(what_keeps(&of("True")), " (pods. has 1 resource instances)");
    assert_eq!(what_keeps(&of("False")), "");
}
