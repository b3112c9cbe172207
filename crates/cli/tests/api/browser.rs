//! A headless Chromium, driven through ChromeDriver.
//!
//! Sources: W3C "WebDriver" (recommendation of 2018-06-05); ChromeDriver's own commands, which begin
//! with `goog` and `se`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long the driver may take to start, and for each command.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a page may take to come to what is waited for.
const WAIT: Duration = Duration::from_secs(30);
/// What a browser needs in a container, and leaves out that no test is about.
const ARGUMENTS: [&str; 7] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
];
/// Key of the identifier of an element: WebDriver, section 12.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window. It ends when it is dropped.
pub(crate) struct Browser {
    address: String,
    session: String,
    _driver: Child,
    _profile: TempDir,
}

impl Browser {
    /// Starts this ChromeDriver, and a browser with it.
    pub(crate) async fn start(program: &Path) -> Browser {
        let mut driver = Command::new(program)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("ChromeDriver can be run");
        let stdout = driver.stdout.take().expect("it is piped");
        let port = timeout(LIMIT, port(stdout)).await.expect("it starts");
        let profile = tempfile::tempdir().expect("there is room");
        let data = format!("--user-data-dir={}", profile.path().display());
        let arguments: Vec<&str> = ARGUMENTS.into_iter().chain([data.as_str()]).collect();
        // Longer than anything is waited for: the end of that is told by us.
        let script_ms = 2 * WAIT.as_secs() * 1000;
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"script": script_ms},
        }}});
        let mut browser = Browser {
            address: format!("127.0.0.1:{port}"),
            session: String::new(),
            _driver: driver,
            _profile: profile,
        };
        let made = browser.send("POST", "/session", wanted).await;
        let id = made["sessionId"].as_str().expect("it has a name");
        browser.session = format!("/session/{id}");
        browser
    }

    /// Ends the browser.
    pub(crate) async fn quit(self) {
        self.send("DELETE", &self.session, Value::Null).await;
    }

    pub(crate) async fn open(&self, url: &str) {
        self.post("/url", json!({"url": url})).await;
    }

    /// What a JavaScript expression is.
    pub(crate) async fn look(&self, expression: &str) -> Value {
        let script = format!("return ({expression});");
        let call = json!({"script": script, "args": []});
        self.post("/execute/sync", call).await
    }

    /// Waits until a JavaScript expression is true: it is looked at whenever the page changes.
    pub(crate) async fn wait(&self, expression: &str) {
        let script = format!(
            "const done = arguments[0];
             const check = () => {{ if ({expression}) {{ watcher.disconnect(); done(true); }} }};
             const watcher = new MutationObserver(check);
             watcher.observe(document, {{
               subtree: true, childList: true, attributes: true, characterData: true }});
             check();"
        );
        let call = json!({"script": script, "args": []});
        let path = format!("{}/execute/async", self.session);
        // A page that another one takes the place of takes the script with it: then the next one is
        // looked at.
        let seen = async { while self.try_send("POST", &path, &call).await.is_err() {} };
        let seen = timeout(WAIT, seen).await;
        assert!(seen.is_ok(), "it did not come to: {expression}");
    }

    pub(crate) async fn write(&self, selector: &str, text: &str) {
        let path = format!("/element/{}/value", self.element(selector).await);
        self.post(&path, json!({"text": text})).await;
    }

    pub(crate) async fn click(&self, selector: &str) {
        let path = format!("/element/{}/click", self.element(selector).await);
        self.post(&path, json!({})).await;
    }

    async fn element(&self, selector: &str) -> String {
        let wanted = json!({"using": "css selector", "value": selector});
        let found = self.post("/element", wanted).await;
        found[ELEMENT].as_str().expect("it has a name").to_owned()
    }

    /// Makes the window so large, and the user one who likes this scheme, `light` or `dark`.
    pub(crate) async fn show(&self, width: u32, height: u32, scheme: &str) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        for (command, parameters) in [
            ("Emulation.setDeviceMetricsOverride", size),
            ("Emulation.setEmulatedMedia", media),
        ] {
            let call = json!({"cmd": command, "params": parameters});
            self.post("/goog/cdp/execute", call).await;
        }
    }

    /// What the browser complained about since it was asked last: errors of scripts, what the
    /// policy of a page forbade, what could not be loaded.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", json!({"type": "browser"})).await;
        let entries = log.as_array().expect("it is a list").iter();
        entries.map(|entry| entry["message"].to_string()).collect()
    }

    /// A picture of the window (PNG).
    pub(crate) async fn picture(&self) -> Vec<u8> {
        let path = format!("{}/screenshot", self.session);
        let picture = self.send("GET", &path, Value::Null).await;
        let picture = STANDARD.decode(picture.as_str().expect("it is text"));
        picture.expect("it is base64")
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.send("POST", &format!("{}{path}", self.session), body)
            .await
    }

    async fn send(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.try_send(method, path, &body).await;
        answer.unwrap_or_else(|error| panic!("{path} {body}: {error}"))
    }

    async fn try_send(&self, method: &str, path: &str, body: &Value) -> Result<Value, Value> {
        let answer = timeout(LIMIT, self.exchange(method, path, body)).await;
        let (status, text) = answer.expect("the driver answers in time");
        let mut answer: Value = serde_json::from_str(&text).expect("it is JSON");
        match status.contains(" 200 ") {
            true => Ok(answer["value"].take()),
            false => Err(answer),
        }
    }

    async fn exchange(&self, method: &str, path: &str, body: &Value) -> (String, String) {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.address,
            body.len()
        );
        let mut stream = TcpStream::connect(&self.address).await.expect("it listens");
        let sent = stream.write_all((head + &body).as_bytes()).await;
        sent.expect("it takes it");
        // The driver leaves the connection open, whatever it is asked.
        let mut stream = BufReader::new(stream);
        let (mut head, mut bytes) = (String::new(), 0);
        loop {
            let start = head.len();
            stream.read_line(&mut head).await.expect("it is text");
            let line = head[start..].trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(number) = line.strip_prefix("content-length:") {
                bytes = number.trim().parse().expect("a number");
            }
        }
        let mut text = vec![0; bytes];
        stream.read_exact(&mut text).await.expect("a whole body");
        let status = head.lines().next().unwrap_or_default().to_owned();
        (status, String::from_utf8(text).expect("it is text"))
    }
}

/// The port that ChromeDriver says that it has.
async fn port(stdout: tokio::process::ChildStdout) -> u16 {
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await.expect("it is text") {
        if let Some((_, port)) = line.split_once("successfully on port ") {
            return port.trim_end_matches('.').parse().expect("a number");
        }
    }
    panic!("ChromeDriver ended before it listened");
}
