//! What members have said last of their keyspace's hash, as an archive has it: nobody is asked anew.

use crate::archive::{now, open_configured, shown};
use crate::configured;
use crate::failure::Failure;
use crate::output::Output;
use rekindle_agent::config;
use rekindle_archive::format::header::Moment;
use rekindle_archive::{Archive, Identity};
use rekindle_etcd::Revision;
use rekindle_recovery::health::Observed;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// So many of the newest are looked at.
const NEWEST: usize = 50;

/// What a member has said last.
struct Said {
    revision: Revision,
    at: Moment,
    /// Whether others have said the same of the same revision; none where nobody else has said anything of it, or it is sealed.
    is_equal: Option<bool>,
}

/// Adds it to what is told of the members.
pub(super) fn add(out: &mut Output, observed: &Observed) -> Result<(), Failure> {
    let archive = configured::cluster().and_then(|cluster| cluster.archives.first());
    let archive = archive.ok_or_else(|| {
        Failure::usage("nothing says where witnesses are kept")
            .remedy("name the configuration that has the cluster's archives: --config FILE")
    })?;
    let said = last(&unlocked(archive)?)?;
    let of = |id: Option<u64>| id.and_then(|id| said.get(&id));
    let listed = out.json.get_mut("members").and_then(Value::as_array_mut);
    for (member, json) in observed.members.iter().zip(listed.into_iter().flatten()) {
        if let Some(json) = json.as_object_mut() {
            json.insert("witness".to_owned(), of(member.id).map_or(Value::Null, Said::json));
        }
    }
    for member in &observed.members {
        let text = of(member.id).map_or("has never said its HashKV".to_owned(), Said::text);
        out.text += &format!("{}: {text}\n", member.label());
    }
    Ok(())
}

/// With the identities that the configuration names.
pub(crate) fn unlocked(archive: &config::Archive) -> Result<Archive, Failure> {
    let opened = open_configured(archive)?;
    let read = |path: &PathBuf| Identity::parse_file(&std::fs::read_to_string(path).ok()?).ok();
    let own: Vec<_> = archive.identities.iter().filter_map(read).flatten().collect();
    let unlocked = (!own.is_empty()).then(|| opened.clone().with_identities(&own).ok()).flatten();
    Ok(unlocked.unwrap_or(opened))
}

fn last(archive: &Archive) -> Result<BTreeMap<u64, Said>, Failure> {
    let mut witnesses = archive.witnesses()?;
    witnesses.sort_by_key(|entry| entry.facts.state);
    let older = witnesses.len().saturating_sub(NEWEST);
    let newest = witnesses.split_off(older);
    let mut hashes: BTreeMap<_, Vec<Option<u32>>> = BTreeMap::new();
    for entry in &newest {
        let facts = &entry.facts;
        let hash = archive.testimony(entry).ok().map(|said| said.hash);
        hashes.entry((facts.timeline, facts.last, facts.compact)).or_default().push(hash);
    }
    let mut said = BTreeMap::new();
    for entry in newest {
        let facts = entry.facts;
        let all = &hashes[&(facts.timeline, facts.last, facts.compact)];
        let is_known = all.len() > 1 && all.iter().all(Option::is_some);
        let is_equal = is_known.then(|| all.iter().all(|hash| *hash == all[0]));
        let last = Said { revision: facts.last, at: facts.state, is_equal };
        said.insert(facts.member.0, last);
    }
    Ok(said)
}

impl Said {
    fn json(&self) -> Value {
        json!({ "revision": self.revision.get(), "time": shown(self.at), "equal": self.is_equal })
    }

    fn text(&self) -> String {
        let word = match self.is_equal {
            Some(true) => ", as others have",
            Some(false) => ", and others have said another",
            None => "",
        };
        let minutes = now().0.saturating_sub(self.at.0) / 60_000;
        format!("has said its HashKV of revision {}{word}, {minutes} min ago", self.revision)
    }
}
