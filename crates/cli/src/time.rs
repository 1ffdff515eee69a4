//! The clock, and how moments are written into names.

use jiff::Timestamp;
pub(crate) use rekindle_agent::config::{fill_pattern, parse_duration};

/// Now, as it goes into names of directories: `20261120T100000Z`.
pub(crate) fn for_names() -> String {
    Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string()
}
