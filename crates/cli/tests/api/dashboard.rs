//! The dashboard in a browser.
//!
//! `FIRELANE_PICTURES` names a folder that gets a picture of each step, for people to look at.

use std::path::{Path, PathBuf};

use firelane_agent::service::REPORT_INTERVAL;
use firelane_gateway::listen::{self, Listener};
use firelane_wire::host::Pool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::browser::Browser;
use crate::service::Service;

/// Slots of the host.
const SLOTS: u32 = 4;
/// Whether the page is as wide as the window.
const FITS: &str = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Chromium and ChromeDriver: cargo xtask check runs it where they are"]
async fn people_log_in_run_code_and_watch_it() {
    let program = std::env::var_os("FIRELANE_CHROMEDRIVER");
    let program = PathBuf::from(program.expect("FIRELANE_CHROMEDRIVER names the program"));
    let service = Service::start_with(SLOTS, 100, true).await;
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("there is a free port");
    let address = listener.local_addr().expect("it has an address");
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let router = service.gateway.router();
    tasks.spawn(listen::serve(
        Listener::Plain(listener),
        router,
        stop.clone(),
        tasks.clone(),
    ));
    let key = service.key().await;
    let mut beat = tokio::time::interval(REPORT_INTERVAL);
    let beating = async {
        loop {
            beat.tick().await;
            service.report(SLOTS, pools()).await;
        }
    };
    let site = format!("http://{address}");
    let visit = visit(&program, &site, &key, &service);
    tokio::select! {
        () = visit => {}
        () = beating => unreachable!("it beats for ever"),
    }
    stop.cancel();
}

fn pools() -> Vec<Pool> {
    let pool = |lang: &str, ready, hits| Pool {
        template: "default".into(),
        lang: lang.into(),
        ready,
        preparing: 1,
        min: 1,
        max: 4,
        hits,
        misses: 2,
    };
    vec![pool("python", 2, 41), pool("node", 1, 7)]
}

async fn visit(program: &Path, site: &str, key: &str, service: &Service) {
    let browser = Browser::start(program).await;
    browser.show(1400, 1000, "light").await;
    browser.open(site).await;
    look(&browser, "login").await;
    browser.show(400, 900, "dark").await;
    look(&browser, "login-narrow").await;
    browser.show(1400, 1000, "light").await;
    browser.write("#key", "nonsense").await;
    browser.click("form .primary").await;
    browser.wait("document.querySelector('[role=alert]')").await;
    // A refusal has an error's status, which the browser notes; nothing else is to be noted.
    let complaints = browser.complaints().await;
    assert!(
        complaints.iter().all(|told| told.contains("403")),
        "{complaints:?}"
    );
    browser.write("#key", key).await;
    browser.click("form .primary").await;
    browser.wait("document.querySelector('#runs .empty')").await;
    look(&browser, "empty").await;

    run_and_watch(&browser, service).await;
    stop_one(&browser).await;
    see_a_failure(&browser).await;
    stop_on_its_page(&browser, site).await;
    hostile_output(&browser).await;
    long_label(&browser).await;

    for scheme in ["light", "dark"] {
        browser.show(1400, 1300, scheme).await;
        look(&browser, &format!("runs-{scheme}")).await;
        browser.show(400, 2600, scheme).await;
        look(&browser, &format!("narrow-{scheme}")).await;
    }
    browser.show(1400, 1000, "light").await;
    // In one step: the list may be refreshed between finding and clicking.
    browser
        .look("document.querySelector('#runs tbody tr:last-child a').click()")
        .await;
    browser.wait("document.querySelector('h1.id')").await;
    browser
        .wait("document.querySelector('.chunk.stderr')")
        .await;
    look(&browser, "run").await;
    browser.show(400, 1600, "dark").await;
    look(&browser, "run-narrow").await;

    browser.click(".who button").await;
    browser.wait("document.querySelector('#key')").await;
    browser.open(&format!("{site}/")).await;
    browser.wait("document.querySelector('#key')").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.quit().await;
}

