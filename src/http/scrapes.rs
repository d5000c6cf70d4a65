//! Who may scrape the metrics, and what scrapes were told last.

use actix_web::web;
use tokio::{sync::Mutex, time::Instant};

use crate::model::{limits::SCRAPE_FRESH, secret::Secret};

/// Who may scrape, and what scrapes were told last. Each page costs reads of the store.
#[derive(Default)]
pub struct Scrapes {
    /// Lets in beside the platforms' credentials.
    pub token: Option<Secret>,
    last: Mutex<Option<(Instant, web::Bytes)>>,
}

impl Scrapes {
    /// Scrapes that a token lets in, too.
    pub fn guarded_by(token: Option<Secret>) -> Self {
        Self {
            token,
            last: Mutex::default(),
        }
    }

    /// What was told a moment ago, else what `make` tells. Who comes meanwhile is told the same.
    pub(super) async fn page(&self, make: impl Future<Output = String>) -> web::Bytes {
        let mut last = self.last.lock().await;
        match &*last {
            Some((at, page)) if at.elapsed() < SCRAPE_FRESH => page.clone(),
            _ => {
                let page = web::Bytes::from(make.await);
                *last = Some((Instant::now(), page.clone()));
                page
            }
        }
    }
}
