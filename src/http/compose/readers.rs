//! What those may read of an instance whose credentials only read: what the pages show them.

use actix_web::{HttpRequest, http::Method};

/// What they may read of a deployment. Credentials, links, downloads and logs are not among it, and what is
/// new here is refused until it stands in this list.
const OF_DEPLOYMENTS: [&str; 9] = [
    "alerts",
    "backup_schedule",
    "backups",
    "defragmentations",
    "history",
    "members",
    "recipes",
    "scalings",
    "versions",
];

/// Whether a request below an instance is for those who only read.
pub fn may_read(request: &HttpRequest) -> bool {
    request.method() == Method::GET && is_for_readers(request.match_info().unprocessed())
}

/// Whether a path below an instance, such as `/deployments`, is for those who only read.
fn is_for_readers(path: &str) -> bool {
    let path = path.strip_suffix('/').unwrap_or(path);
    let places: Vec<&str> = path.split('/').skip(1).collect();
    match places[..] {
        [] | ["deployments"] | ["deployments", _] | ["recipes", _] => true,
        ["deployments", _, of] => OF_DEPLOYMENTS.contains(&of),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_refused() {
        for (path, expected) in [
            ("", true),
            ("/", true),
            ("/deployments", true),
            ("/deployments/d", true),
            ("/deployments/d/", true),
            ("/deployments/d/alerts", true),
            ("/deployments/d/backups/", true),
            ("/recipes/r", true),
            ("/deployments/d/backups/b", false),
            ("/deployments/d/backups/b/download", false),
            ("/deployments/d/logfiles", false),
            ("/deployments/d/logfiles/l", false),
            ("/deployments/d/uploads", false),
            ("/deployments/d/alerts/more", false),
            ("/deployments/d/Alerts", false),
            ("/recipes", false),
            ("/user", false),
            ("/accounts", false),
            ("/clusters", false),
        ] {
            assert_eq!(is_for_readers(path), expected, "{path}");
        }
    }
}
