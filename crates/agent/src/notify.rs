//! Telling people: alarms by webhooks, and a sign of life while there is none.

use crate::alarms::{Alarm, Key, Severity};
use crate::config::{Config, Heartbeat, Webhook, WebhookFormat};
use crate::guard::{Level, Log, LogLine};
use jiff::{SignedDuration, Timestamp};
use reqwest::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Messages that may wait for one who is told; what does not fit is told later.
const WAITING: usize = 1000;
/// How long somebody who is told has for an answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// How often it is tried, and how long is waited at first.
const TRIES: u32 = 5;
const RETRY_MIN: Duration = Duration::from_secs(1);
/// How long is waited before that is done once more: whoever is away for long is told when he is back.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// Somebody who is told: a thread of its own sends, so that one who is away delays no other.
struct Listener<T> {
    whom: T,
    messages: SyncSender<Message>,
    /// Nobody wants him told any more.
    gone: Arc<AtomicBool>,
}

impl<T> Drop for Listener<T> {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

/// What is to be sent.
enum Message {
    /// Of an alarm: what it is called, and what is said of it.
    Alarm(&'static str, Value),
    /// That all is well.
    Alive,
}

/// Decides who is told what.
pub struct Notifier {
    /// And what each of them was told, and when last.
    webhooks: Vec<(Listener<Webhook>, Told)>,
    heartbeat: Option<Listener<Heartbeat>>,
    alive: Option<Timestamp>,
    repeat: SignedDuration,
    log: Log,
}

type Told = BTreeMap<Key, (Alarm, Timestamp)>;

impl Notifier {
    /// Begins; it ends with this.
    ///
    /// # Errors
    /// The machine gives no threads.
    pub fn start(config: &Config, log: Log) -> io::Result<Self> {
        // The one TLS provider of the whole program; somebody else may have said so already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut notifier = Self {
            webhooks: Vec::new(),
            heartbeat: None,
            alive: None,
            repeat: SignedDuration::ZERO,
            log,
        };
        notifier.configure(config)?;
        Ok(notifier)
    }

    /// Takes what a configuration says. A webhook that is new in it will be told of all that goes on; where that
    /// fails, those from before are still told.
    ///
    /// # Errors
    /// The machine gives no threads.
    pub fn configure(&mut self, config: &Config) -> io::Result<()> {
        for webhook in &config.webhooks {
            if !self.webhooks.iter().any(|(known, _)| known.whom == *webhook) {
                let (whom, log) = (webhook.clone(), Arc::clone(&self.log));
                let listener = listener(whom, WAITING, log, send_alarm)?;
                self.webhooks.push((listener, Told::new()));
            }
        }
        if self.heartbeat.as_ref().map(|it| &it.whom) != config.heartbeat.as_ref() {
            let start = |whom: &Heartbeat| {
                // None waits: it would say that all is well when that is over.
                listener(whom.clone(), 0, Arc::clone(&self.log), |client, whom, _, env| {
                    Ok(client.get(whom.url.reveal(env)?))
                })
            };
            self.heartbeat = config.heartbeat.as_ref().map(start).transpose()?;
        }
        self.webhooks.retain(|(known, _)| config.webhooks.contains(&known.whom));
        self.repeat = signed(config.alarms.repeat.0);
        Ok(())
    }

    /// Tells what has begun and what is over, and now and then what goes on.
    pub fn tell(&mut self, found: &[Alarm], now: Timestamp) {
        let urgent = found.iter().any(|alarm| alarm.severity == Severity::Critical);
        // An Alertmanager forgets what is not told again in time.
        let until = now.checked_add(self.repeat.saturating_add(self.repeat));
        let until = until.unwrap_or(Timestamp::MAX);
        for (Listener { whom, messages, .. }, told) in &mut self.webhooks {
            transitions(told, found, self.repeat, now, |alarm, is_over| {
                let ends = if is_over { now } else { until };
                let said = body(whom.format, alarm, is_over, ends);
                messages.try_send(Message::Alarm(alarm.name, said)).is_ok()
            });
        }
        if let Some(Listener { whom, messages, .. }) = &self.heartbeat
            && !urgent
            && self.alive.is_none_or(|alive| {
                alive > now || now.duration_since(alive) >= signed(whom.every.0)
            })
            && messages.try_send(Message::Alive).is_ok()
        {
            self.alive = Some(now);
        }
    }
}

fn signed(time: Duration) -> SignedDuration {
    SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX)
}

