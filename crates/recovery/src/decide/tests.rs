//! Situations as a table.

use super::*;
use std::collections::BTreeSet;

const TABLE: &str = include_str!("table.txt");
const POLICY: Policy = Policy { automatic: true, times: 3, restarts_max: 3 };

fn member(number: usize, letter: char, times: u32) -> Member {
    let state = match letter {
        's' | 'l' => State::Serves,
        'w' => State::Slow,
        'q' | 'm' => State::Silent,
        'u' => State::Unseen,
        'c' => State::Crashed { here: None },
        'C' => State::Crashed { here: Some(0) },
        'R' => State::Crashed { here: Some(POLICY.restarts_max) },
        'x' => State::Lost,
        'k' => State::Corrupt,
        'n' => State::NeverStarted,
        other => panic!("{other}"),
    };
    Member { name: number.to_string(), votes: !matches!(letter, 'l' | 'm'), state, times }
}

fn members(text: &str) -> Vec<Member> {
    let mut found: Vec<Member> = Vec::new();
    for letter in text.chars() {
        match (letter.to_digit(10), found.last_mut()) {
            (Some(times), Some(last)) => last.times = times,
            _ => found.push(member(found.len() + 1, letter, POLICY.times)),
        }
    }
    found
}

fn parse(text: &str) -> (Situation, Policy) {
    let (mut words, mut policy) = (text.split_whitespace(), POLICY);
    let members = members(words.next().unwrap());
    let mut situation = Situation { members, ..Situation::default() };
    for word in words {
        match word {
            "paused" => situation.paused = true,
            "busy" => situation.busy = true,
            "upgrade" => situation.upgrading = true,
            "clocks" => situation.clocks_differ = true,
            "elections" => situation.elections = true,
            "failed" => situation.replacement_failed = true,
            "stale" => situation.backup = Backup::Stale,
            "unproven" => situation.backup = Backup::Unproven,
            "none" => situation.backup = Backup::Missing,
            "manual" => policy.automatic = false,
            other => panic!("{other}"),
        }
    }
    (situation, policy)
}

fn shown(decision: &Decision) -> String {
    match decision {
        Decision::Nothing => "nothing".to_owned(),
        Decision::Wait(_) => "wait".to_owned(),
        Decision::Do(step) => format!("do {step}"),
        Decision::Ask(_, step) => format!("ask {step}"),
    }
}

#[test]
fn every_situation_is_decided_as_the_table_says() {
    let lines = TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (mut seen, mut wrong) = (BTreeSet::new(), Vec::new());
    for line in lines {
        let (text, want) = line.split_once(" => ").unwrap();
        assert!(seen.insert(text), "{text} is there twice");
        let (situation, policy) = parse(text);
        let is = shown(&decide(&situation, policy));
        if is != want {
            wrong.push(format!("{text} => {want}, and not {is}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen.len() >= 200, "{}", seen.len());
}

/// Whatever else is so: nobody's good data are given up unasked, and nothing is done where the quorum is lost but to start
/// what has crashed.
#[test]
fn what_is_done_unasked_loses_nothing() {
    let letters: Vec<char> = "swqucCRxknlm".chars().collect();
    let flags = ["", "paused", "busy", "upgrade", "clocks", "elections", "failed", "manual"];
    let mut count = 0;
    for size in 1..=4_u32 {
        for number in 0..letters.len().pow(size) {
            let places = (0..size).map(|place| number / letters.len().pow(place) % letters.len());
            let text: String = places.map(|place| letters[place]).collect();
            for flag in flags {
                let (situation, policy) = parse(&format!("{text} {flag}"));
                check_loses_nothing(&situation, policy, &format!("{text} {flag}"));
                count += 1;
            }
        }
    }
    assert!(count > 100_000, "{count}");
}

#[track_caller]
fn check_loses_nothing(situation: &Situation, policy: Policy, case: &str) {
    let Decision::Do(step) = decide(situation, policy) else { return };
    let named = |name: &String| situation.members.iter().find(|it| it.name == *name).unwrap();
    let voters = situation.members.iter().filter(|member| member.votes);
    let well = |member: &&Member| matches!(member.state, State::Serves | State::Slow);
    let (alive, all) = (voters.clone().filter(well).count(), voters.count());
    assert!(policy.automatic && !situation.paused && !situation.busy, "{case}: {step}");
    match &step {
        Step::Restart(name) => {
            assert!(
                matches!(named(name).state, State::Crashed { here: Some(_) }),
                "{case}: {step}"
            );
        }
        Step::Replace(name) => {
            let is_gone = matches!(named(name).state, State::Lost | State::Corrupt | State::Silent);
            assert!(is_gone && alive > all / 2 && named(name).votes, "{case}: {step}");
            assert!(situation.members.iter().all(|member| member.votes), "{case}: one at a time");
            // What is left has a quorum without it.
            assert!(alive > (all - 1) / 2, "{case}: {step}");
        }
        Step::Finish(name) => assert!(!named(name).votes && alive > all / 2, "{case}: {step}"),
        Step::Remove(_) | Step::Recover => panic!("{case}: {step}"),
    }
}