/// Runs something that writes, waits, and writes again: the first is there before the last.
async fn run_and_watch(browser: &Browser, service: &Service) {
    browser.write("#run-code", "stream").await;
    browser.click("#run-start").await;
    browser
        .wait("document.querySelector('.chunk.stdout pre')?.textContent === 'first\\n'")
        .await;
    let early = browser
        .look("document.querySelector('.chunk.stderr') === null")
        .await;
    assert_eq!(early, true, "the run is held");
    look(browser, "streaming").await;
    service.let_go.send_replace(true);
    browser
        .wait("document.querySelector('.chunk.stderr pre')?.textContent === 'last\\n'")
        .await;
    browser
        .wait("document.querySelector('#run-status .exit')?.textContent === '3'")
        .await;
    browser
        .wait("document.querySelector('#run-summary .bar')")
        .await;
    browser
        .wait("document.querySelector('#runs tbody .bar')")
        .await;
    look(browser, "ended").await;
    service.let_go.send_replace(false);
}

/// Stops a run that would go on.
async fn stop_one(browser: &Browser) {
    start(browser, "hold").await;
    browser
        .wait("!document.querySelector('#run-stop').disabled")
        .await;
    browser.click("#run-stop").await;
    browser
        .wait("document.querySelector('#run-status .state-cancelled')")
        .await;
    browser
        .wait("!document.querySelector('#run-start').disabled")
        .await;
}

/// Follows a run on its own page, and stops it there.
async fn stop_on_its_page(browser: &Browser, site: &str) {
    start(browser, "hold").await;
    browser
        .wait("document.querySelector('#run-status a')")
        .await;
    browser.click("#run-status a").await;
    browser
        .wait("document.querySelector('[data-follow]') && !document.querySelector('#run-stop').disabled")
        .await;
    look(browser, "following").await;
    browser.click("#run-stop").await;
    browser
        .wait("document.querySelector('#summary')?.dataset.final === 'true'")
        .await;
    browser
        .wait("document.querySelector('#run-status .state-cancelled') && document.querySelector('#run-stop').hidden")
        .await;
    look(browser, "stopped").await;
    browser.open(&format!("{site}/")).await;
}

/// A run that Firelane cannot carry out says why, once.
async fn see_a_failure(browser: &Browser) {
    start(browser, "break").await;
    browser
        .wait("document.querySelector('#run-summary .problem')?.textContent === 'the host broke'")
        .await;
    let told = browser
        .look("document.querySelectorAll('#run-result .problem').length")
        .await;
    assert_eq!(told, 1);
    browser
        .wait("!document.querySelector('#run-start').disabled")
        .await;
}

/// Puts code into the box and presses Run.
async fn start(browser: &Browser, code: &str) {
    let code = format!("document.querySelector('#run-code').value = {code:?}");
    browser.look(&code).await;
    browser.click("#run-start").await;
}

/// Shows markup as text: the host writes what it was given.
async fn hostile_output(browser: &Browser) {
    let hostile = "<img src=x onerror=alert(1)><script>alert(1)</script>";
    start(browser, hostile).await;
    let shown = format!("document.querySelector('.chunk.stdout pre')?.textContent === {hostile:?}");
    browser.wait(&shown).await;
    browser
        .wait("document.querySelector('#run-summary .bar')")
        .await;
    browser
        .wait("document.querySelectorAll('#runs tbody tr').length === 5")
        .await;
}

/// Asks for a run whose labels are as long as labels may be.
async fn long_label(browser: &Browser) {
    let label = "x".repeat(256);
    let request = format!(
        "fetch('/v1/runs', {{
           method: 'POST',
           headers: {{'Content-Type': 'application/json', 'Prefer': 'respond-async'}},
           body: JSON.stringify({{
             lang: 'bash', code: 'true', labels: {{'team': 'blue', '{label}': '{label}'}} }})
         }}).then((answer) => answer.status)"
    );
    assert_eq!(browser.look(&request).await, 202);
    browser
        .wait("document.querySelectorAll('#runs tbody tr').length === 5")
        .await;
    browser
        .wait("document.querySelectorAll('#runs tbody .bar').length === 3")
        .await;
}

/// The page fits the window, and the browser has nothing to complain about.
async fn look(browser: &Browser, name: &str) {
    assert_eq!(browser.look(FITS).await, true, "{name} does not fit");
    if let Some(folder) = std::env::var_os("FIRELANE_PICTURES") {
        let path = Path::new(&folder).join(format!("{name}.png"));
        std::fs::write(path, browser.picture().await).expect("there is room");
    }
    assert_eq!(browser.complaints().await, Vec::<String>::new(), "{name}");
}
