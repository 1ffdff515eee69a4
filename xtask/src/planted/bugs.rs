//! Bugs that others have shipped, or that we were afraid of, as changes of our code; and the tests that have to find them.

/// A bug.
pub struct Bug {
    /// What would be wrong.
    pub name: &'static str,
    /// The file.
    pub file: &'static str,
    /// What is there: once, and nowhere else in the file.
    pub right: &'static str,
    /// What takes its place.
    pub wrong: &'static str,
    /// What `cargo test --workspace` is told: tests of which one has to fail.
    pub tests: &'static [&'static str],
}

const MACHINE: &str = "crates/agent/src/capture/machine.rs";
const FOLLOWED: &[&str] = &["--test", "machine", "--test", "simulated"];
const DATADIR: &[&str] = &["--test", "crash"];
const LOG: &[&str] = &["--test", "log"];

pub const BUGS: &[Bug] = &[
    Bug {
        name: "what was restored is not made durable before it takes its place",
        file: "crates/datadir/src/restore.rs",
        right: "            sync_tree(disk, &made.path)?;\n",
        wrong: "",
        tests: DATADIR,
    },
    Bug {
        name: "a checkpoint is taken from a header's revision, which may be ahead of what has come",
        file: MACHINE,
        right: "        if revision > head {\n            return self.lose(head.later(1).unwrap_or(head), now);\n        }\n        if revision == head {",
        wrong: "        if revision >= head {",
        tests: FOLLOWED,
    },
    Bug {
        name: "a revision is split over two cuts: one is made of what has come of it",
        file: MACHINE,
        right: "        for changes in events.chunk_by(|one, next| revision_of(one) == revision_of(next)) {",
        wrong: "        for changes in events.chunk_by(|_, _| false) {",
        tests: FOLLOWED,
    },
    Bug {
        name: "a revision that did not come is passed over",
        file: MACHINE,
        right: "            if revision > cutter.next() {\n                let first = cutter.next();",
        wrong: "            if revision > cutter.next() && revision.get() % 2 == 0 {\n                let first = cutter.next();",
        tests: FOLLOWED,
    },
    Bug {
        name: "what was said before is taken twice",
        file: MACHINE,
        right: "            if revision < cutter.next() {",
        wrong: "            if false {",
        tests: FOLLOWED,
    },
    Bug {
        name: "a base counts as proof though its snapshot may be of before what is followed",
        file: MACHINE,
        right: "        if !stale {\n            self.actions.push_back(Action::Mark { archive });\n        }",
        wrong: "        self.actions.push_back(Action::Mark { archive });",
        tests: FOLLOWED,
    },
    Bug {
        name: "a restored cluster with the same ids is followed on",
        file: MACHINE,
        right: "            && (tail.contradicts(witness) || newest < tail.revision())",
        wrong: "            && tail.contradicts(witness)",
        tests: FOLLOWED,
    },
    Bug {
        name: "another history keeps the journal of the one before",
        file: MACHINE,
        right: "        self.actions.push_back(Action::EndWatch);\n        self.actions.push_back(Action::ClearJournal);\n        // Until",
        wrong: "        self.actions.push_back(Action::EndWatch);\n        // Until",
        tests: FOLLOWED,
    },
    Bug {
        name: "an archive into which another host has written since is trusted as before",
        file: MACHINE,
        right: "it.trusted && !overtaken);",
        wrong: "it.trusted);",
        tests: FOLLOWED,
    },
    Bug {
        name: "a segment is acknowledged before the claim is looked at",
        file: "crates/archive/src/log/writer.rs",
        right: "        self.created = Some((own, written.clone()));\n        self.check_turn()?;",
        wrong: "        self.created = Some((own, written.clone()));",
        tests: LOG,
    },
    Bug {
        name: "a lost answer has a segment written twice",
        file: "crates/archive/src/log/writer.rs",
        right: "            Some((_, created)) if self.turn.is_there(&created.name)? => created,",
        wrong: "            Some((_, created)) if self.turn.is_there(&created.name)? && false => created,",
        tests: LOG,
    },
    Bug {
        name: "a directory that has the name of an archive that is away takes what is written",
        file: "crates/archive/src/store/root.rs",
        right: "        if found.is_some() && found == *known {",
        wrong: "        if found.is_some() {",
        tests: LOG,
    },
    Bug {
        name: "a merged segment takes in what was erased meanwhile",
        file: "crates/archive/src/log/merge.rs",
        right: "        if let Some(object) = self.turn.gone(&merge.names)? {",
        wrong: "        if let Some(object) = self.turn.gone(&merge.names)?.filter(|_| false) {",
        tests: LOG,
    },
    Bug {
        name: "a base names log that another host has written and nobody has compared",
        file: "crates/archive/src/write/behind.rs",
        right: "        log.timeline == timeline && behind.iter().all(is_fed)",
        wrong: "        log.timeline == timeline && (behind.iter().all(is_fed) || true)",
        tests: LOG,
    },
    Bug {
        name: "a cluster that went back goes on in its history",
        file: "crates/archive/src/write/behind.rs",
        right: "        Some(range) => (Behind::Known(range), followed || end <= to),",
        wrong: "        Some(range) => (Behind::Known(range), true),",
        tests: LOG,
    },
    Bug {
        name: "two that begin at once begin two histories",
        file: "crates/archive/src/write/mod.rs",
        right: "    if let (true, Choice::GoesOn(timeline)) = (request.first, &choice) {",
        wrong: "    if let (true, Choice::GoesOn(timeline)) = (false, &choice) {",
        tests: LOG,
    },
    Bug {
        name: "a base is published though a prune has taken of what it shares",
        file: "crates/archive/src/write/mod.rs",
        right: "        self.still_there(&name)?;\n",
        wrong: "",
        tests: &["--test", "interleaved", "--test", "second_bases"],
    },
    Bug {
        name: "a base is published however long it took",
        file: "crates/archive/src/write/mod.rs",
        right: "        if now.0.saturating_sub(self.began.0) > TIME_MAX {",
        wrong: "        if false {",
        tests: &["--test", "interleaved", "--test", "second_bases", "--test", "prune"],
    },
    Bug {
        name: "a prune takes by its own clock alone",
        file: "crates/archive/src/prune.rs",
        right: "            age(request.now, own).min(age(store_now, stores)) >= request.grace",
        wrong: "            age(request.now, own).max(age(store_now, stores)) >= request.grace",
        tests: &["--test", "interleaved", "--test", "prune"],
    },
    Bug {
        name: "a prune takes what a base needs that came while it looked",
        file: "crates/archive/src/prune.rs",
        right: "        let before: BTreeSet<_> = before.union(&needed).cloned().collect();",
        wrong: "        let before: BTreeSet<_> = before.clone();",
        tests: &["--test", "interleaved", "--test", "prune"],
    },
    Bug {
        name: "a journal of a day ago is gone on from, with what was erased since",
        file: "crates/archive/src/log/journal.rs",
        right: "        if journal.newest().is_none_or(is_old) {",
        wrong: "        if journal.newest().is_none() {",
        tests: LOG,
    },
    Bug {
        name: "a part of the log is passed over where no segment has it",
        file: "crates/archive/src/plan/cover.rs",
        right: "        (_, Some(missing)) => Err(missing),",
        wrong: "        (pieces, Some(_)) => Ok(pieces),",
        tests: &["--test", "log", "--test", "tail", "--lib"],
    },
    Bug {
        name: "a clock that goes back is followed, so that a second names a later revision than it should",
        file: "crates/archive/src/log/cut.rs",
        right: "            Some((marked, before)) if at <= *before => {",
        wrong: "            Some((marked, before)) if at == *before => {",
        tests: &["--test", "log", "--test", "tail", "--lib"],
    },
];
