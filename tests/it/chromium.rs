//! A person at a browser: finds things by role and name, clicks and types, waits for what comes,
//! and sees whether the page is sound.
//!
//! Everything that the browser asked for and everything that it complained of is kept;
//! [`Chromium::check`] fails a test for a complaint, for a blocked request and for a request that
//! goes anywhere but to the broker.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    broker::{eventually, text},
    webdriver::{Driver, ElementId, Refusal},
};

/// A narrow telephone and a common laptop: width and height in CSS pixels.
pub const NARROW: (u32, u32) = (360, 800);
pub const WIDE: (u32, u32) = (1440, 900);
/// How often Tab is pressed before something counts as out of the keyboard's reach.
const TABS_MAX: u32 = 150;

pub const TAB: char = '\u{E004}';
pub const ENTER: char = '\u{E007}';
pub const SHIFT: char = '\u{E008}';
pub const CONTROL: char = '\u{E009}';
pub const SPACE: char = ' ';
pub const ARROW_RIGHT: char = '\u{E014}';
pub const ARROW_DOWN: char = '\u{E015}';

/// What the page is asked to look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scheme {
    Light,
    Dark,
}

/// One browser with one page.
pub struct Chromium {
    driver: Driver,
    seen: Mutex<Seen>,
}

/// What came of the page so far.
#[derive(Default)]
struct Seen {
    complaints: Vec<String>,
    requests: Vec<Request>,
    /// Those on their way, by the browser's own id.
    open: HashMap<String, usize>,
}

/// A request of the page, whatever it was for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub url: String,
    /// 0 as long as there is no answer.
    pub status: u64,
    /// Bytes that came over the wire so far, headers included.
    pub bytes: u64,
    /// Why it was blocked or failed; not when the page itself gave it up.
    pub failure: Option<String>,
}

/// Something on the page, as long as the page keeps it.
#[derive(Clone)]
pub struct Element<'a> {
    page: &'a Chromium,
    pub id: ElementId,
}