/// Tells what has begun or goes on for long, and (`true`) what is over. What `tell` does not take is told the next time.
fn transitions(
    told: &mut Told,
    found: &[Alarm],
    repeat: SignedDuration,
    now: Timestamp,
    mut tell: impl FnMut(&Alarm, bool) -> bool,
) {
    let found: BTreeMap<_, _> = found.iter().map(|alarm| (alarm.key(), alarm)).collect();
    told.retain(|key, (alarm, _)| found.contains_key(key) || !tell(alarm, true));
    for (key, alarm) in found {
        let last = told.get(&key).map(|(_, last)| *last);
        // A clock that was ahead must not keep it from being told.
        let is_due = |last| last > now || now.duration_since(last) >= repeat;
        if last.is_none_or(is_due) && tell(alarm, false) {
            told.insert(key, (alarm.clone(), now));
        }
    }
}

/// What a webhook is told; `ends` is when an Alertmanager is to take it for over.
fn body(format: WebhookFormat, alarm: &Alarm, is_over: bool, ends: Timestamp) -> Value {
    let Alarm { name, severity, cluster, subject, summary, remedy, since, .. } = alarm;
    match format {
        WebhookFormat::Json => json!({
            "status": if is_over { "resolved" } else { "firing" },
            "name": name, "severity": severity.name(), "cluster": cluster,
            "subject": subject, "summary": summary, "remedy": remedy, "since": since,
        }),
        WebhookFormat::Alertmanager => json!([{
            "labels": {
                "alertname": format!("Rekindle{name}"), "severity": severity.name(),
                "cluster": cluster, "subject": subject,
            },
            "annotations": { "summary": summary, "remedy": remedy },
            "startsAt": since,
            "endsAt": ends,
        }]),
        WebhookFormat::Text => {
            let about = [&**cluster, &**subject];
            let about: Vec<_> = about.into_iter().filter(|it| !it.is_empty()).collect();
            let about = about.join(", ");
            let text = match is_over {
                true => format!("Over: {name} ({about})"),
                false => format!("{name} ({about}): {summary}. What to do: {remedy}"),
            };
            json!({ "text": text })
        }
    }
}

type Env<'a> = &'a dyn Fn(&str) -> Option<String>;
type Request = Result<reqwest::RequestBuilder, String>;

/// Begins to send to somebody what `request` makes of it; so many messages wait for him.
fn listener<T: Clone + Send + 'static>(
    whom: T,
    waiting: usize,
    log: Log,
    request: impl Fn(&Client, &T, &Message, Env<'_>) -> Request + Send + 'static,
) -> io::Result<Listener<T>> {
    let (messages, waiting) = sync_channel(waiting);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (to, gone) = (whom.clone(), Arc::new(AtomicBool::new(false)));
    let is_gone = Arc::clone(&gone);
    std::thread::Builder::new().name("tells".to_owned()).spawn(move || {
        let request =
            |client: &Client, message: &Message, env: Env<'_>| request(client, &to, message, env);
        let is_gone = || is_gone.load(Ordering::Relaxed);
        send_all(&runtime, (&waiting, &is_gone), &log, &request);
    })?;
    Ok(Listener { whom, messages, gone })
}

