//! The status page at `/`, for an operator without Grafana. It is plain HTML, without scripts or external resources.
//!
//! It shows states, counts, times, codes, names and options. It never shows a value from an event, a text from the
//! database or a password.

use std::fmt::{self, Display};
use std::time::{Duration, Instant};

use indicatif::HumanCount;

use super::html::Html;
use crate::clock::in_words;
use crate::telemetry::readiness::ReadinessState;
use crate::telemetry::stats::{Rates, SAMPLE_EVERY, Stats};

/// Facts that do not change while the loader runs.
#[derive(Default)]
pub(crate) struct About {
    /// Versions of the loader, the extension and the server.
    pub(crate) versions: Vec<(&'static str, String)>,
    /// Options in force, without secrets.
    pub(crate) options: Vec<(&'static str, String)>,
}

/// A row of a table with two columns.
type Row<'r> = (&'r str, String);

/// Title of a plot, and the rate that it shows.
type Plot = (&'static str, fn(&Rates) -> f64);

const PLOTS: [Plot; 4] = [
    ("received", |rates| rates.received),
    ("stored", |rates| rates.stored),
    ("rejected", |rates| rates.rejected),
    ("deleted", |rates| rates.deleted),
];
/// Size of a plot in its own units. Across, one unit is one sample.
const FRAME: (f64, f64) = (120.0, 30.0);
/// Number of newest samples whose mean stands beside a plot: one minute.
const LATELY: usize = 12;

const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
    <meta name=\"color-scheme\" content=\"light dark\"><meta http-equiv=\"refresh\" content=\"5\">\
    <link rel=\"icon\" href=\"data:,\"><style>";
const STYLE: &str = include_str!("page.css");

/// Returns the page.
pub(super) fn page(
    look: &ReadinessState<'_>,
    run: Option<(&Stats, &About)>,
    uptime: Duration,
    log_dropped: u64,
) -> String {
    let mut html = Html::default();
    let (state, class) = state(look);
    html.markup(HEAD)
        .markup(STYLE)
        .markup("</style><title>")
        .text(state)
        .markup(" – pg_mask loader</title></head><body>");
    html.markup("<header><h1>pg_mask loader</h1><p id=\"state\" class=\"")
        .text(class)
        .markup("\">")
        .text(state);
    html.markup("</p></header><pre id=\"reason\">").text(look).markup("</pre>");
    if let Some((stats, about)) = run {
        waiting(&mut html, stats);
        plots(&mut html, &stats.history.rates());
        totals(&mut html, stats, uptime, log_dropped);
        rejects(&mut html, stats);
        failures(&mut html, stats);
        table(&mut html, "Versions", about.versions.iter().map(|(name, text)| (*name, text.clone())));
        table(&mut html, "Options", about.options.iter().map(|(name, text)| (*name, text.clone())));
    }
    html.markup("<footer>Refreshed every 5 s. <a href=\"/metrics\">/metrics</a> <a href=\"/readyz\">/readyz</a></footer>");
    html.markup("</body></html>\n");
    html.into_string()
}

/// Returns the state in words, and its class in the style sheet.
fn state(look: &ReadinessState<'_>) -> (&'static str, &'static str) {
    match look {
        ReadinessState::Starting => ("starting", "busy"),
        ReadinessState::Stopping => ("stopping", "busy"),
        ReadinessState::Blocked => ("waiting for the database", "bad"),
        ReadinessState::Running(_) if look.is_ready() => ("running", "good"),
        ReadinessState::Running(_) => ("not ready", "bad"),
    }
}

fn waiting(html: &mut Html, stats: &Stats) {
    let moment = stats.moment();
    let census = moment.census;
    let mut rows: Vec<Row<'_>> = vec![
        ("In flight, to be stored", count(census.to_store as u64)),
        ("In flight, to be deleted", count(census.to_delete as u64)),
        ("Oldest in flight", if census.oldest.is_zero() { "–".into() } else { in_words(census.oldest) }),
    ];
    rows.push((
        "In the queues",
        match moment.depth {
            Some((depth, at)) => format!(
                "{} visible, {} hidden, {} delayed ({})",
                count(depth.visible),
                count(depth.hidden),
                count(depth.delayed),
                ago(at)
            ),
            None => "not known yet".into(),
        },
    ));
    rows.push(("Last commit", moment.last_commit.map_or_else(|| "none yet".into(), ago)));
    rows.push(("Batches committed", count(moment.batches)));
    rows.push(("Receive calls at a time", count(stats.pollers() as u64)));
    table(html, "Now", rows.into_iter());
}

fn plots(html: &mut Html, rates: &[Rates]) {
    html.markup("<section><h2>Messages per second</h2><div class=\"plots\">");
    for (name, rate) in PLOTS {
        let values: Vec<f64> = rates.iter().map(rate).collect();
        let lately = &values[values.len().saturating_sub(LATELY)..];
        let mean = lately.iter().sum::<f64>() / f64::from(u32::try_from(lately.len().max(1)).unwrap_or(1));
        let peak = values.iter().copied().fold(0.0, f64::max);
        html.markup("<figure id=\"").text(name).markup("\"><figcaption>").text(name).markup(" <b>");
        html.text(PerSecond(mean))
            .markup("</b> <span>peak ")
            .text(PerSecond(peak))
            .markup("</span></figcaption>");
        html.markup("<svg viewBox=\"0 0 120 30\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"");
        html.text(name).markup(" per second\"><polyline points=\"");
        let across = f64::from(u32::try_from(values.len()).unwrap_or(u32::MAX));
        for (place, value) in (0u32..).zip(&values) {
            // The newest value is at the right.
            let x = FRAME.0 - across + f64::from(place) + 1.0;
            let y = if peak > 0.0 { FRAME.1 - 1.0 - value / peak * (FRAME.1 - 2.0) } else { FRAME.1 - 1.0 };
            html.text(format_args!("{x:.0},{y:.1} "));
        }
        html.markup("\"/></svg></figure>");
    }
    html.markup("</div><p class=\"small\">Numbers: mean of the last minute. Plots: the last 10 minutes, a sample every ");
    html.text(SAMPLE_EVERY.as_secs()).markup(" s.</p></section>");
}

fn totals(html: &mut Html, stats: &Stats, uptime: Duration, log_dropped: u64) {
    let now = stats.summary();
    let rows: Vec<Row<'_>> = vec![
        ("Running for", in_words(uptime)),
        ("Received", count(now.received)),
        ("Stored", count(now.stored)),
        ("Duplicate", count(now.duplicate)),
        ("Rejected", count(now.rejected)),
        ("Deleted", count(now.deleted)),
        ("Left to the dead-letter queue", count(now.left)),
        ("Leases expired", count(now.expired)),
        ("Database reconnects", count(now.connections)),
        ("Log lines dropped", count(log_dropped)),
    ];
    table(html, "Since the start", rows.into_iter());
}

fn rejects(html: &mut Html, stats: &Stats) {
    let rejects = stats.rejects();
    let texts: Vec<_> = rejects
        .iter()
        .map(|(class, tally)| (&**class, format!("{}, last {}", count(tally.count), last(tally.last))))
        .collect();
    table_or(html, "Rejects by class", "None.", texts.into_iter());
}

fn failures(html: &mut Html, stats: &Stats) {
    let texts: Vec<(String, String)> = stats
        .failures()
        .into_iter()
        .map(|failure| {
            let queue = failure.queue.map(|queue| format!(" {queue}")).unwrap_or_default();
            let tally = failure.tally;
            let what = format!("{}{queue}: {}", failure.work, failure.code);
            (what, format!("{}, last {}", count(tally.count), last(tally.last)))
        })
        .collect();
    table_or(html, "Failures by code", "None.", texts.iter().map(|(what, text)| (&**what, text.clone())));
}

fn table<'r>(html: &mut Html, title: &'static str, rows: impl Iterator<Item = Row<'r>>) {
    table_or(html, title, "–", rows);
}