impl Chromium {
    /// A new browser, wide and light, allowed to download and to use the clipboard.
    pub async fn start() -> Self {
        let driver = Driver::start().await;
        let page = Self {
            driver,
            seen: Mutex::default(),
        };
        let downloads = page.downloads();
        fs::create_dir(&downloads).expect("a folder");
        page.cdp(
            "Browser.setDownloadBehavior",
            json!({ "behavior": "allow", "downloadPath": downloads }),
        )
        .await;
        page.cdp(
            "Browser.grantPermissions",
            json!({ "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"] }),
        )
        .await;
        page.resize(WIDE).await;
        page.prefer(Scheme::Light).await;
        // What came before the first page is not of the page.
        page.listen().await;
        *page.seen() = Seen::default();
        page
    }

    async fn cdp(&self, command: &str, parameters: Value) -> Value {
        self.driver.cdp(command, parameters).await
    }

    /// What an expression in the page comes to, whatever the page's own policy allows.
    pub async fn eval(&self, expression: &str) -> Value {
        self.driver.eval(expression).await
    }

    // ---- where one is ----

    /// Goes somewhere and waits until the page is loaded.
    pub async fn open(&self, url: &str) {
        let body = json!({ "url": url });
        self.driver.expect(Method::POST, "/url", body).await;
    }

    /// Loads the page anew.
    pub async fn reload(&self) {
        self.driver
            .expect(Method::POST, "/refresh", json!({}))
            .await;
    }

    /// Where the browser is.
    pub async fn url(&self) -> String {
        let url = self.driver.expect(Method::GET, "/url", json!(null)).await;
        text(&url).to_owned()
    }

    /// Waits until the browser is somewhere whose address has `part` in it.
    pub async fn arrives_at(&self, part: &str) {
        eventually(&format!("a page at {part}"), || async {
            self.url().await.contains(part).then_some(())
        })
        .await;
    }

    /// Sets the size of the page.
    pub async fn resize(&self, (width, height): (u32, u32)) {
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false }),
        )
        .await;
    }

    /// Says what the person likes.
    pub async fn prefer(&self, scheme: Scheme) {
        let value = if scheme == Scheme::Dark {
            "dark"
        } else {
            "light"
        };
        let features = json!([{ "name": "prefers-color-scheme", "value": value }]);
        self.cdp(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        )
        .await;
    }

    /// Forgets who one is.
    pub async fn forget_cookies(&self) {
        self.driver
            .expect(Method::DELETE, "/cookie", json!(null))
            .await;
    }

    /// The page's cookies, those that no script sees included.
    pub async fn cookies(&self) -> Vec<Value> {
        let mut found = self.cdp("Network.getCookies", json!({})).await;
        serde_json::from_value(found["cookies"].take()).expect("cookies")
    }

    // ---- what is there ----

    /// All text of the page that can be seen; none while another page is on its way.
    pub async fn text(&self) -> String {
        let all = self.eval("document.body?.innerText").await;
        all.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the page shows a text.
    pub async fn shows(&self, what: &str) {
        eventually(&format!("“{what}” on the page"), || async {
            self.text().await.contains(what).then_some(())
        })
        .await;
    }

    /// The text of the first thing that a selector finds, waited for and read in one look: the
    /// page may change at any moment.
    pub async fn text_of(&self, selector: &str) -> String {
        let look = format!("document.querySelector({})?.innerText", json!(selector));
        eventually(selector, || async {
            self.eval(&look).await.as_str().map(str::to_owned)
        })
        .await
    }

    /// Waits until the first thing that a selector finds has a text in it.
    pub async fn says(&self, selector: &str, what: &str) {
        eventually(&format!("“{what}” in {selector}"), || async {
            self.text_of(selector).await.contains(what).then_some(())
        })
        .await;
    }

    /// Everything that a selector finds, seen or not.
    pub async fn all(&self, selector: &str) -> Vec<Element<'_>> {
        let body = "return [...document.querySelectorAll(arguments[0])]";
        let found = self.driver.elements(body, json!([selector])).await;
        found.into_iter().map(|id| self.element(id)).collect()
    }

    /// Waits for something that a selector finds.
    pub async fn find(&self, selector: &str) -> Element<'_> {
        eventually(selector, || async {
            self.all(selector).await.into_iter().next()
        })
        .await
    }

    /// Waits for something that can be seen, by what it is to somebody who cannot: its role
    /// (`button`, `link`, `field`, `choice`, `tab`, `disclosure`, `heading`) and its whole name.
    pub async fn named(&self, role: &str, name: &str) -> Element<'_> {
        self.named_in("body", role, name).await
    }

    /// The same within the first thing that `selector` finds.
    pub async fn named_in(&self, selector: &str, role: &str, name: &str) -> Element<'_> {
        eventually(&format!("{role} “{name}” in {selector}"), || async {
            self.all_named_in(selector, role, name)
                .await
                .into_iter()
                .next()
        })
        .await
    }

    /// All that are there now of a role and with a name.
    pub async fn all_named(&self, role: &str, name: &str) -> Vec<Element<'_>> {
        self.all_named_in("body", role, name).await
    }

    async fn all_named_in(&self, selector: &str, role: &str, name: &str) -> Vec<Element<'_>> {
        let kind = selector_of(role);
        // The browser itself says names, one at a time: only those are asked that may have it.
        let body = "
            const [within, kind, name] = arguments;
            const said = e => [e.innerText, e.value, e.title, e.placeholder,
                e.getAttribute('aria-label'), e.getAttribute('aria-labelledby') && name,
                ...[...(e.labels || [])].map(l => l.innerText)];
            return [...(document.querySelector(within)?.querySelectorAll(kind) ?? [])]
                .filter(e => e.checkVisibility({ visibilityProperty: true }))
                .filter(e => said(e).some(text => text && text.replace(/\\s+/g, ' ').includes(name)));";
        let found = self
            .driver
            .elements(body, json!([selector, kind, name]))
            .await;
        let mut named = Vec::new();
        for id in found {
            let element = self.element(id);
            if element.name().await.as_deref() == Ok(name) {
                named.push(element);
            }
        }
        named
    }

    fn element(&self, id: ElementId) -> Element<'_> {
        Element { page: self, id }
    }

    /// Clicks on something, once it is there and nothing lies above it. A page that changes by
    /// itself may take it away just then: then another look.
    pub async fn click(&self, role: &str, name: &str) {
        self.click_in("body", role, name).await;
    }

    /// The same within the first thing that `selector` finds.
    pub async fn click_in(&self, selector: &str, role: &str, name: &str) {
        eventually(
            &format!("a click on {role} “{name}” in {selector}"),
            || async {
                let element = self.named_in(selector, role, name).await;
                element.try_click().await.ok()
            },
        )
        .await;
    }

    // ---- keyboard ----

    /// Presses a key, and those before it meanwhile: `[SHIFT, TAB]`.
    pub async fn press<const N: usize>(&self, keys: [char; N]) {
        let down = keys.iter().map(|key| ("keyDown", key));
        let up = keys.iter().rev().map(|key| ("keyUp", key));
        let actions: Vec<Value> = down
            .chain(up)
            .map(|(kind, key)| json!({ "type": kind, "value": key }))
            .collect();
        let body = json!({ "actions": [{ "type": "key", "id": "keys", "actions": actions }] });
        self.driver.expect(Method::POST, "/actions", body).await;
    }

    /// Types a text at where the focus is.
    pub async fn type_text(&self, what: &str) {
        for key in what.chars() {
            self.press([key]).await;
        }
    }

    /// What has the focus.
    pub async fn focused(&self) -> Element<'_> {
        let body = "return [document.activeElement]";
        let mut found = self.driver.elements(body, json!([])).await;
        self.element(found.pop().expect("an element"))
    }

    /// Goes on with Tab until something of that name has the focus, and can be seen to have it.
    pub async fn tab_to(&self, role: &str, name: &str) -> Element<'_> {
        let mut passed = Vec::new();
        for _ in 0..TABS_MAX {
            self.press([TAB]).await;
            let focused = self.focused().await;
            let here = focused.name().await.unwrap_or_default();
            if here == name && focused.is(selector_of(role)).await {
                assert!(focused.shows_focus().await, "{name}: nobody sees the focus");
                return focused;
            }
            passed.push(here);
        }
        panic!("no way by Tab to {role} “{name}”, only to {passed:?}");
    }

    /// Takes bars for scrolling out of pictures.
    pub async fn hide_scrollbars(&self) {
        self.cdp("Emulation.setScrollbarsHidden", json!({ "hidden": true }))
            .await;
    }

    /// What was copied.
    pub async fn clipboard(&self) -> String {
        let copied = self.eval("navigator.clipboard.readText()").await;
        text(&copied).to_owned()
    }

    // ---- files ----

    /// Where downloads go.
    pub fn downloads(&self) -> PathBuf {
        self.driver.folder().join("downloads")
    }

    /// Waits for a download to be whole.
    pub async fn downloaded(&self, name: &str) -> PathBuf {
        let path = self.downloads().join(name);
        eventually(&format!("the download of {name}"), || async {
            // Unfinished ones have another name.
            path.is_file().then_some(())
        })
        .await;
        path
    }

    /// A picture of what is in view.
    pub async fn picture(&self) -> Vec<u8> {
        let picture = self
            .driver
            .expect(Method::GET, "/screenshot", json!(null))
            .await;
        BASE64.decode(text(&picture)).expect("base64")
    }

    /// The same as WebP with some loss, which is a fraction as large.
    pub async fn small_picture(&self) -> Vec<u8> {
        let parameters = json!({ "format": "webp", "quality": 80 });
        let picture = self.cdp("Page.captureScreenshot", parameters).await;
        BASE64.decode(text(&picture["data"])).expect("base64")
    }

    /// Leaves a picture of the page among what the tests leave (`target/tmp/`).
    pub async fn leave_picture(&self, name: &str) -> PathBuf {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures");
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join(format!("{name}.png"));
        fs::write(&path, self.picture().await).expect("a file");
        path
    }

    // ---- soundness ----

    /// Reads what the browser has written down since the last time.
    async fn listen(&self) {
        for kind in ["browser", "performance"] {
            let body = json!({ "type": kind });
            let entries = self.driver.expect(Method::POST, "/se/log", body).await;
            let mut seen = self.seen();
            for entry in entries.as_array().expect("a list") {
                if kind == "browser" {
                    seen.hear(entry);
                } else {
                    seen.follow(entry);
                }
            }
        }
    }

    /// Every request so far.
    pub async fn requests(&self) -> Vec<Request> {
        self.listen().await;
        self.seen().requests.clone()
    }

    /// Bytes that a first visit of a page takes: the document and all that comes with it.
    pub async fn weight_of(&self, url: &str) -> u64 {
        self.open("about:blank").await;
        self.cdp("Network.clearBrowserCache", json!({})).await;
        let before = self.requests().await.len();
        self.open(url).await;
        // What a page asks for when it is loaded comes a moment later.
        let settled = "new Promise(done => requestIdleCallback(() => setTimeout(done, 300), { timeout: 2000 }))";
        self.eval(settled).await;
        let requests = self.requests().await;
        requests[before..].iter().map(|request| request.bytes).sum()
    }

    /// Everything that the browser complained of since the last time: warnings and errors of
    /// scripts, of the page's policy, of the network, and requests that came to nothing.
    pub async fn complaints(&self) -> Vec<String> {
        self.listen().await;
        let mut seen = self.seen();
        let mut complaints = std::mem::take(&mut seen.complaints);
        for request in &mut seen.requests {
            if let Some(failure) = request.failure.take() {
                complaints.push(format!("{}: {failure}", request.url));
            }
        }
        complaints
    }

    /// Fails when the browser complained, or when anything was asked of anybody but `broker`, which
    /// is the beginning of an address.
    pub async fn check(&self, broker: &str) {
        assert_eq!(self.complaints().await, Vec::<String>::new());
        assert_eq!(self.foreign_requests(broker).await, Vec::<String>::new());
    }

    /// Addresses that were asked for and are not the broker's.
    pub async fn foreign_requests(&self, broker: &str) -> Vec<String> {
        let is_ours = |url: &str| {
            let rest = url.strip_prefix(broker.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
                || url.starts_with("data:")
                || url.starts_with(&format!("blob:{broker}"))
        };
        let requests = self.requests().await;
        let urls = requests.into_iter().map(|request| request.url);
        urls.filter(|url| !is_ours(url)).collect()
    }

    /// What axe-core finds serious or critical, one line for each.
    pub async fn barriers(&self) -> Vec<String> {
        if self.eval("typeof axe").await == "undefined" {
            self.eval(&axe()).await;
        }
        let found = self
            .eval(
                "axe.run(document, { resultTypes: ['violations'], preload: false })
                    .then(found => found.violations.flatMap(v => v.nodes.map(n =>
                        [v.impact, `${v.impact} ${v.id}: ${n.target.join(' ')}: ${n.failureSummary}`])))",
            )
            .await;
        let found: Vec<(Option<String>, String)> = serde_json::from_value(found).expect("pairs");
        let is_grave =
            |impact: &Option<String>| matches!(impact.as_deref(), Some("serious" | "critical"));
        let (grave, rest): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|(impact, _)| is_grave(impact));
        for (_, lesser) in rest {
            println!("axe, not counted: {lesser}");
        }
        grave.into_iter().map(|(_, line)| line).collect()
    }

    /// What is too wide for the page: empty when nobody has to scroll sideways.
    pub async fn overflow(&self) -> Vec<String> {
        let found = self
            .eval(
                "(() => {
                    const root = document.scrollingElement;
                    if (root.scrollWidth <= innerWidth) return [];
                    const wide = [...document.querySelectorAll('body *')].filter(e => {
                        const box = e.getBoundingClientRect();
                        return box.width > 0 && (box.right > innerWidth + 0.5 || box.left < -0.5);
                    });
                    return [`${root.scrollWidth} > ${innerWidth}`, ...wide.slice(0, 8).map(e =>
                        `${e.tagName} #${e.id} .${e.className}: ${e.textContent.trim().slice(0, 40)}`)];
                })()",
            )
            .await;
        serde_json::from_value(found).expect("texts")
    }

    /// Words of ours that were broken apart for want of room: more lines than words.
    pub async fn broken_words(&self) -> Vec<String> {
        let found = self
            .eval(
                "[...document.querySelectorAll('th, dt, h2, h3, label, button, nav a')].filter(e => {
                    if (!e.checkVisibility()) return false;
                    const range = document.createRange();
                    range.selectNodeContents(e);
                    const lines = new Set([...range.getClientRects()].map(r => Math.round(r.top / 8)));
                    return lines.size > e.innerText.trim().split(/[\\s\\u00ad/-]+/).length;
                }).map(e => `${e.tagName} #${e.id}: ${e.innerText}`)",
            )
            .await;
        serde_json::from_value(found).expect("texts")
    }

    /// Texts that stand side by side without a gap, as if they were one.
    pub async fn crowded(&self) -> Vec<String> {
        let found = self
            .eval(
                "(() => {
                    const lines = e => {
                        const range = document.createRange();
                        range.selectNodeContents(e);
                        return [...range.getClientRects()].filter(box => box.width > 0);
                    };
                    const found = [];
                    for (const next of document.querySelectorAll('main :not(svg, svg *, pre *) + *')) {
                        const before = next.previousElementSibling;
                        const between = next.previousSibling;
                        if (between !== before && between.textContent.trim()) continue;
                        // What only screen readers have is clipped away.
                        const seen = e => e.checkVisibility() && getComputedStyle(e).clipPath === 'none';
                        if (![before, next].every(e => seen(e) && e.innerText?.trim())) continue;
                        const [end, start] = [lines(before).at(-1), lines(next)[0]];
                        if (!end || !start || end.bottom <= start.top || start.bottom <= end.top) continue;
                        const gap = start.left - end.right;
                        if (gap > -1 && gap < 2) found.push(`${before.innerText}|${next.innerText}`);
                    }
                    return found;
                })()",
            )
            .await;
        serde_json::from_value(found).expect("texts")
    }

    /// What stands askew or is cut: fields of one row that do not end on one line, choices whose text does
    /// not fit, and dates that are broken into two lines.
    pub async fn askew(&self) -> Vec<String> {
        let found = self
            .eval(
                "(() => {
                    const found = [];
                    const seen = e => e.checkVisibility();
                    for (const row of document.querySelectorAll('.fields')) {
                        const boxes = [...row.querySelectorAll('input:not([type=hidden], [type=checkbox]), select')]
                            .filter(seen).map(e => ({ id: e.id, box: e.getBoundingClientRect() }));
                        for (const a of boxes) for (const b of boxes) {
                            const beside = a.box.top < b.box.bottom && b.box.top < a.box.bottom;
                            if (beside && a.box.bottom - b.box.bottom > 1) found.push(`#${a.id} is lower than #${b.id}`);
                        }
                    }
                    const pen = document.createElement('canvas').getContext('2d');
                    for (const select of [...document.querySelectorAll('select')].filter(seen)) {
                        const style = getComputedStyle(select);
                        pen.font = style.font;
                        const arrow = 16;
                        const room = select.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight) - arrow;
                        const text = select.selectedOptions[0]?.text ?? '';
                        if (pen.measureText(text).width > room) found.push(`#${select.id} cuts “${text}”`);
                    }
                    for (const date of [...document.querySelectorAll('time .exact')].filter(seen)) {
                        if (date.getClientRects().length > 1) found.push(`${date.textContent} is broken`);
                    }
                    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
                    while (texts.nextNode()) {
                        const text = texts.currentNode;
                        if (!seen(text.parentElement) || text.parentElement.closest('pre')) continue;
                        for (const date of text.data.matchAll(/\\d{4}[-\\u2011]\\d\\d[-\\u2011]\\d\\d/g)) {
                            const range = document.createRange();
                            range.setStart(text, date.index);
                            range.setEnd(text, date.index + date[0].length);
                            if (range.getClientRects().length > 1) found.push(`${date[0]} is broken: ${text.data.slice(0, 80)}`);
                        }
                    }
                    return found;
                })()",
            )
            .await;
        serde_json::from_value(found).expect("texts")
    }

    /// Looks at the page in both widths and both schemes: fails for barriers and for what does not
    /// fit. Leaves pictures; wide and light afterwards.
    pub async fn look_over(&self, name: &str) {
        for (size, width) in [(NARROW, "360"), (WIDE, "1440")] {
            self.resize(size).await;
            for (scheme, colours) in [(Scheme::Dark, "dark"), (Scheme::Light, "light")] {
                self.prefer(scheme).await;
                let place = format!("{name}, {width}, {colours}");
                assert_eq!(self.overflow().await, Vec::<String>::new(), "{place}");
                assert_eq!(self.broken_words().await, Vec::<String>::new(), "{place}");
                assert_eq!(self.askew().await, Vec::<String>::new(), "{place}");
                assert_eq!(self.crowded().await, Vec::<String>::new(), "{place}");
                assert_eq!(self.barriers().await, Vec::<String>::new(), "{place}");
                let picture = format!("{name}-{width}-{colours}");
                self.leave_picture(&picture).await;
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Chromium {
    /// A test that fails leaves a picture of what it saw last.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let name = std::thread::current().name().map(|n| n.replace("::", "-"));
            let name = format!("failed-{}", name.unwrap_or_default());
            let picture = || tokio::runtime::Handle::current().block_on(self.leave_picture(&name));
            // A panic while panicking ends all tests: a browser that is gone must not cause one.
            let look = || tokio::task::block_in_place(picture);
            if let Ok(path) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(look)) {
                eprintln!("the page at the failure: {}", path.display());
            }
        }
    }
}

