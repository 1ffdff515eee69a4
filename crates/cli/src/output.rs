//! Results in the four formats of etcdutl.

use crate::args::Format;
use crate::failure::{Code, Failure};
use comfy_table::presets;
use comfy_table::{CellAlignment, LineStyle, Table};
use serde_json::{Map, Value};
use std::io::Write;

/// A result that can be printed in every format.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// etcdutl's one line.
    pub simple: String,
    /// Names and values of `fields`.
    pub fields: Vec<(String, String)>,
    /// The JSON object.
    pub json: Map<String, Value>,
    /// Tables and lines for people.
    pub text: String,
}

impl Output {
    /// Adds a value to JSON and fields.
    pub(crate) fn add(&mut self, json: &str, field: &str, value: impl Into<Value>) {
        let value = value.into();
        let text = match &value {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        self.fields.push((field.to_owned(), text));
        self.json.insert(json.to_owned(), value);
    }

    pub(crate) fn print(&self, format: Format) -> Result<(), Failure> {
        let text = match format {
            Format::Table => self.text.clone(),
            Format::Simple => format!("{}\n", self.simple),
            Format::Json => format!("{}\n", Value::Object(self.json.clone())),
            Format::Fields => {
                let line = |(name, value): &(String, String)| format!("\"{name}\" : {value}\n");
                self.fields.iter().map(line).collect()
            }
        };
        print(&text)
    }
}

/// Prints to standard output; a closed pipe is the reader's choice.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Code::Failed, format!("writing to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// A table as etcdutl draws it.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    let rule = LineStyle::new('+', '-', '+', '+');
    let style = presets::ASCII_FULL_CONDENSED.header_separator(rule);
    table.load_style(style).set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n")
}

/// Names and values under each other, the values in one column.
pub(crate) fn lines(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in rows {
        for (index, line) in value.lines().enumerate() {
            let name = if index == 0 { name } else { "" };
            text += &format!("{name:<width$}  {line}\n");
        }
    }
    text
}

/// Bytes as etcd's tools print them: powers of 1000, two figures.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 10 {
        return format!("{count} B");
    }
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let rounded = (value * 10.0 + 0.5).floor() / 10.0;
    let digits = usize::from(rounded < 10.0);
    format!("{rounded:.digits$} {}", UNITS[unit])
}

/// A number with its thousands set apart.
pub(crate) fn grouped(number: impl ToString) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_as_etcdutl_prints_them() {
        for (count, want) in [
            (0, "0 B"),
            (9, "9 B"),
            (82, "82 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (20480, "20 kB"),
            (25001, "25 kB"),
            (2_100_000, "2.1 MB"),
            (1_645_887_488, "1.6 GB"),
        ] {
            assert_eq!(bytes(count), want);
        }
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, want) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), want);
        }
    }

    #[test]
    fn tables_look_like_etcdutls() {
        let drawn = table(&["HASH", "REVISION"], &[vec!["d1d41bbe".into(), "401".into()]]);
        let want = "+----------+----------+\n\
                    | HASH     | REVISION |\n\
                    +----------+----------+\n\
                    | d1d41bbe |      401 |\n\
                    +----------+----------+\n";
        assert_eq!(drawn, want);
    }

    #[test]
    fn lines_keep_their_column() {
        let text = lines(&[("a", "1".to_owned()), ("long", "2\n3".to_owned())]);
        assert_eq!(text, "a     1\nlong  2\n      3\n");
    }
}