fn table_or<'r>(
    html: &mut Html,
    title: &'static str,
    empty: &'static str,
    rows: impl Iterator<Item = Row<'r>>,
) {
    html.markup("<section><h2>").text(title).markup("</h2>");
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        html.markup("<p>").text(empty).markup("</p></section>");
        return;
    }
    html.markup("<table>");
    for (name, text) in rows {
        html.markup("<tr><th>").text(name).markup("</th><td>").text(text).markup("</td></tr>");
    }
    html.markup("</table></section>");
}

fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

fn ago(at: Instant) -> String {
    format!("{} ago", in_words(at.elapsed()))
}

fn last(at: Option<Instant>) -> String {
    at.map_or_else(|| "–".to_owned(), ago)
}

/// A rate, printed with as many digits as are meaningful.
struct PerSecond(f64);

impl Display for PerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = usize::from(self.0 > 0.0 && self.0 < 100.0);
        write!(f, "{:.digits$}/s", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shutdown::Shutdown;
    use crate::telemetry::readiness::Readiness;
    use crate::telemetry::stats::{Account, Counts};

    fn render(stats: &Stats, about: &About) -> String {
        let shutdown = Shutdown::default();
        let readiness = Readiness::new(shutdown, || true);
        page(&readiness.state(), Some((stats, about)), Duration::from_secs(3700), 3)
    }

    /// Returns the text of the cell beside `name`.
    fn cell<'p>(page: &'p str, name: &str) -> &'p str {
        let (_, rest) =
            page.split_once(&format!("<th>{name}</th><td>")).unwrap_or_else(|| panic!("no {name}: {page}"));
        rest.split_once("</td>").unwrap().0
    }

    #[test]
    fn the_page_shows_counts_rejects_failures_and_options() {
        let stats = Stats::new(["login-queue"]);
        stats.queue(0).add_received(1500);
        stats.queue(0).add_deleted(1234);
        stats.queue(0).add_receive_failure("Throttling");
        let counts = Counts { stored: 1200, duplicate: 30, rejected: 4 };
        stats.add_committed(
            std::iter::empty(),
            &Account { counts, rejects: vec![("not_json".into(), 4)] },
            Duration::ZERO,
        );
        stats.add_store_failure("40001");
        let options = vec![("--inbox", "login_inbox".to_owned())];
        let page = render(&stats, &About { versions: vec![("loader", "0.1.0".into())], options });
        for (name, expected) in [
            ("Received", "1,500"),
            ("Stored", "1,200"),
            ("Duplicate", "30"),
            ("Rejected", "4"),
            ("Deleted", "1,234"),
            ("Log lines dropped", "3"),
            ("Running for", "1 h 1 min"),
            ("Batches committed", "1"),
            ("Last commit", "0 s ago"),
            ("not_json", "4, last 0 s ago"),
            ("receive login-queue: Throttling", "1, last 0 s ago"),
            ("store: 40001", "1, last 0 s ago"),
            ("loader", "0.1.0"),
            ("--inbox", "login_inbox"),
        ] {
            assert_eq!(cell(&page, name), expected, "{name}");
        }
        assert!(page.contains("<p id=\"state\" class=\"busy\">starting</p>"), "{page}");
    }

    #[test]
    fn whatever_comes_from_outside_stays_text() {
        let attack = "<script>alert('1')</script>\"&";
        let stats = Stats::new([attack]);
        stats.queue(0).add_receive_failure("timeout");
        stats.queue(0).add_receive_failure(attack);
        let account = Account {
            counts: Counts { rejected: 1, ..Counts::default() },
            rejects: vec![(attack.into(), 1)],
        };
        stats.add_committed(std::iter::empty(), &account, Duration::ZERO);
        let about =
            About { versions: vec![("extension", attack.into())], options: vec![("--inbox", attack.into())] };
        let page = render(&stats, &about);
        let escaped = "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;";
        assert!(!page.contains("<script"), "{page}");
        assert_eq!((cell(&page, "--inbox"), cell(&page, "extension")), (escaped, escaped));
        assert_eq!(cell(&page, &format!("receive {escaped}: timeout")), "1, last 0 s ago");
        // A text that isn't a code is counted, but not shown.
        assert_eq!(cell(&page, "other"), "1, last 0 s ago");
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = render(&Stats::new(["q"]), &About::default());
        for word in ["<script", "http:", "https:", "url(", "@import", "src="] {
            assert!(!page.contains(word), "{word} is in {page}");
        }
        for word in ["name=\"viewport\"", "http-equiv=\"refresh\"", "prefers-color-scheme: dark"] {
            assert!(page.contains(word), "{word} is not in {page}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_plot_ends_at_the_right_and_fits_its_frame() {
        let stats = Stats::new(["q"]);
        for messages in [0, 50, 500, 0] {
            stats.sample(crate::telemetry::stats::Census::default());
            stats.queue(0).add_received(messages);
            tokio::time::advance(SAMPLE_EVERY).await;
        }
        let page = render(&stats, &About::default());
        let (_, figure) = page.split_once("<figure id=\"received\">").unwrap();
        let (figure, _) = figure.split_once("</figure>").unwrap();
        assert!(figure.contains("points=\"118,29.0 119,26.2 120,1.0 \""), "{figure}");
        assert!(figure.contains("<b>36.7/s</b> <span>peak 100/s</span>"), "{figure}");
    }
}