impl Element<'_> {
    /// Its name, as it is told to those who do not see it.
    pub async fn name(&self) -> Result<String, String> {
        let name = self.get("computedlabel").await;
        name.map(|name| text(&name).to_owned()).map_err(|e| e.code)
    }

    /// A property, such as `value` or `open`.
    pub async fn property(&self, name: &str) -> Value {
        let found = self.get(&format!("property/{name}")).await;
        found.expect("an element that is there")
    }

    /// An attribute, as it is written.
    pub async fn attribute(&self, name: &str) -> Option<String> {
        let found = self.get(&format!("attribute/{name}")).await;
        let found = found.expect("an element that is there");
        found.as_str().map(ToOwned::to_owned)
    }

    /// Whether a selector is about it.
    pub async fn is(&self, selector: &str) -> bool {
        let body = "return arguments[0].matches(arguments[1]) ? [arguments[0]] : []";
        let arguments = json!([self.id.argument(), selector]);
        !self.page.driver.elements(body, arguments).await.is_empty()
    }

    /// Clicks in its middle.
    pub async fn click(&self) {
        let clicked = self.try_click().await;
        clicked.unwrap_or_else(|e| panic!("a click: {}: {}", e.code, e.message));
    }

    async fn try_click(&self) -> Result<Value, Refusal> {
        let path = self.id.path("click");
        self.page.driver.call(Method::POST, &path, json!({})).await
    }

    /// Writes into it instead of what is there.
    pub async fn fill(&self, what: &str) {
        let driver = &self.page.driver;
        let clear = self.id.path("clear");
        driver.expect(Method::POST, &clear, json!({})).await;
        let body = json!({ "text": what });
        let value = self.id.path("value");
        driver.expect(Method::POST, &value, body).await;
    }

    /// Gives it a file of this machine, as who chooses one.
    pub async fn take_file(&self, file: &Path) {
        let value = self.id.path("value");
        let body = json!({ "text": file });
        self.page.driver.expect(Method::POST, &value, body).await;
    }

    /// Chooses an option of it by what the option says.
    pub async fn choose(&self, option: &str) {
        let body = "return [...arguments[0].options].filter(o => [o.text.trim(), o.value].includes(arguments[1]))";
        let arguments = json!([self.id.argument(), option]);
        let mut found = self.page.driver.elements(body, arguments).await;
        let found = found.pop().unwrap_or_else(|| panic!("no option {option}"));
        self.page.element(found).click().await;
    }

    /// Whether something about it changes when the focus comes: an outline, a shadow, a border.
    async fn shows_focus(&self) -> bool {
        let body = "
            const look = e => { const s = getComputedStyle(e); return [s.outlineStyle !== 'none' &&
                s.outlineWidth, s.boxShadow, s.borderColor, s.backgroundColor].join(); };
            const e = arguments[0], focused = look(e);
            e.blur();
            const blurred = look(e);
            e.focus({ preventScroll: true, focusVisible: true });
            return focused === blurred ? [] : [e];";
        let arguments = json!([self.id.argument()]);
        !self.page.driver.elements(body, arguments).await.is_empty()
    }

    async fn get(&self, what: &str) -> Result<Value, Refusal> {
        let path = self.id.path(what);
        self.page.driver.call(Method::GET, &path, json!(null)).await
    }
}

