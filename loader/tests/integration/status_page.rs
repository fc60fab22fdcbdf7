//! The status page, as a browser shows it.

use std::path::{Path, PathBuf};
use std::{env, fs};

use serde_json::Value;
use tokio::process::Command;

use crate::common::{Canary, Depth, World, eventually, request};

const METRICS: &str = "--metrics-address 127.0.0.1:0";

/// Chromium with its own folder. Dropping this removes the folder.
struct Browser {
    folder: PathBuf,
}

impl Browser {
    /// Returns `None` if Chromium isn't installed. `dev/install tests` reports that.
    fn find() -> Option<Self> {
        let path = env::var_os("PATH").unwrap();
        env::split_paths(&path).find(|folder| folder.join("chromium").exists())?;
        let folder = env::temp_dir().join(format!("pg_mask-browser-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Some(Self { folder })
    }

    /// Opens `url`, an origin, in a window as wide as a phone. Returns the resulting document and every URL that it
    /// requested.
    async fn open(&self, url: &str) -> (String, Vec<String>) {
        let net_log = self.folder.join("net.json");
        let mut command = Command::new("chromium");
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ]);
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        command.args(["--disable-default-apps", "--window-size=360,800", "--dump-dom"]);
        command.arg(format!("--log-net-log={}", net_log.display()));
        command.arg(format!("--user-data-dir={}", self.folder.join("profile").display()));
        let output = command.arg(url).env("HOME", &self.folder).kill_on_drop(true).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (String::from_utf8(output.stdout).unwrap(), requests(&net_log, url.trim_end_matches('/')))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.folder);
    }
}

/// Returns the requested URLs in a log of Chromium's network stack: requests by pages of `origin`, not by the browser
/// itself.
fn requests(net_log: &Path, origin: &str) -> Vec<String> {
    let log: Value = serde_json::from_str(&fs::read_to_string(net_log).unwrap()).unwrap();
    let started = &log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"];
    assert!(started.is_number(), "no such events");
    let events = log["events"].as_array().unwrap().iter().filter(|event| event["type"] == *started);
    let requests = events.filter_map(|event| {
        let params = &event["params"];
        let url = params["url"].as_str()?;
        (url.starts_with(origin) || params["initiator"] == origin).then(|| url.to_owned())
    });
    requests.collect()
}

/// Returns the text of the cell beside `name`.
fn cell<'p>(page: &'p str, name: &str) -> &'p str {
    let (_, rest) =
        page.split_once(&format!("<th>{name}</th><td>")).unwrap_or_else(|| panic!("no {name}: {page}"));
    rest.split_once("</td>").unwrap().0
}

/// Returns a document that shows `page` in a frame as wide as a phone. It reports the frame's width and the width that the
/// page wants.
fn measuring(page: &str) -> String {
    let escaped = page.replace('&', "&amp;").replace('"', "&quot;");
    format!(
        "<!doctype html><iframe id=f style=\"width:360px;height:800px;border:0\" srcdoc=\"{escaped}\"></iframe><pre id=r></pre>\
         <script>onload = () => {{ const e = f.contentDocument.documentElement;
         r.textContent = `width ${{e.clientWidth}} wants ${{e.scrollWidth}} rows ${{f.contentDocument.querySelectorAll('tr').length}}`; }}\
         </script>"
    )
}

#[tokio::test]
async fn a_browser_shows_the_status_page_on_a_phone() {
    World::run(async |world| {
        let canary = Canary::new();
        let mut bodies = canary.events(40);
        bodies.extend(canary.rejects());
        let rejects = canary.rejects().len();
        world.queue.send(&bodies).await;
        let loader = world.loader().options(METRICS).start();
        let address = loader.metrics_address().await;
        let url = format!("http://{address}/");
        eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;
        // Two samples make the first point of a plot.
        eventually("a plot", async || !request(&address, "GET", "/").await.2.contains("points=\"\"")).await;

        let (status, head, page) = request(&address, "GET", "/").await;
        assert_eq!(status, 200);
        assert!(head.contains("content-type: text/html; charset=utf-8"), "{head}");
        assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
        for secret in [world.password.as_str(), canary.marker.as_str()] {
            assert!(!page.contains(secret), "{page}");
        }

        // If Chromium isn't installed, `dev/install tests` has reported that.
        let Some(browser) = Browser::find() else { return };
        let (shown, requests) = browser.open(&url).await;
        assert!(shown.contains("<p id=\"state\" class=\"good\">running</p>"), "{shown}");
        for (name, expected) in [
            ("Received", (40 + rejects).to_string()),
            ("Stored", "40".into()),
            ("Rejected", rejects.to_string()),
            ("Deleted", (40 + rejects).to_string()),
            ("In flight, to be stored", "0".into()),
            ("--inbox", "login_inbox".into()),
            ("loader", env!("CARGO_PKG_VERSION").into()),
        ] {
            assert_eq!(cell(&shown, name), expected, "{name}");
        }
        assert!(cell(&shown, "not_json").contains(", last "), "{shown}");
        assert!(cell(&shown, "extension").starts_with("pg_mask "), "{shown}");
        assert!(cell(&shown, "server").contains("PostgreSQL "), "{shown}");
        assert_eq!(shown.matches("<polyline").count(), 4, "{shown}");
        let elsewhere: Vec<_> = requests.iter().filter(|request| !request.starts_with(&url)).collect();
        assert!(requests.contains(&url) && elsewhere.is_empty(), "{requests:?}");

        let file = browser.folder.join("measure.html");
        fs::write(&file, measuring(&page)).unwrap();
        let (measured, _) = browser.open(&format!("file://{}", file.display())).await;
        let (_, result) = measured.split_once("<pre id=\"r\">").unwrap();
        let (result, _) = result.split_once("</pre>").unwrap();
        let numbers: Vec<u32> = result.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [width, wants, rows] = numbers[..] else { panic!("{result}") };
        assert!(width <= 360 && rows > 20, "{result}");
        assert_eq!(wants, width, "the page scrolls sideways: {result}");
        loader.stop().await.expect(0);
    })
    .await;
}

#[tokio::test]
async fn the_status_page_says_why_a_loader_is_not_running() {
    World::run(async |world| {
        let waiting = world.loader().env("DATABASE_URL", "host=127.0.0.1 port=1 user=u").options(METRICS);
        let waiting = waiting.options("--wait-for-start 600").start();
        let address = waiting.metrics_address().await;
        let (status, _, page) = request(&address, "GET", "/").await;
        assert_eq!(status, 200);
        assert!(page.contains("class=\"busy\">starting</p>"), "{page}");
        waiting.stop().await.expect(0);

        let lock = world.lock_logins().await;
        world.queue.send(&Canary::new().events(10)).await;
        let loader = world.loader().options(METRICS).start();
        let address = loader.metrics_address().await;
        world.backends_in_copy(1).await;
        eventually("what is in flight", async || {
            cell(&request(&address, "GET", "/").await.2, "In flight, to be stored") == "10"
        })
        .await;
        loader.signal("TERM").await;
        eventually("the word of a stop", async || {
            request(&address, "GET", "/").await.2.contains("class=\"busy\">stopping</p>")
        })
        .await;
        lock.batch_execute("COMMIT").await.unwrap();
        loader.end().await.expect(0);
    })
    .await;
}
