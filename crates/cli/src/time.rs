//! The clock, and how moments are written into names.

use jiff::Timestamp;
use jiff::tz::TimeZone;
pub(crate) use rekindle_agent::config::parse_duration;

/// Now, as it goes into names of directories: `20261120T100000Z`.
pub(crate) fn for_names() -> String {
    Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// Fills the date patterns (`%Y`, `%m`, …) of a name, in UTC.
pub(crate) fn fill_pattern(name: &str, now: Timestamp) -> Result<String, String> {
    let now = now.to_zoned(TimeZone::UTC);
    jiff::fmt::strtime::format(name, &now).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_dates() {
        let now: Timestamp = "2026-11-20T09:05:03Z".parse().unwrap();
        let filled = |name| fill_pattern(name, now);
        assert_eq!(filled("snap.db").as_deref(), Ok("snap.db"));
        assert_eq!(filled("b/%Y-%m-%d/%H%M%S.db").as_deref(), Ok("b/2026-11-20/090503.db"));
        assert_eq!(filled("100%%.db").as_deref(), Ok("100%.db"));
        assert!(filled("%!").is_err());
    }
}
