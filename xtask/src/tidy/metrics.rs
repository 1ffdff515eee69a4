//! Alert rules and the dashboard: they name no metric that there is not, every alert is tested, and no panel of
//! the dashboard hides another.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Finding;
use super::project::Project;

/// Made from the code, by `rekindle agent --reference`.
const REFERENCE: &str = "docs/configuration.md";
const RULES: &str = "dist/prometheus/rekindle.rules.yaml";
const TESTS: &str = "dist/prometheus/rekindle.rules.test.yaml";
const DASHBOARD: &str = "dist/grafana/rekindle.json";

/// Columns of Grafana's grid.
const COLUMNS: u64 = 24;

pub fn check(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    check_names(project, &mut findings);
    check_tests(project, &mut findings);
    if project.has(DASHBOARD) {
        check_dashboard(project.text(DASHBOARD), &mut findings);
    }
    findings
}

fn check_names(project: &Project, findings: &mut Vec<Finding>) {
    let known: BTreeSet<&str> = project
        .text(REFERENCE)
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    for path in [RULES, TESTS, DASHBOARD] {
        for (index, line) in project.text(path).lines().enumerate() {
            for name in metrics_in(line).filter(|name| !known.contains(name)) {
                let message = format!("{REFERENCE} has no metric `{name}`");
                findings.push(Finding::new(path, index + 1, "metric", message));
            }
        }
    }
}

/// The metrics that a line names; a recorded `level:metric:operation` names one, too.
fn metrics_in(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("rekindle_"))
}

fn check_tests(project: &Project, findings: &mut Vec<Finding>) {
    let tests = project.text(TESTS);
    for (index, line) in project.text(RULES).lines().enumerate() {
        let alert = line.trim_start().strip_prefix("- alert: ");
        if let Some(alert) = alert.filter(|alert| !tests.contains(&format!("\"{alert}\""))) {
            let message = format!("no test of {TESTS} has `{alert}` fire");
            findings.push(Finding::new(RULES, index + 1, "alert", message));
        }
    }
}

fn check_dashboard(text: &str, findings: &mut Vec<Finding>) {
    let mut found = |message| findings.push(Finding::new(DASHBOARD, 1, "dashboard", message));
    let dashboard: Value = match serde_json::from_str(text) {
        Ok(dashboard) => dashboard,
        Err(error) => return found(format!("is no JSON: {error}")),
    };
    let mut ids = BTreeSet::new();
    let mut cells = BTreeMap::new();
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap_or_default();
        if !panel["id"].as_u64().is_some_and(|id| ids.insert(id)) {
            found(format!("`{title}` has no id, or that of another panel"));
        }
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap_or_default();
        let (x, y, width, height) = (side("x"), side("y"), side("w"), side("h"));
        if width == 0 || height == 0 || x + width > COLUMNS {
            found(format!("`{title}` has no place within {COLUMNS} columns"));
            continue;
        }
        let own = (y..y + height).flat_map(|row| (x..x + width).map(move |column| (row, column)));
        let hidden: BTreeSet<&str> = own.filter_map(|cell| cells.insert(cell, title)).collect();
        for other in hidden {
            found(format!("`{title}` lies over `{other}`"));
        }
    }
}

/// All panels, those within collapsed rows as well.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    fn of(value: &Value) -> impl Iterator<Item = &Value> {
        value["panels"].as_array().into_iter().flatten()
    }
    of(dashboard).flat_map(|panel| std::iter::once(panel).chain(of(panel)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests;

    const METRICS: (&str, &str) = (REFERENCE, "| `rekindle_alarm` | gauge | x |\n");

    #[test]
    fn only_metrics_that_there_are_may_be_named() {
        for path in [RULES, TESTS, DASHBOARD] {
            let (good, bad) = ("max by (a) (rekindle_alarm)", "a:rekindle_alarms:max");
            let (good, bad) = match path {
                DASHBOARD => {
                    (format!("{{\"expr\": \"{good}\"}}"), format!("{{\"x\":\n\"{bad}\"}}"))
                }
                _ => (good.to_owned(), format!("\nexpr: {bad}")),
            };
            tests::check(check, &[METRICS, (path, &good)], &[]);
            let expected = format!("{path}:2: metric: {REFERENCE} has no metric `rekindle_alarms`");
            tests::check(check, &[METRICS, (path, &bad)], &[&expected]);
        }
    }

    #[test]
    fn every_alert_has_a_test() {
        let rules = (RULES, "rules:\n  - alert: Gone\n");
        let test = "labels: '{alertname=\"Gone\"}'";
        tests::check(check, &[rules, (TESTS, test)], &[]);
        let test = "labels: '{alertname=\"GoneElsewhere\"}'";
        tests::check(check, &[rules, (TESTS, test)], &["rules.yaml:2: alert: "]);
    }

    #[track_caller]
    fn check_panels(panels: &[(u64, [u64; 4])], expected: &[&str]) {
        let panels: Vec<Value> = panels
            .iter()
            .map(|(id, [x, y, w, h])| {
                let place = serde_json::json!({ "x": x, "y": y, "w": w, "h": h });
                serde_json::json!({ "id": id, "title": id.to_string(), "gridPos": place })
            })
            .collect();
        let (first, rest) = panels.split_first().unwrap();
        let mut row = first.clone();
        row["panels"] = rest.into();
        for text in
            [serde_json::json!({ "panels": panels }), serde_json::json!({ "panels": [row] })]
        {
            tests::check(check, &[(DASHBOARD, &text.to_string())], expected);
        }
    }

    #[test]
    fn panels_lie_beside_each_other() {
        check_panels(&[(1, [0, 0, 24, 1]), (2, [0, 1, 12, 8]), (3, [12, 1, 12, 8])], &[]);
        check_panels(&[(1, [0, 0, 24, 1]), (1, [0, 1, 12, 8])], &["`1` has no id, or that of"]);
        check_panels(&[(1, [0, 0, 24, 2]), (2, [0, 1, 12, 8])], &["`2` lies over `1`"]);
        check_panels(&[(1, [0, 0, 24, 1]), (2, [13, 1, 12, 8])], &["`2` has no place within"]);
        tests::check(check, &[(DASHBOARD, "{")], &["dashboard: is no JSON"]);
    }
}
