//! Who logged in with a browser.
//!
//! ```text
//!   Cookie: firelane_session=<64 hex: 256 random bits>   ──BLAKE3──▶   table: key id, end
//! ```
//!
//! A session stands for an API key and for nothing more: what the key may do, and whether it still may,
//! is asked with every request. Sessions live in memory only: a restart ends them all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::header;
use axum::http::request::Parts;
use firelane_model::id::KeyId;
use firelane_model::time::Moment;
use firelane_wire::problem::{Code, Problem};
use rustix::rand::{GetRandomFlags, getrandom};

use super::origin;
use crate::Gateway;

/// Name of the cookie.
const COOKIE: &str = "firelane_session";
/// How long a session lasts.
pub(super) const LASTS: Duration = Duration::from_secs(12 * 60 * 60);
/// Most sessions; the oldest ends for a new one. Only who has a key can make one.
const MAX_SESSIONS: usize = 1000;
/// Most sessions of one key, so that one key cannot end all others'.
const MAX_PER_KEY: usize = 10;
/// Characters of a token.
const DIGITS: usize = 64;

type Hash = [u8; 32];

/// The sessions that there are.
#[derive(Default)]
pub(crate) struct Sessions {
    all: Mutex<HashMap<Hash, Session>>,
}

struct Session {
    key: KeyId,
    ends: Moment,
}

impl Sessions {
    /// Begins a session of this key.
    pub(super) fn begin(&self, token: &str, key: KeyId, now: Moment) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, session| session.ends > now);
        let own = all.values().filter(|session| session.key == key).count();
        if own >= MAX_PER_KEY {
            end_oldest(&mut all, |session| session.key == key);
        } else if all.len() >= MAX_SESSIONS {
            end_oldest(&mut all, |_| true);
        }
        let ends = now + LASTS;
        all.insert(hash(token), Session { key, ends });
    }

    /// The key that this token stands for.
    fn find(&self, token: &str, now: Moment) -> Option<KeyId> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let session = all.get(&hash(token))?;
        (session.ends > now).then_some(session.key)
    }

    /// Ends a session.
    pub(super) fn end(&self, token: &str) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&hash(token));
    }

    /// Ends every session of a key.
    pub(crate) fn end_of(&self, key: KeyId) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, session| session.key != key);
    }
}

fn end_oldest(all: &mut HashMap<Hash, Session>, which: impl Fn(&Session) -> bool) {
    let candidates = all.iter().filter(|(_, session)| which(session));
    let oldest = candidates.min_by_key(|(_, session)| session.ends);
    if let Some(oldest) = oldest.map(|(hash, _)| *hash) {
        all.remove(&oldest);
    }
}

fn hash(token: &str) -> Hash {
    *blake3::hash(token.as_bytes()).as_bytes()
}

/// 256 random bits in hex.
pub(super) fn fresh() -> Result<String, Problem> {
    let mut bytes = [0; 32];
    // Up to 256 bytes come at once, or not at all: getrandom(2).
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|errno| Problem::new(Code::Internal, format!("no random numbers: {errno}")))?;
    Ok(blake3::Hash::from_bytes(bytes).to_hex().to_string())
}

/// The key whose session the request's cookie names; none if another site's page asks.
pub(crate) fn key(parts: &Parts, gateway: &Arc<Gateway>) -> Option<KeyId> {
    let token = token(parts)?;
    let found = gateway.sessions.find(token, gateway.now())?;
    origin::is_own(parts).then_some(found)
}

/// The token in the request's cookies.
pub(super) fn token(parts: &Parts) -> Option<&str> {
    let cookies = parts.headers.get_all(header::COOKIE).iter();
    let cookies = cookies.filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';'));
    pairs.find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        let well_formed =
            value.len() == DIGITS && value.bytes().all(|byte| byte.is_ascii_hexdigit());
        (name == COOKIE && well_formed).then_some(value)
    })
}

/// `Set-Cookie` that begins a session in the browser.
pub(super) fn cookie(token: &str, encrypted: bool) -> String {
    let seconds = LASTS.as_secs();
    let secure = if encrypted { "; Secure" } else { "" };
    format!("{COOKIE}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

/// `Set-Cookie` that ends it.
pub(super) fn no_cookie() -> String {
    format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict")
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::after_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn a_session_ends_by_itself() {
        let sessions = Sessions::default();
        let key = KeyId::from_bits(1);
        sessions.begin("a", key, at(5));
        let last = at(5 + LASTS.as_secs() - 1);
        assert_eq!(sessions.find("a", last), Some(key));
        assert_eq!(sessions.find("a", at(5 + LASTS.as_secs())), None);
        assert_eq!(sessions.find("b", at(5)), None);
    }

    #[test]
    fn a_key_ends_its_own_oldest_session_and_nobody_elses() {
        let sessions = Sessions::default();
        let (one, other) = (KeyId::from_bits(1), KeyId::from_bits(2));
        sessions.begin("other", other, at(0));
        for number in 0..=MAX_PER_KEY {
            sessions.begin(&number.to_string(), one, at(1 + number as u64));
        }
        let found = |token: &str| sessions.find(token, at(20));
        assert_eq!((found("0"), found("1")), (None, Some(one)));
        assert_eq!(found("other"), Some(other));
    }

    #[test]
    fn a_cookie_that_came_with_tls_goes_with_tls_only() {
        assert!(cookie("a", true).ends_with("; Secure"));
        assert!(!cookie("a", false).contains("Secure"));
    }

    #[test]
    fn the_table_is_bounded() {
        let sessions = Sessions::default();
        for number in 0..2 * MAX_SESSIONS {
            let key = KeyId::from_bits(number as u128);
            sessions.begin(&number.to_string(), key, at(number as u64));
        }
        let count = sessions.all.lock().expect("nobody panicked").len();
        assert_eq!(count, MAX_SESSIONS);
        let newest = (2 * MAX_SESSIONS - 1).to_string();
        assert!(sessions.find(&newest, at(3000)).is_some());
        assert!(sessions.find("0", at(3000)).is_none());
    }

    #[test]
    fn a_token_is_found_among_other_cookies() {
        let check = |cookies: &[&str], expected: Option<&str>| {
            let mut request = Request::get("/");
            for cookie in cookies {
                request = request.header("cookie", *cookie);
            }
            let (parts, ()) = request.body(()).expect("a request").into_parts();
            assert_eq!(token(&parts), expected, "{cookies:?}");
        };
        let one = "1a".repeat(32);
        check(&[&format!("x=1; {COOKIE}={one}; y=2")], Some(&one));
        check(&["x=1", &format!("{COOKIE}={one}")], Some(&one));
        check(&[&format!("{COOKIE}={}", &one[1..])], None);
        check(&[&format!("{COOKIE}={}", "z".repeat(64))], None);
        check(&[&format!("not_{COOKIE}={one}")], None);
        check(&[], None);
    }
}
