//! Files of a sandbox that are small, and what is wrong with requests about them.

use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use crate::coordinator::sandbox_id;
use crate::fake::{As, Fake, Told, head};
use crate::pipes::{DIGITS, HUGE};

pub(crate) fn at(kind: &str, path: &str) -> String {
    format!("/v1/sandboxes/{}/{kind}/{path}", sandbox_id())
}

async fn ranged(fake: &Fake, path: &str, range: &str) -> Told {
    let request = head("GET", &at("files", path), As::Owner).header("range", range);
    let request = request.body(Body::empty());
    fake.send(request.expect("it is a request")).await
}

pub(crate) fn put(path: &str, body: Body, length: Option<usize>) -> Request<Body> {
    let mut head = head("PUT", path, As::Owner);
    if let Some(length) = length {
        head = head.header("content-length", length);
    }
    head.body(body).expect("it is a request")
}

#[tokio::test]
async fn a_file_is_given_with_its_length_and_date() {
    let fake = Fake::start().await;
    let got = fake.get(&at("files", "work/a.txt"), As::Owner).await;
    assert_eq!((got.status.as_u16(), got.body.as_slice()), (200, DIGITS));
    for (name, value) in [
        ("content-length", "10"),
        ("content-type", "application/octet-stream"),
        ("x-content-type-options", "nosniff"),
        ("accept-ranges", "bytes"),
        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ] {
        assert_eq!(got.header(name), Some(value), "{name}");
    }
    let path = at("files", "work/a.txt");
    let told = fake.ask("HEAD", &path, As::Owner, None).await;
    assert_eq!((told.status.as_u16(), told.body.len()), (200, 0));
    assert_eq!(told.header("content-length"), Some("10"));
    let opened = fake.asked.all("OpenPipe");
    assert!(opened[1].contains("length: 0 }"), "{opened:?}");
    let empty = fake.get(&at("files", "work/empty"), As::Owner).await;
    assert_eq!((empty.status.as_u16(), empty.body.len()), (200, 0));
    let none = fake.get(&at("files", "work/none"), As::Owner).await;
    assert_eq!(none.code(404), "not_found");
}

#[tokio::test]
async fn a_range_is_a_part_of_a_file() {
    let fake = Fake::start().await;
    for (range, expected, told) in [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=8-99999999999999999999", "89", "bytes 8-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-11", "0123456789", "bytes 0-9/10"),
    ] {
        let got = ranged(&fake, "work/a.txt", range).await;
        assert_eq!(got.status, 206, "{range}");
        assert_eq!(got.body, expected.as_bytes(), "{range}");
        assert_eq!(got.header("content-range"), Some(told), "{range}");
        let length = expected.len().to_string();
        assert_eq!(
            got.header("content-length"),
            Some(length.as_str()),
            "{range}"
        );
    }
    let several = ranged(&fake, "work/a.txt", "bytes=0-1,3-4").await;
    assert_eq!(
        (several.status.as_u16(), several.body.as_slice()),
        (200, DIGITS)
    );
    for (path, range, size) in [
        ("work/a.txt", "bytes=10-", "bytes */10"),
        ("work/a.txt", "bytes=-0", "bytes */10"),
        ("work/empty", "bytes=0-0", "bytes */0"),
    ] {
        let got = ranged(&fake, path, range).await;
        assert_eq!(got.code(416), "bad_range", "{range}");
        assert_eq!(got.header("content-range"), Some(size), "{range}");
    }
    let got = ranged(&fake, "work/a.txt", "bytes=4-2").await;
    assert_eq!(got.code(416), "bad_range");
    let got = ranged(&fake, "work/empty", "bytes=-1").await;
    assert_eq!((got.status.as_u16(), got.body.len()), (200, 0));
}

#[tokio::test]
async fn what_is_more_than_goes_at_once_goes_in_ranges() {
    let fake = Fake::start().await;
    let got = fake.get(&at("files", "work/huge"), As::Owner).await;
    assert_eq!(got.code(413), "too_large");
    let last = HUGE - 1;
    let got = ranged(&fake, "work/huge", &format!("bytes={last}-")).await;
    assert_eq!((got.status.as_u16(), got.body.as_slice()), (206, &[0][..]));
    let all = head("GET", &at("files", "work/huge"), As::Owner)
        .header("range", "bytes=0-")
        .body(Body::empty());
    let answer = fake.open(all.expect("it is a request")).await;
    let range = format!("bytes 0-{}/{HUGE}", (1 << 30) - 1);
    assert_eq!(answer.headers()["content-range"], range.as_str());
}

