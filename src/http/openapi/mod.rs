//! The OpenAPI 3.1 documents of what is served: made of the types and attributes beside the handlers,
//! completed by what all operations have in common.
//!
//! Invariants: every route of both APIs is in a document, and a document holds no other (`tests.rs`
//! reads the routes); parameters of plans are those of the catalog in force, in its own words.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, CacheDirective, ETag, EntityTag},
    web,
};
use serde_json::{Map, Value, json};

use super::{Api, compose, operator, osb, request::is_known};
use crate::model::catalog::{Catalog, Served};

pub mod requests;
pub mod rules;
pub mod scalars;
#[cfg(test)]
mod tests;

/// The documents as they are served. OSB's changes with the catalog and is kept until then.
#[derive(Default)]
pub struct Documents {
    osb: Mutex<Option<OfCatalog>>,
}

/// OSB's document, and the tag of the catalog that it was made with.
struct OfCatalog {
    catalog: String,
    document: Arc<Served>,
}

impl Documents {
    fn osb(&self, catalog: &Catalog) -> Arc<Served> {
        let shown = catalog.served(true);
        let mut kept = self.osb.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some(known) if known.catalog == shown.tag => known.document.clone(),
            _ => {
                let mut document = osb::document::document();
                show_parameters(&mut document, &shown.body);
                let document = Arc::new(Served::new(document.to_string()));
                *kept = Some(OfCatalog {
                    catalog: shown.tag.clone(),
                    document: document.clone(),
                });
                document
            }
        }
    }
}

static COMPOSE: LazyLock<Served> =
    LazyLock::new(|| Served::new(compose::document::document().to_string()));
static OPERATOR: LazyLock<Served> =
    LazyLock::new(|| Served::new(operator::document::document().to_string()));

/// `GET /openapi/osb.json`
pub async fn osb(
    api: web::Data<Api>,
    documents: web::Data<Documents>,
    request: HttpRequest,
) -> HttpResponse {
    serve(
        &request,
        &documents.osb(&api.broker.inventory.catalog.get()),
    )
}

/// `GET /openapi/compose.json`
pub async fn compose(request: HttpRequest) -> HttpResponse {
    serve(&request, &COMPOSE)
}

/// `GET /openapi/operator.json`
pub async fn operator(request: HttpRequest) -> HttpResponse {
    serve(&request, &OPERATOR)
}

fn serve(request: &HttpRequest, document: &Served) -> HttpResponse {
    let tag = EntityTag::new_strong(document.tag.clone());
    let known = is_known(request, &tag, None);
    let mut response = HttpResponse::Ok();
    response.insert_header(ETag(tag));
    response.insert_header(header::CacheControl(vec![CacheDirective::NoCache]));
    if known {
        return response
            .status(actix_web::http::StatusCode::NOT_MODIFIED)
            .finish();
    }
    response
        .content_type(header::ContentType::json())
        .body(document.body.clone())
}

/// The methods of each path in a document, as `Allow` tells them.
static METHODS: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let documents = [
        osb::document::document(),
        compose::document::document(),
        operator::document::document(),
    ];
    let paths = documents.iter().filter_map(|d| d["paths"].as_object());
    let told = |operations: &Value| {
        let methods = operations.as_object().into_iter().flat_map(Map::keys);
        methods
            .map(|m| m.to_uppercase())
            .collect::<Vec<_>>()
            .join(", ")
    };
    paths
        .flatten()
        .map(|(path, operations)| (path.clone(), told(operations)))
        .collect()
});

/// The methods that a route has, as `Allow` tells them; none for a route that is in no document.
pub fn methods_of(route: &str) -> Option<&'static str> {
    METHODS.get(route).map(String::as_str)
}

/// Catalogs write draft 4, and the document speaks of 2020-12: of what the two have in common, a
/// limit that is excluded is a number by itself today, and was a remark beside one.
fn modernise(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("$schema");
            let limits = [
                ("minimum", "exclusiveMinimum"),
                ("maximum", "exclusiveMaximum"),
            ];
            for (limit, excluded) in limits {
                match fields.get(excluded) {
                    Some(Value::Bool(true)) => {
                        let number = fields.remove(limit).unwrap_or_default();
                        fields.insert(excluded.to_owned(), number);
                    }
                    Some(Value::Bool(false)) => {
                        fields.remove(excluded);
                    }
                    _ => {}
                }
            }
            fields.values_mut().for_each(modernise);
        }
        Value::Array(items) => items.iter_mut().for_each(modernise),
        _ => {}
    }
}

/// Puts the plans' own schemas where the document speaks of parameters.
fn show_parameters(document: &mut Value, catalog: impl AsRef<[u8]>) {
    let catalog: Value = serde_json::from_slice(catalog.as_ref()).unwrap_or_default();
    for (name, what, place) in [
        (
            "ProvisionParameters",
            "a new instance",
            "/schemas/service_instance/create/parameters",
        ),
        (
            "UpdateParameters",
            "an update",
            "/schemas/service_instance/update/parameters",
        ),
        (
            "BindParameters",
            "a binding",
            "/schemas/service_binding/create/parameters",
        ),
    ] {
        let plans = catalog["services"].as_array().into_iter().flatten();
        let plans = plans.flat_map(|service| service["plans"].as_array().into_iter().flatten());
        let mut schemas: Vec<Value> = Vec::new();
        for schema in plans.filter_map(|plan| plan.pointer(place)) {
            let mut schema = schema.clone();
            modernise(&mut schema);
            if !schemas.contains(&schema) {
                schemas.push(schema);
            }
        }
        let mut shown = json!({
            "description": format!("Parameters of {what}, as the plans of the catalog have them"),
            "type": "object",
        });
        if !schemas.is_empty() {
            shown["anyOf"] = schemas.into();
        }
        document["components"]["schemas"][name] = shown;
    }
}
