//! What pages are dressed with: one style sheet, scripts, one icon, all inside the binary.
//!
//! The name of each holds a hash of it, so browsers may keep it for ever and never keep an old one.

use std::sync::LazyLock;

use actix_web::{
    HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
};

use crate::seal::fingerprint;

/// Where assets are.
const FOLDER: &str = "/dashboard/assets/";
/// Digits of the hash in a name.
const HASH_DIGITS: usize = 12;

struct Asset {
    path: String,
    content_type: &'static str,
    content: &'static str,
}

impl Asset {
    fn new(name: &str, ending: &str, content_type: &'static str, content: &'static str) -> Self {
        let hash = &fingerprint(content)[..HASH_DIGITS];
        Self {
            path: format!("{FOLDER}{name}-{hash}.{ending}"),
            content_type,
            content,
        }
    }
}

/// All there are.
static ASSETS: LazyLock<[Asset; 4]> = LazyLock::new(|| {
    [
        Asset::new(
            "style",
            "css",
            "text/css; charset=utf-8",
            include_str!("../../../assets/style.css"),
        ),
        Asset::new(
            "script",
            "js",
            "text/javascript; charset=utf-8",
            include_str!("../../../assets/script.js"),
        ),
        Asset::new(
            "import",
            "js",
            "text/javascript; charset=utf-8",
            include_str!("../../../assets/import.js"),
        ),
        Asset::new(
            "icon",
            "svg",
            "image/svg+xml",
            include_str!("../../../assets/icon.svg"),
        ),
    ]
});

/// Where the assets are, for pages.
#[derive(Clone, Copy)]
pub struct Paths {
    /// The style sheet.
    pub style: &'static str,
    /// The script of all pages.
    pub script: &'static str,
    /// That of the page that takes files.
    pub import: &'static str,
    /// The icon.
    pub icon: &'static str,
}

/// Where the assets are.
pub fn paths() -> Paths {
    let [style, script, import, icon] = &*ASSETS;
    Paths {
        style: &style.path,
        script: &script.path,
        import: &import.path,
        icon: &icon.path,
    }
}

/// The answer with the asset at a path; none where there is no asset.
pub fn answer(path: &str) -> Option<HttpResponse> {
    let asset = ASSETS.iter().find(|asset| asset.path == path)?;
    let answer = HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, asset.content_type))
        .insert_header((CACHE_CONTROL, "public, max-age=31536000, immutable"))
        .body(asset.content);
    Some(answer)
}