#[tokio::test]
async fn a_file_is_put_with_its_length_and_mode() {
    let fake = Fake::start().await;
    let path = at("files", "work/new.txt?mode=0755");
    let told = fake.send(put(&path, Body::from("hello"), Some(5))).await;
    assert_eq!(told.status, 204, "{}", told.json());
    let opened = fake.asked.until("OpenPipe").await;
    let what = r#"Put { path: "/work/new.txt", size: 5, mode: 493 }"#;
    assert!(opened.contains(what), "{opened}");
    assert_eq!(fake.asked.all("WritePipe").len(), 1);
    assert_eq!(fake.asked.all("FinishPipe").len(), 1);

    for (path, body, length, status, code) in [
        ("work/a", "ab", None, 411, "length_required"),
        ("work/a", "ab", Some((1 << 30) + 1), 413, "too_large"),
        ("work/a?mode=9", "ab", Some(2), 400, "invalid"),
        ("work/a?mod=7", "ab", Some(2), 400, "invalid"),
        ("work/full", "ab", Some(2), 507, "storage_full"),
    ] {
        let request = put(&at("files", path), Body::from(body), length);
        let told = fake.send(request).await;
        assert_eq!(told.code(status), code, "{path}");
    }
    assert_eq!(fake.asked.all("WritePipe").len(), 1);
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_was_said_leaves_nothing() {
    let fake = Fake::start().await;
    for (count, (body, length)) in [("abc", 5), ("abcdefg", 5)].into_iter().enumerate() {
        let request = put(&at("files", "work/a"), Body::from(body), Some(length));
        let told = fake.send(request).await;
        assert_eq!(told.code(400), "invalid", "{body}");
        fake.asked.until_count("ClosePipe", count + 1).await;
    }
    assert_eq!(fake.asked.all("FinishPipe").len(), 0);
}

#[tokio::test]
async fn a_path_is_decoded_once_and_goes_nowhere_else() {
    let fake = Fake::start().await;
    let got = fake
        .get(&at("files", "work/%C3%A4%20b%2520c"), As::Owner)
        .await;
    assert_eq!(got.body, DIGITS);
    let got = fake.get(&at("files", "work%2Fa.txt"), As::Owner).await;
    assert_eq!(got.body, DIGITS);
    let before = fake.asked.all("OpenPipe").len();
    let long = "a".repeat(5000);
    for path in [
        "",
        "..",
        "../etc/passwd",
        "work/../etc/passwd",
        "work/%2e%2e/etc/passwd",
        "work%2f..%2fetc",
        "work/a%00b",
        "work/a%ff",
        long.as_str(),
    ] {
        for (method, kind) in [
            ("GET", "files"),
            ("PUT", "files"),
            ("DELETE", "files"),
            ("GET", "entries"),
            ("GET", "folders"),
            ("PUT", "folders"),
            ("GET", "archives"),
            ("PUT", "archives"),
            ("GET", "watch"),
        ] {
            let told = fake.ask(method, &at(kind, path), As::Owner, None).await;
            assert_eq!(told.code(400), "invalid", "{method} {kind}/{path}");
        }
    }
    assert_eq!(fake.asked.all("OpenPipe").len(), before);
    assert_eq!(fake.asked.all("RemoveFile").len(), 0);
    assert_eq!(fake.asked.all("MakeFolder").len(), 0);
}

#[tokio::test]
async fn what_is_at_a_path_is_told_moved_and_removed() {
    let fake = Fake::start().await;
    let entry = fake
        .get(&at("entries", "work/a.txt"), As::Owner)
        .await
        .json();
    assert_eq!(
        (&entry["name"], &entry["size"]),
        (&json!("a.txt"), &json!(10))
    );
    let none = fake.get(&at("entries", "work/none"), As::Owner).await;
    assert_eq!(none.code(404), "not_found");

    let path = at("files", "work/a.txt?recursive=true");
    let removed = fake.ask("DELETE", &path, As::Owner, None).await;
    assert_eq!(removed.status, 204);
    let asked = fake.asked.until("RemoveFile").await;
    assert!(
        asked.contains(r#"path: "/work/a.txt", recursive: true"#),
        "{asked}"
    );

    let path = format!("/v1/sandboxes/{}/files:move", sandbox_id());
    let body = r#"{"from":"/work/a","to":"/work/b","overwrite":true}"#;
    assert_eq!(fake.post(&path, body).await.status, 204);
    let asked = fake.asked.until("MoveFile").await;
    let what = r#"MoveRequest { from: "/work/a", to: "/work/b", overwrite: true }"#;
    assert!(asked.contains(what), "{asked}");
    for body in [
        r#"{"from":"/work/a"}"#,
        r#"{"from":"/work/a","to":"/work/../b"}"#,
        r#"{"from":"","to":"/work/b"}"#,
        r#"{"from":"/work/a","to":"/work/b","force":true}"#,
    ] {
        assert_eq!(fake.post(&path, body).await.code(400), "invalid", "{body}");
    }
    assert_eq!(fake.asked.all("MoveFile").len(), 1);
}

#[tokio::test]
async fn a_folder_is_made_and_read_page_by_page() {
    let fake = Fake::start().await;
    let made = fake
        .ask("PUT", &at("folders", "work/new"), As::Owner, None)
        .await;
    assert_eq!(made.status, 204);
    let asked = fake.asked.until("MakeFolder").await;
    assert!(asked.contains(r#"path: "/work/new""#), "{asked}");

    let (mut names, mut cursor) = (Vec::new(), String::new());
    for _ in 0..3 {
        let path = at("folders", &format!("work?limit=1{cursor}"));
        let page = fake.get(&path, As::Owner).await.json();
        let entries = page["entries"].as_array().expect("there are some");
        names.extend(entries.iter().map(|entry| entry["name"].clone()));
        cursor = match page["next_cursor"].as_str() {
            Some(next) => format!("&cursor={next}"),
            None => break,
        };
    }
    assert_eq!(names, ["a.txt", "b", "c\u{fffd}"]);
    for query in ["limit=0", "limit=201", "cursor=x", "curser=00"] {
        let told = fake
            .get(&at("folders", &format!("work?{query}")), As::Owner)
            .await;
        assert_eq!(told.code(400), "invalid", "{query}");
    }
}

#[tokio::test]
async fn an_archive_goes_out_and_in() {
    let fake = Fake::start().await;
    let got = fake.get(&at("archives", "work"), As::Owner).await;
    assert_eq!(got.header("content-type"), Some("application/x-tar"));
    assert_eq!((got.status.as_u16(), got.body.len()), (200, 1024));
    // Its length is not known before: it needs none.
    let archive = Body::from(vec![7; (256 << 10) + 1]);
    let told = fake.send(put(&at("archives", "work"), archive, None)).await;
    assert_eq!(told.json(), json!({"entries": 2, "bytes": (256 << 10) + 1}));
    assert_eq!(fake.asked.all("WritePipe").len(), 2);
}

#[tokio::test]
async fn what_changes_in_a_folder_is_told_until_it_is_gone() {
    let fake = Fake::start().await;
    let path = at("watch", "work?recursive=true");
    let told = fake.get(&path, As::Owner).await;
    assert_eq!(told.header("content-type"), Some("text/event-stream"));
    let text = String::from_utf8(told.body).expect("it is text");
    for part in [
        "event: created\ndata: {\"kind\":\"created\",\"path\":\"a\"}\n\n",
        "event: moved\ndata: {\"kind\":\"moved\",\"path\":\"a\",\"to\":\"b\"}\n\n",
        "event: gone\ndata: {\"kind\":\"gone\"}\n\n",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let opened = fake.asked.until("OpenPipe").await;
    assert!(
        opened.contains(r#"Watch { path: "/work", recursive: true }"#),
        "{opened}"
    );
}

#[tokio::test]
async fn files_of_others_are_not_there_and_the_scope_is_asked_for() {
    let fake = Fake::start().await;
    let moved = r#"{"from":"/work/a","to":"/work/b"}"#;
    for (method, kind, path, body) in [
        ("GET", "files", "work/a.txt", None),
        ("HEAD", "files", "work/a.txt", None),
        ("PUT", "files", "work/a.txt", Some("")),
        ("DELETE", "files", "work/a.txt", None),
        ("GET", "entries", "work/a.txt", None),
        ("GET", "folders", "work", None),
        ("PUT", "folders", "work", None),
        ("GET", "archives", "work", None),
        ("PUT", "archives", "work", None),
        ("GET", "watch", "work", None),
        ("POST", "files:move", "", Some(moved)),
    ] {
        let path = at(kind, path);
        for (who, status) in [(As::Stranger, 404), (As::Runner, 403)] {
            let mut head = head(method, path.trim_end_matches('/'), who);
            if let Some(body) = body {
                head = head.header("content-length", body.len());
                head = head.header("content-type", "application/json");
            }
            let body = Body::from(body.unwrap_or_default());
            let told = fake.send(head.body(body).expect("it is a request")).await;
            assert_eq!(told.status, status, "{method} {path} {who:?}");
        }
    }
    for call in [
        "OpenPipe",
        "MoveFile",
        "RemoveFile",
        "MakeFolder",
        "ListFolder",
    ] {
        assert_eq!(fake.asked.all(call).len(), 0, "{call}");
    }
}
