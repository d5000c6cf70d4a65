//! The guards of [`crate::chromium`] themselves: whatever shall fail a test is shown to them once.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{
    broker::{eventually, processes_below},
    chromium::{Chromium, ENTER, NARROW, SPACE, Scheme},
};

/// A page that is in order.
const SOUND: &str = r#"<!doctype html><html lang="en"><head><title>Sound</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
<style>@media (prefers-color-scheme: dark) { body { background: #000; color: #fff } a { color: #9cf } }</style>
<script src="/script.js" defer></script></head>
<body><main><h1>Sound</h1><form><label>Name <input name="name"></label>
<button type="button" id="b">Copy &lt;it&gt;</button></form>
<a href="/file" download>Download</a> <p id="said"></p></main></body></html>"#;

const SCRIPT: &str = "document.getElementById('b').onclick = () => {
    document.getElementById('said').textContent = 'clicked';
    navigator.clipboard.writeText('copied'); };";

/// One that is not: an inline script against its policy, an image of elsewhere, text that nobody
/// can read, a field without a name, something very wide, a file that is not there.
const UNSOUND: &str = r#"<!doctype html><html lang="en"><head><title>Unsound</title>
<link rel="icon" href="data:,"></head><body><main><h1>Unsound</h1>
<script>document.title = 'ran'</script><img alt="" src="http://127.0.0.2:9/pixel">
<img alt="" src="/missing"><p style="color:#eee;background:#fff">faint</p><input>
<div style="width:2000px">wide</div>
<div><b>20.0 KiB</b><i>3.4.23</i></div>
<table><tr><th style="width:1px;overflow-wrap:anywhere">Broken</th></tr></table></main></body></html>"#;

/// Serves the two pages; returns the address.
async fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let listener = Arc::new(listener);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = vec![0; 8192];
                let read = stream.read(&mut request).await.unwrap_or_default();
                let line = String::from_utf8_lossy(&request[..read]).into_owned();
                let path = line.split(' ').nth(1).unwrap_or_default();
                let html = "text/html; charset=utf-8\r\nContent-Security-Policy: \
                            script-src 'self'; style-src 'unsafe-inline'";
                let (status, kind, body) = match path {
                    "/sound" => ("200 OK", html, SOUND),
                    "/unsound" => ("200 OK", html, UNSOUND),
                    "/script.js" => ("200 OK", "text/javascript", SCRIPT),
                    "/file" => (
                        "200 OK",
                        "text/plain\r\nContent-Disposition: attachment; filename=\"a file.txt\"",
                        "whole",
                    ),
                    _ => ("404 Not Found", "text/plain", "no"),
                };
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
                     Connection: close\r\n\r\n{body}"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sound_passes_and_what_is_not_is_found() {
    let url = serve().await;
    let page = Chromium::start().await;

    let weight = page.weight_of(&format!("{url}/sound")).await;
    let all = u64::try_from(SOUND.len() + SCRIPT.len()).expect("a length");
    assert!((all..all + 1000).contains(&weight), "{weight} for {all}");
    page.look_over("self").await;
    page.prefer(Scheme::Dark).await;
    let colour = "getComputedStyle(document.body).backgroundColor";
    assert_eq!(page.eval(colour).await, "rgb(0, 0, 0)");
    page.resize(NARROW).await;
    assert_eq!(page.eval("innerWidth").await, 360);

    page.tab_to("field", "Name").await;
    page.type_text("äö <i>").await;
    let field = page.named("field", "Name").await;
    assert_eq!(field.property("value").await, "äö <i>");
    page.tab_to("button", "Copy <it>").await;
    page.press([SPACE]).await;
    page.shows("clicked").await;
    assert_eq!(page.clipboard().await, "copied");
    page.tab_to("link", "Download").await;
    page.press([ENTER]).await;
    let file = page.downloaded("a file.txt").await;
    assert_eq!(std::fs::read(file).expect("a file"), b"whole");
    page.check(&url).await;

    page.open(&format!("{url}/unsound")).await;
    assert_eq!(page.eval("document.title").await, "Unsound");
    let elsewhere = eventually("the request to elsewhere", || async {
        let found = page.foreign_requests(&url).await;
        (!found.is_empty()).then_some(found)
    })
    .await;
    assert_eq!(elsewhere, ["http://127.0.0.2:9/pixel"]);
    let complaints = page.complaints().await.join("\n");
    for what in ["Content Security Policy", "/missing", "127.0.0.2"] {
        assert!(complaints.contains(what), "{what}: {complaints}");
    }
    let barriers = page.barriers().await.join("\n");
    for what in ["color-contrast", "label"] {
        assert!(barriers.contains(what), "{what}: {barriers}");
    }
    assert!(!page.overflow().await.is_empty());
    assert_eq!(page.broken_words().await.len(), 1);
    assert_eq!(page.crowded().await, ["20.0 KiB|3.4.23"]);

    let folder = page.downloads().parent().expect("a folder").to_owned();
    assert!(!processes_below(&folder).is_empty());
    drop(page);
    assert_eq!(processes_below(&folder), Vec::<i32>::new());
    assert!(!folder.exists());
}
