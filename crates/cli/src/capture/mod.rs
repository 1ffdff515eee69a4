//! `rekindle capture`: following a cluster into archives, in the foreground.

mod reaching;
mod words;

use crate::archive::{keep_to_ourselves, now};
use crate::connect::{connect, explain};
use crate::failure::{Code, Failure};
use crate::spool::Spool;
use crate::stores::parse_bytes;
use crate::terminal;
use crate::time::parse_duration;
use crate::{archive::WriteKeys, args};
use args::{ConnectArgs, Format, OutputArgs, SpoolArgs, StoreArgs};
use clap::Args as ClapArgs;
use reaching::Reaching;
use rekindle_agent::capture::{Capture, Error, Settings, Signals};
use signal_hook::consts::SIGUSR1;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use words::Words;

/// Shortest time between two segments: each is an object, and a request.
const FLUSH_MIN: Duration = Duration::from_secs(1);
/// Fewest bytes of the journal: what comes in a busy minute should find room.
const JOURNAL_MIN: u64 = 16 << 20;
/// Shortest time between two bases: etcd copies its whole database for each.
const BASES_MIN: Duration = Duration::from_secs(60);

/// Follow a running cluster into archives: every revision becomes a restore point.
///
/// Writes what has changed every few seconds, and makes a base every hour, in the foreground, until it is
/// interrupted; what has come is written before it ends. SIGUSR1 asks for a base at once; with -w json each thing that
/// happens is told as a line of JSON on standard output, too. What an archive has not because nobody
/// followed comes from a snapshot. An archive that is away is tried again, and has what came meanwhile from a
/// journal on this host. Where it runs twice, the second one stands by, and takes over when the first falls silent.
#[derive(Debug, ClapArgs)]
#[command(after_help = args::ENVIRONMENT)]
pub(crate) struct CaptureArgs {
    /// Archive to write into, made with rekindle archive init; several may be given, and each is written
    /// by itself.
    #[arg(long = "archive", value_name = "PLACE", required = true)]
    archives: Vec<String>,
    /// Write what has come so often: what came since is what a disaster costs [default: 5s, at least 1s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    flush_interval: Option<Duration>,
    /// Make a base so often: a restore reads one, and what came since [default: 1h, at least 1m]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    base_interval: Option<Duration>,
    /// Ask members for their HashKV so often, to compare the archive with it later: each reads its whole database
    /// for that; 0: never [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    witness_interval: Option<Duration>,
    /// Keep so many bytes of what came on this host, unencrypted and readable to its user only, for
    /// archives that cannot be written into and to compare the next base with; at least 16MiB.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "2GiB")]
    journal: NonZeroU64,
    #[command(flatten)]
    spool: SpoolArgs,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    keys: WriteKeys,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &CaptureArgs) -> Result<(), Failure> {
    keep_to_ourselves();
    let settings = settings(args)?;
    let spool = Spool::new(args.spool.directory(), "capture")?;
    let places = reaching::places(&args.archives, &args.store)?;
    let (store, keys) = (args.store.clone(), args.keys.clone());
    let reaching = Reaching { store, keys, spool: spool.directory().to_owned() };
    let archives = reaching.ways(&places)?;
    let stop = terminal::stop_flag()?;
    let cluster = connect(&args.connect)?.client;
    spool.warn_of_etcds_disk();
    let capture = Capture {
        cluster,
        archives,
        spool: spool.directory().to_owned(),
        journal_max: args.journal.get(),
        settings,
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        now,
    };
    let listener = (args.output.format() == Format::Json).then(|| Arc::clone(&stop));
    let mut words = Words::new(places, listener);
    let base = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGUSR1, Arc::clone(&base))
        .map_err(|error| Failure::new(Code::Failed, format!("catching signals: {error}")))?;
    let signals = Signals { stop: &stop, base: &base };
    let ended = capture.run(signals, &mut |told| words.say(&told));
    words.end();
    let ended = ended?;
    if !ended.complete {
        eprintln!("warning: no member has answered at last whether anything came after this");
    }
    eprintln!("ended: {}", words.state(&ended.status));
    match ended.lacking.iter().map(|archive| words.place(*archive)).collect::<Vec<_>>()[..] {
        [] => Ok(()),
        ref lacking => {
            let what = format!("not everything that came is in {}", lacking.join(", "));
            Err(Failure::new(Code::Transient, what).remedy(
                "run rekindle capture again on this host, with the same --spool: it goes on from what lies \
                 there, or makes a base",
            ))
        }
    }
}

fn settings(args: &CaptureArgs) -> Result<Settings, Failure> {
    let default = Settings::default();
    let at_least = |given: Option<Duration>, least: Duration, default, flag: &str| match given {
        Some(given) if given < least => Err(Failure::usage(format!(
            "--{flag} of {} s: at least {} s makes sense",
            given.as_secs_f64(),
            least.as_secs_f64()
        ))),
        given => Ok(given.unwrap_or(default)),
    };
    if args.journal.get() < JOURNAL_MIN {
        let what = format!("--journal of {} bytes: at least 16MiB makes sense", args.journal);
        return Err(Failure::usage(what));
    }
    let flush_every =
        at_least(args.flush_interval, FLUSH_MIN, default.flush_every, "flush-interval")?;
    let bases_every =
        at_least(args.base_interval, BASES_MIN, default.bases_every, "base-interval")?;
    let witnesses_every = args.witness_interval.or(default.witnesses_every);
    let witnesses_every = witnesses_every.filter(|every| !every.is_zero());
    Ok(Settings { flush_every, bases_every, witnesses_every, ..default })
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Cluster(error) => explain(error),
            Error::Archive(error) => error.into(),
            Error::Stopped => Self::new(Code::Interrupted, "interrupted; nothing was changed"),
            error => Self::new(Code::Failed, error.to_string()),
        }
    }
}
