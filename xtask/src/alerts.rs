//! Prometheus' own judgement of our alert rules, and of what the dashboard asks it.

use std::fs;
use std::process::{Command as Process, ExitCode};

use anyhow::{Context, Result};
use lexopt::Parser;
use serde_json::{Value, json};

use crate::{Command, checkout, tools};

pub const COMMAND: Command = Command {
    name: "alerts",
    summary: "Check the alert rules and the dashboard of dist, and test the rules",
    help: "
Usage: cargo xtask alerts

Gets promtool where it is not there yet (`cargo xtask tools promtool`: some minutes), and has it check
the rules of dist/prometheus, run their tests, and parse every query of dist/grafana/rekindle.json.",
    run,
};

const RULES: &str = "dist/prometheus";
const DASHBOARD: &str = "dist/grafana/rekindle.json";

/// What Grafana puts in place of these, in one way that it may do so.
const VARIABLES: &[(&str, &str)] = &[("$__rate_interval", "5m"), ("$cluster", "one|two")];

fn run(mut args: Parser) -> Result<ExitCode> {
    if let Some(arg) = args.next()? {
        return Err(arg.unexpected().into());
    }
    let promtool = tools::folder("promtool")?.join("promtool");
    let text = fs::read_to_string(checkout::root().join(DASHBOARD))
        .with_context(|| format!("cannot read {DASHBOARD}"))?;
    let dashboard = serde_json::from_str(&text).with_context(|| format!("reading {DASHBOARD}"))?;
    let mut queries = tempfile::Builder::new().prefix("dashboard-").suffix(".yaml").tempfile()?;
    // JSON is YAML.
    serde_json::to_writer(&mut queries, &as_rules(&dashboard))?;
    let queries = queries.path().to_string_lossy().into_owned();

    let check = ["check", "rules", "--lint=all", "--lint-fatal", "rekindle.rules.yaml"];
    let test = ["test", "rules", "rekindle.rules.test.yaml"];
    let parse = ["check", "rules", &queries];
    for words in [&check[..], &test[..], &parse[..]] {
        let mut command = Process::new(&promtool);
        command.args(words).current_dir(checkout::root().join(RULES));
        println!("{}", checkout::show(&command));
        let status = command.status().with_context(|| checkout::missing(&command))?;
        if !status.success() {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The queries of a dashboard as rules, which promtool can read.
fn as_rules(dashboard: &Value) -> Value {
    let mut rules = Vec::new();
    for panel in dashboard["panels"].as_array().into_iter().flatten() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let mut query = target["expr"].as_str().unwrap_or_default().to_owned();
            for (variable, value) in VARIABLES {
                query = query.replace(variable, value);
            }
            let record = format!("panel_{}:{}", panel["id"], rules.len());
            rules.push(json!({ "record": record, "expr": query }));
        }
    }
    json!({ "groups": [{ "name": DASHBOARD, "rules": rules }] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_of_a_dashboard_are_rules() {
        let dashboard = json!({ "panels": [
            { "id": 1, "type": "row" },
            { "id": 2, "targets": [{ "expr": "a{c=~\"$cluster\"}" }, { "expr": "" }] },
        ] });
        let rules = as_rules(&dashboard)["groups"][0]["rules"].clone();
        assert_eq!(
            rules,
            json!([
                { "record": "panel_2:0", "expr": "a{c=~\"one|two\"}" },
                { "record": "panel_2:1", "expr": "" },
            ])
        );
    }
}
