//! Members whose hosts nobody reaches: as long as they may write on, nothing is restored beside them.

use super::backup::Backup;
use super::{Recovery, facts};
use crate::failure::Failure;
use crate::member::Seen;
use rekindle_recovery::recover::{Voter, left_out, may_write_on};

impl Recovery<'_> {
    /// Before anything is stopped: what the members themselves list.
    pub(super) fn check_who_lists_others(&self, seen: &[Seen]) -> Result<(), Failure> {
        let (observed, _) = self.observe()?;
        let voters =
            observed.members.into_iter().filter(|member| member.id.is_some() && member.votes);
        let voters = voters.map(|it| Voter { name: it.name, peer_urls: it.peer_urls });
        self.check_voters(seen, &voters.collect::<Vec<_>>()).map(drop)
    }

    /// Once it is known what is there: the last that anybody knows of who votes. Who is left out, where they may be.
    pub(super) fn check_who_is_left_out(
        &self,
        seen: &[Seen],
        backup: Option<&Backup>,
    ) -> Result<Vec<String>, Failure> {
        let data = seen.iter().filter_map(|it| it.data.as_ref());
        let last = data.filter(|data| !data.members.is_empty()).max_by_key(|it| it.facts().last);
        let voters = last.map(|data| &data.members).or(backup.map(|backup| &backup.voters));
        self.check_voters(seen, voters.map_or(&[], Vec::as_slice))
    }

    fn check_voters(&self, seen: &[Seen], voters: &[Voter]) -> Result<Vec<String>, Failure> {
        let left_out = left_out(&facts(seen), voters);
        let is_off = |voter: &&Voter| self.args.without.iter().any(|name| name == voter.label());
        let (off, running): (Vec<_>, Vec<_>) = left_out.into_iter().partition(is_off);
        if !may_write_on(running.len(), voters.len()) {
            return Ok(off.iter().chain(&running).map(|voter| voter.label().to_owned()).collect());
        }
        let mut names: Vec<_> = running.iter().map(|voter| voter.label()).collect();
        names.sort_unstable();
        let flags: Vec<_> = names.iter().map(|name| format!("--without {name}")).collect();
        Err(Failure::refused(format!(
            "{} of its {} voting members are on none of these hosts ({}): where their etcds run, or run again, they go on \
             writing, and there are two clusters",
            running.len(),
            voters.len(),
            names.join(", ")
        ))
        .remedy(format!(
            "name their hosts with --host; or where they are off for good, pass {}",
            flags.join(" ")
        )))
    }
}
