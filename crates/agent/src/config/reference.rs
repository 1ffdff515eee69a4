//! What a configuration can say, as JSON schema and as a page for people, made from the types.

use super::Config;
use schemars::Schema;
use serde_json::{Map, Value};
use std::fmt::Write;

const INTRODUCTION: &str = "\
# The configuration of `rekindle agent`

Made from the types in `crates/agent/src/config` by `rekindle agent --reference`. `rekindle agent --config FILE --check`
finds what is wrong with a file; `rekindle agent --schema` prints the JSON schema, for editors.

A time is written `500ms`, `5s`, `1m30s`, `36h` or `7d`; bytes `512KiB`, `50MiB` or a number; a secret as it is, as
`${NAME}` of the environment, or as `file:PATH`. A schedule is a cron expression of five fields (six with seconds), in UTC
where no zone is given, `@daily` and the like, or `@every 1m`.
";

/// The JSON schema of a configuration.
#[must_use]
pub fn schema() -> Schema {
    schemars::schema_for!(Config)
}

/// `docs/configuration.md`.
#[must_use]
pub fn reference() -> String {
    let schema = schema().to_value();
    let mut page = INTRODUCTION.to_owned();
    section(&mut page, "The file", &schema);
    let none = Map::new();
    let definitions = schema.get("$defs").and_then(Value::as_object).unwrap_or(&none);
    for (name, definition) in definitions {
        match definition.get("properties") {
            Some(_) => section(&mut page, name, definition),
            None => choices(&mut page, name, definition),
        }
    }
    page
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The lines of a comment as one.
fn description(of: &Value) -> String {
    text(of, "description").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn section(page: &mut String, name: &str, schema: &Value) {
    let about = description(schema);
    let _ = write!(
        page,
        "\n## {name}\n\n{about}\n\n| field | what it is | kind | default |\n|---|---|---|---|\n"
    );
    let none = Map::new();
    let fields = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
    for (field, what) in fields {
        let must = items(schema, "required").iter().any(|name| name.as_str() == Some(field));
        let default = if must { "must be given".to_owned() } else { default(what) };
        let (about, kind) = (description(what), kind(what));
        let _ = writeln!(page, "| `{field}` | {about} | {kind} | {default} |");
    }
}

fn default(what: &Value) -> String {
    match what.get("default") {
        Some(Value::Array(list)) if list.is_empty() => "none".to_owned(),
        Some(Value::Object(map)) if map.is_empty() => "none".to_owned(),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(Value::Null) | None if text(what, "$ref").is_empty() => "none".to_owned(),
        Some(Value::Object(_) | Value::Null) | None => "as its fields say".to_owned(),
        Some(other) => format!("`{other}`"),
    }
}

fn choices(page: &mut String, name: &str, schema: &Value) {
    let _ = write!(page, "\n## {name}\n\n{}\n\n", description(schema));
    for choice in items(schema, "oneOf") {
        let _ = writeln!(page, "- `{}`: {}", text(choice, "const"), description(choice));
    }
}

fn kind(what: &Value) -> String {
    if let Some(name) = text(what, "$ref").rsplit('/').next().filter(|name| !name.is_empty()) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(first) = items(what, "anyOf").first() {
        return kind(first);
    }
    let named = match what.get("type") {
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str).unwrap_or_default(),
        Some(Value::String(kind)) => kind,
        _ => "",
    };
    let of = |name: &str| kind(what.get(name).unwrap_or(&Value::Null));
    match (named, text(what, "format")) {
        ("array", _) => format!("list: {}", of("items")),
        ("object", _) => format!("names, each with a {}", of("additionalProperties")),
        ("boolean", _) => "true or false".to_owned(),
        ("integer", _) => "number".to_owned(),
        ("string", "") => "text".to_owned(),
        (_, format) => format.to_owned(),
    }
}