impl Seen {
    /// A line of the console.
    fn hear(&mut self, entry: &Value) {
        if matches!(text(&entry["level"]), "WARNING" | "SEVERE") {
            let (source, message) = (text(&entry["source"]), text(&entry["message"]));
            self.complaints.push(format!("{source}: {message}"));
        }
    }

    /// An event of the network.
    fn follow(&mut self, entry: &Value) {
        let entry: Value = serde_json::from_str(text(&entry["message"])).expect("JSON");
        let event = &entry["message"];
        let about = &event["params"];
        let Some(id) = about["requestId"].as_str() else {
            return;
        };
        let bytes = about["encodedDataLength"].as_f64().unwrap_or_default();
        if event["method"] == "Network.webSocketCreated" {
            self.requests.push(Request {
                url: text(&about["url"]).to_owned(),
                ..Request::default()
            });
            return;
        }
        if event["method"] == "Network.requestWillBeSent" {
            // A redirected request goes on under the same id.
            let answered = &about["redirectResponse"];
            if let (Some(request), Some(bytes)) =
                (self.open(id), answered["encodedDataLength"].as_f64())
            {
                request.bytes = whole(bytes);
                request.status = answered["status"].as_u64().unwrap_or_default();
            }
            self.open.insert(id.to_owned(), self.requests.len());
            self.requests.push(Request {
                url: text(&about["request"]["url"]).to_owned(),
                ..Request::default()
            });
            return;
        }
        let Some(request) = self.open(id) else {
            return;
        };
        match text(&event["method"]) {
            "Network.responseReceived" => {
                let response = &about["response"];
                request.status = response["status"].as_u64().unwrap_or_default();
                let bytes = response["encodedDataLength"].as_f64().unwrap_or_default();
                request.bytes = request.bytes.max(whole(bytes));
            }
            "Network.dataReceived" => request.bytes += whole(bytes),
            "Network.loadingFinished" => request.bytes = request.bytes.max(whole(bytes)),
            "Network.loadingFailed" => {
                let blocked = about["blockedReason"].as_str();
                let failed = about["errorText"]
                    .as_str()
                    .filter(|_| about["canceled"] != true);
                request.failure = blocked.or(failed).map(ToOwned::to_owned);
            }
            _ => {}
        }
    }

    fn open(&mut self, id: &str) -> Option<&mut Request> {
        let index = *self.open.get(id)?;
        self.requests.get_mut(index)
    }
}

fn whole(bytes: f64) -> u64 {
    bytes.max(0.0) as u64
}

/// What HTML has for a role.
fn selector_of(role: &str) -> &str {
    match role {
        "button" => "button, [role=button], input[type=submit]",
        "link" => "a[href], [role=link]",
        "field" => "input:not([type=radio], [type=checkbox], [type=submit]), textarea",
        "choice" => {
            "select, input[type=radio], input[type=checkbox], [role=radio], [role=checkbox]"
        }
        "tab" => "[role=tab]",
        "disclosure" => "summary, [aria-expanded]",
        "heading" => "h1, h2, h3, h4, [role=heading]",
        _ => panic!("{role} is no role that the tests know"),
    }
}

/// The accessibility checker, which setup fetched.
fn axe() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/axe/axe.min.js");
    fs::read_to_string(path)
        .unwrap_or_else(|e| panic!("no axe-core ({e}): scripts/setup.sh --browser fetches it"))
}