fn send_all(
    runtime: &Runtime,
    (waiting, is_gone): (&Receiver<Message>, &dyn Fn() -> bool),
    log: &Log,
    request: &dyn Fn(&Client, &Message, Env<'_>) -> Request,
) {
    let say = |text: String| {
        (*log)(LogLine { level: Level::Warning, cluster: None, job: None, text });
    };
    let client = match Client::builder().timeout(ANSWERS_WITHIN).build() {
        Ok(client) => client,
        Err(error) => return say(format!("nobody can be told by HTTP: {error}")),
    };
    let env = |name: &str| std::env::var(name).ok();
    for message in waiting {
        let try_once = || {
            request(&client, &message, &env).and_then(|request| match message {
                Message::Alarm(..) => runtime.block_on(send_again(request)),
                Message::Alive => runtime.block_on(send(request)),
            })
        };
        let mut sent = try_once();
        if let Err(fault) = &sent {
            let what = match message {
                Message::Alive => "the heartbeat".to_owned(),
                Message::Alarm(name, _) => format!("what a webhook is told of {name}"),
            };
            say(format!("{what} was not taken: {fault}"));
        }
        // An alarm, or its end, is not forgotten; a sign of life comes again by itself.
        while let (Err(_), Message::Alarm(..)) = (&sent, &message) {
            if is_gone() {
                return;
            }
            runtime.block_on(tokio::time::sleep(AGAIN_AFTER));
            sent = try_once();
        }
    }
}

fn send_alarm(client: &Client, webhook: &Webhook, message: &Message, env: Env<'_>) -> Request {
    let Message::Alarm(_, said) = message else { return Err("it is of no alarm".to_owned()) };
    let mut request = client.post(webhook.url.reveal(env)?);
    for (name, value) in &webhook.headers {
        request = request.header(name, value.reveal(env)?);
    }
    Ok(request.header("content-type", "application/json").body(said.to_string()))
}

async fn send_again(request: reqwest::RequestBuilder) -> Result<(), String> {
    let mut wait = RETRY_MIN;
    for left in (0..TRIES).rev() {
        let Some(again) = request.try_clone() else { break };
        match send(again).await {
            Err(_) if left > 0 => tokio::time::sleep(wait).await,
            sent => return sent,
        }
        wait *= 4;
    }
    send(request).await
}

/// Without the URL in what is said of a failure: it may have a secret in it.
async fn send(request: reqwest::RequestBuilder) -> Result<(), String> {
    let answer = request.send().await.map_err(|error| told(error.without_url()))?;
    match answer.status().is_success() {
        true => Ok(()),
        false => Err(format!("the answer was {}", answer.status())),
    }
}

fn told(error: reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn alarm(subject: &str) -> Alarm {
        Alarm {
            name: "JobFailed",
            severity: Severity::Critical,
            cluster: "prod".to_owned(),
            subject: subject.to_owned(),
            summary: "it failed".to_owned(),
            remedy: "mend it".to_owned(),
            since: at(0),
            muted: false,
        }
    }

    #[test]
    fn an_alarm_is_told_once_then_now_and_then_and_when_it_is_over() {
        let (mut told, day) = (BTreeMap::new(), SignedDuration::from_secs(100));
        let mut what = |found: &[&str], now| {
            let found: Vec<_> = found.iter().map(|subject| alarm(subject)).collect();
            let mut tell = Vec::new();
            transitions(&mut told, &found, day, at(now), |alarm, is_over| {
                let word = if is_over { "resolved" } else { "firing" };
                tell.push(format!("{} {word}", alarm.subject));
                true
            });
            tell
        };
        assert_eq!(what(&["a"], 0), ["a firing"]);
        assert_eq!(what(&["a", "b"], 1), ["b firing"]);
        assert!(what(&["a", "b"], 99).is_empty());
        assert_eq!(what(&["a", "b"], 100), ["a firing"]);
        assert_eq!(what(&["b"], 101), ["a resolved", "b firing"]);
        assert_eq!(what(&[], 102), ["b resolved"]);
        assert!(what(&[], 103).is_empty());
    }

    /// Whoever cannot be told now is told later, of the end of an alarm, too.
    #[test]
    fn what_is_not_taken_is_told_again() {
        let (mut told, day) = (Told::new(), SignedDuration::from_secs(100));
        let mut what = |found: &[Alarm], now, takes: bool| {
            let mut tell = 0;
            transitions(&mut told, found, day, at(now), |_, _| {
                tell += 1;
                takes
            });
            tell
        };
        let found = [alarm("a")];
        let counts = [
            what(&found, 0, false),
            what(&found, 1, true),
            what(&found, 2, true),
            what(&[], 3, false),
            what(&[], 4, true),
            what(&[], 5, true),
        ];
        assert_eq!(counts, [1, 1, 0, 1, 1, 0]);
    }

    #[test]
    fn an_alertmanager_is_told_again_before_it_forgets() {
        let yaml = "webhooks: [{url: 'http://127.0.0.1:1', format: alertmanager}]\nclusters:\n- {name: a, \
                    endpoints: ['h:1'], snapshots: [{name: a, schedule: '@daily', to: [/a]}]}\n";
        let config = Config::parse(yaml).unwrap();
        let mut notifier = Notifier::start(&config, Arc::new(|_| ())).unwrap();
        let (messages, sent) = sync_channel(9);
        notifier.webhooks[0].0.messages = messages;
        notifier.tell(&[alarm("a")], at(0));
        let Message::Alarm(_, said) = sent.recv().unwrap() else { panic!("an alarm") };
        let ends: Timestamp = serde_json::from_value(said[0]["endsAt"].clone()).unwrap();
        assert!(ends.duration_since(at(0)) > notifier.repeat);
        // One that is new hears what goes on; one that was there hears it once.
        let more = yaml.replace("[{url", "[{url: 'http://127.0.0.1:2'}, {url");
        notifier.configure(&Config::parse(&more).unwrap()).unwrap();
        let told = |notifier: &Notifier| {
            notifier.webhooks.iter().map(|(_, told)| told.len()).collect::<Vec<_>>()
        };
        assert_eq!(told(&notifier), [1, 0]);
        notifier.tell(&[alarm("a")], at(1));
        assert!(sent.try_recv().is_err());
        assert_eq!(told(&notifier), [1, 1]);
    }

    /// Nobody wants to hear of him any more; there may be a thousand messages for him, each tried for a minute.
    #[test]
    fn whoever_is_gone_and_away_is_told_nothing_more() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (messages, waiting) = sync_channel(2);
        for name in ["first", "second"] {
            messages.send(Message::Alarm(name, Value::Null)).unwrap();
        }
        drop(messages);
        let said = Arc::new(std::sync::Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        let log: Log = Arc::new(move |line| heard.lock().unwrap().push(line.text));
        let away = |_: &Client, _: &Message, _: Env<'_>| Err("away".to_owned());
        send_all(&runtime, (&waiting, &|| true), &log, &away);
        assert_eq!(*said.lock().unwrap(), ["what a webhook is told of first was not taken: away"]);
    }

    /// While it hangs, what it is to say may become untrue.
    #[test]
    fn no_sign_of_life_waits_for_one_that_hangs() {
        let (to, hangs) = (
            Arc::new(std::sync::Barrier::new(2)),
            Heartbeat {
                url: serde_json::from_value(json!("http://127.0.0.1:1")).unwrap(),
                every: serde_json::from_value(json!("1s")).unwrap(),
            },
        );
        let at_it = Arc::clone(&to);
        let heartbeat = listener(hangs, 0, Arc::new(|_| ()), move |_, _, _, _| {
            at_it.wait();
            at_it.wait();
            Err("it has hung".to_owned())
        });
        let config = Config::parse(
            "clusters:\n- {name: a, endpoints: ['h:1'], snapshots: [{name: a, schedule: '@daily', to: [/a]}]}\n",
        );
        let mut notifier = Notifier::start(&config.unwrap(), Arc::new(|_| ())).unwrap();
        notifier.heartbeat = Some(heartbeat.unwrap());
        // The thread may not listen yet.
        while notifier.alive.is_none() {
            notifier.tell(&[], at(0));
            std::thread::yield_now();
        }
        to.wait();
        notifier.tell(&[], at(1));
        assert_eq!(notifier.alive, Some(at(0)), "it waits behind one that hangs");
        to.wait();
        while notifier.alive == Some(at(0)) {
            notifier.tell(&[], at(2));
            std::thread::yield_now();
        }
        to.wait();
        to.wait();
    }

    /// Whoever watches for the sign of life is paged while something urgent is wrong, and is not while something else is.
    #[test]
    fn there_is_no_sign_of_life_while_something_urgent_is_wrong() {
        let yaml = "heartbeat: {url: 'http://127.0.0.1:1', every: 60s}\nclusters:\n- {name: a, endpoints: ['h:1'], \
                    snapshots: [{name: a, schedule: '@daily', to: [/a]}]}\n";
        let mut notifier =
            Notifier::start(&Config::parse(yaml).unwrap(), Arc::new(|_| ())).unwrap();
        let (messages, sent) = sync_channel(9);
        notifier.heartbeat.as_mut().unwrap().messages = messages;
        let warning = Alarm { severity: Severity::Warning, ..alarm("a") };
        let mut lives = |found: &[Alarm], now| {
            notifier.tell(found, at(now));
            sent.try_iter().count()
        };
        assert_eq!(lives(&[alarm("a")], 0), 0);
        assert_eq!(lives(std::slice::from_ref(&warning), 1), 1);
        assert_eq!(lives(&[], 60), 0);
        assert_eq!(lives(&[], 61), 1);
        assert_eq!(lives(&[alarm("a"), warning], 121), 0);
        assert_eq!(lives(&[], 122), 1);
        // A clock that was ahead.
        assert_eq!(lives(&[], 100_000), 1);
        assert_eq!(lives(&[], 130), 1);
    }

    /// The URL of a webhook is a secret: what failed is told without it.
    #[test]
    fn a_url_is_in_no_fault() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().build().unwrap();
        for url in ["http://127.0.0.1:1/canary", "http://canary.invalid/", "canary"] {
            let fault = runtime.block_on(send(client.get(url))).unwrap_err();
            assert!(!fault.contains("/canary") && !fault.is_empty(), "{fault}");
        }
    }

    #[test]
    fn everybody_is_told_as_he_wants() {
        let told = |format, is_over| body(format, &alarm("daily"), is_over, at(7));
        let json = told(WebhookFormat::Json, false);
        assert_eq!((&json["status"], &json["name"]), (&json!("firing"), &json!("JobFailed")));
        let alerts = told(WebhookFormat::Alertmanager, false);
        assert_eq!(alerts[0]["labels"]["alertname"], "RekindleJobFailed");
        assert_eq!(alerts[0]["endsAt"], json!(at(7)));
        let text = told(WebhookFormat::Text, false);
        assert_eq!(text["text"], "JobFailed (prod, daily): it failed. What to do: mend it");
        assert_eq!(told(WebhookFormat::Text, true)["text"], "Over: JobFailed (prod, daily)");
    }
}
