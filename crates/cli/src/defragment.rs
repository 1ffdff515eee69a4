//! `rekindle defragment`: members whose files are mostly empty, one after the other.

use crate::args::{ConnectArgs, OutputArgs};
use crate::connect::connect;
use crate::failure::{Code, Failure};
use crate::output::{self, Output};
use crate::stores::parse_bytes;
use crate::terminal::{self, Calls, confirm};
use clap::Args as ClapArgs;
use rekindle_agent::defragment::{Worth, free, plan, whole};
use rekindle_agent::snapshot::ask_all;
use rekindle_client::{Client, Member, Status};
use serde_json::{Value, json};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// How long a member has to be well again.
const WELL_WITHIN: Duration = Duration::from_secs(120);
/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Defragment members whose database files are mostly empty.
///
/// A member answers nobody meanwhile. So one comes after the other, the leader last, each only while all members answer, agree
/// and keep up; the first that is not well again afterwards ends it. All members that the cluster lists are meant.
#[derive(Debug, ClapArgs)]
pub(crate) struct DefragmentArgs {
    /// Only where so many bytes of a file are free.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "100MiB")]
    pub free_bytes: NonZeroU64,
    /// And only where that is so much of it, in percent.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(0..=100), default_value_t = 45)]
    pub free_percent: u64,
    /// Print the plan and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub connect: ConnectArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

pub(crate) fn run(args: &DefragmentArgs) -> Result<(), Failure> {
    let calls = Calls::new(terminal::stop_flag()?)?;
    let client = calls.wait(connect(&args.connect)?.client.of_all_members())?;
    let worth = Worth { bytes: args.free_bytes.get(), percent: args.free_percent };
    let before = look(&calls, &client)?;
    let plan = plan(&before, worth).map_err(refused)?;
    let statuses: Vec<_> = before.iter().filter_map(|it| it.status.as_ref().ok()).collect();
    if args.dry_run || plan.order.is_empty() {
        return told(&client, &statuses, &plan.order, &[]).print(args.output.format());
    }
    if !args.yes {
        eprint!("{}", told(&client, &statuses, &plan.order, &[]).text);
        confirm("Each answers nobody while it is defragmented.")?;
    }
    let mut done = Vec::new();
    for number in plan.order {
        let Some(member) = client.members().get(number) else { continue };
        if !done.is_empty() {
            // What was well when it began may not be now.
            whole(&look(&calls, &client)?).map_err(refused)?;
        }
        eprintln!("defragmenting {}", member.endpoint());
        let began = Instant::now();
        calls.wait(member.defragment()).map_err(|failure| match failure.code {
            Code::Interrupted => {
                let what = format!("interrupted; {} goes on by itself", member.endpoint());
                Failure::new(Code::Interrupted, what)
                    .remedy("etcdctl endpoint status shows when it answers again; no other member was begun")
            }
            _ => failure,
        })?;
        let took = began.elapsed();
        let status = wait_until_well(&calls, &client, member)?;
        eprintln!(
            "{} has {} after {:.1} s",
            member.endpoint(),
            output::bytes(status.db_size),
            took.as_secs_f64()
        );
        done.push((number, status, took));
    }
    let order: Vec<_> = done.iter().map(|(number, ..)| *number).collect();
    told(&client, &statuses, &order, &done).print(args.output.format())
}

fn look(
    calls: &Calls,
    client: &Client,
) -> Result<Vec<rekindle_agent::snapshot::Candidate>, Failure> {
    calls.wait(async { Ok::<_, Failure>(ask_all(client).await) })
}

fn refused(why: String) -> Failure {
    Failure::refused(format!("nothing is defragmented now: {why}"))
        .remedy("a cluster is defragmented while all its members are well; mend that first")
}

/// It answers, has caught up, and so have all.
fn wait_until_well(calls: &Calls, client: &Client, member: &Member) -> Result<Status, Failure> {
    let until = Instant::now() + WELL_WITHIN;
    loop {
        let seen = look(calls, client)?;
        match whole(&seen) {
            Ok(_) => break,
            Err(why) if Instant::now() >= until => {
                let what = format!(
                    "the cluster is not well since {} was defragmented: {why}",
                    member.endpoint()
                );
                return Err(Failure::new(Code::Failed, what)
                    .remedy("no other member was touched; look at that member's log"));
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
    calls.wait(member.status())
}

type Done = (usize, Status, Duration);

fn told(client: &Client, before: &[&Status], order: &[usize], done: &[Done]) -> Output {
    let freed: u64 = done
        .iter()
        .filter_map(|(number, after, _)| {
            Some(before.get(*number)?.db_size.saturating_sub(after.db_size))
        })
        .sum();
    let mut out = Output { simple: format!("{}, {freed}", order.len()), ..Output::default() };
    out.add("defragmented", "Defragmented", done.len());
    out.add("freedBytes", "Freed bytes", freed);
    let (mut rows, mut all) = (Vec::<Vec<String>>::new(), Vec::<Value>::new());
    for (number, (member, status)) in client.members().iter().zip(before).enumerate() {
        let after = done.iter().find(|(it, ..)| *it == number).map(|(_, after, _)| after.db_size);
        let fate = match (after, order.contains(&number)) {
            (Some(after), _) => output::bytes(after),
            (None, true) => "is to be".to_owned(),
            (None, false) => "not worth it".to_owned(),
        };
        all.push(json!({
            "endpoint": member.endpoint().to_string(), "dbSize": status.db_size,
            "dbSizeInUse": status.db_size_in_use, "dbSizeAfter": after,
            "chosen": order.contains(&number),
        }));
        let size = output::bytes(status.db_size);
        rows.push(vec![member.endpoint().to_string(), size, output::bytes(free(status)), fate]);
    }
    out.json.insert("members".to_owned(), all.into());
    out.text = output::table(&["ENDPOINT", "DB SIZE", "FREE", "DEFRAGMENTED"], &rows);
    out
}
