//! Times and sizes as people read them.

use jiff::Timestamp;
use maud::{Markup, html};

/// Milliseconds: `0.4 ms`, `31 ms`, `2.35 s`, `3 min 20 s`.
pub(super) fn duration(ms: f64) -> String {
    let seconds = ms / 1e3;
    match seconds {
        _ if ms < 10.0 => format!("{ms:.1} ms"),
        _ if ms < 1e3 => format!("{ms:.0} ms"),
        _ if seconds < 10.0 => format!("{seconds:.2} s"),
        _ if seconds < 100.0 => format!("{seconds:.1} s"),
        _ => format!(
            "{:.0} min {:.0} s",
            (seconds / 60.0).floor(),
            seconds % 60.0
        ),
    }
}

/// Bytes: `900 B`, `1.5 KiB`, `12.0 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const KIB: f64 = 1024.0;
    let count = bytes as f64;
    match count {
        _ if count < KIB => format!("{bytes} B"),
        _ if count < KIB * KIB => format!("{:.1} KiB", count / KIB),
        _ => format!("{:.1} MiB", count / KIB / KIB),
    }
}

/// Milliseconds between two times (RFC 3339), if both are times.
pub(super) fn between(from: &str, to: &str) -> Option<f64> {
    let at = |text: &str| text.parse::<Timestamp>().ok();
    let ms = at(to)?.as_millisecond() - at(from)?.as_millisecond();
    Some(ms.max(0) as f64)
}

/// A time (RFC 3339, UTC); the script shows it in the reader's own zone.
pub(super) fn time(text: &str) -> Markup {
    let shown = text.parse::<Timestamp>().map_or_else(
        |_| text.to_owned(),
        |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    );
    html! { time datetime=(text) { (shown) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short_at_every_size() {
        let check = |ms, expected: &str| assert_eq!(duration(ms), expected);
        check(0.44, "0.4 ms");
        check(31.2, "31 ms");
        check(2345.0, "2.35 s");
        check(23_450.0, "23.4 s");
        check(200_000.0, "3 min 20 s");
    }

    #[test]
    fn sizes_have_units() {
        let check = |bytes, expected: &str| assert_eq!(size(bytes), expected);
        check(900, "900 B");
        check(1536, "1.5 KiB");
        check(12 << 20, "12.0 MiB");
    }

    #[test]
    fn what_is_no_time_has_no_duration() {
        let ten = "2026-01-01T00:00:10Z";
        assert_eq!(between("2026-01-01T00:00:00Z", ten), Some(10_000.0));
        assert_eq!(between(ten, "2026-01-01T00:00:00Z"), Some(0.0));
        assert_eq!(between("never", ten), None);
    }
}
