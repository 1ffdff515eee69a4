//! Telling people: alarms by webhooks, and a sign of life while there is none.

use crate::alarms::{Alarm, Key, Severity};
use crate::config::{Config, Secret, Webhook, WebhookFormat};
use crate::guard::{Level, Log, LogLine};
use jiff::{SignedDuration, Timestamp};
use reqwest::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Messages that may wait; more are dropped, and the next repetition tells.
const WAITING: usize = 1000;
/// How long somebody who is told has for an answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// How often it is tried, and how long is waited at first.
const TRIES: u32 = 5;
const RETRY_MIN: Duration = Duration::from_secs(1);

/// What is to be sent.
enum Message {
    /// To this webhook.
    Alarm { webhook: Box<Webhook>, alarm: Box<Alarm>, status: &'static str },
    /// That all is well.
    Alive { url: Secret },
}

/// Decides who is told what; a thread of its own sends.
pub struct Notifier {
    webhooks: Vec<Webhook>,
    heartbeat: Option<(Secret, SignedDuration)>,
    repeat: SignedDuration,
    /// What was told, and when last.
    told: BTreeMap<Key, (Alarm, Timestamp)>,
    alive: Option<Timestamp>,
    messages: SyncSender<Message>,
}

impl Notifier {
    /// Begins; it ends with this.
    ///
    /// # Errors
    /// The machine gives no thread.
    pub fn start(config: &Config, log: Log) -> io::Result<Self> {
        let (messages, waiting) = sync_channel(WAITING);
        // The one TLS provider of the whole program; somebody else may have said so already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name("tells".to_owned())
            .spawn(move || send_all(&runtime, &waiting, &log))?;
        let mut notifier = Self {
            webhooks: Vec::new(),
            heartbeat: None,
            repeat: SignedDuration::ZERO,
            told: BTreeMap::new(),
            alive: None,
            messages,
        };
        notifier.configure(config);
        Ok(notifier)
    }

    /// Takes what a configuration says.
    pub fn configure(&mut self, config: &Config) {
        let signed = |time: Duration| SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
        self.webhooks.clone_from(&config.webhooks);
        self.heartbeat = config.heartbeat.as_ref().map(|it| (it.url.clone(), signed(it.every.0)));
        self.repeat = signed(config.alarms.repeat.0);
    }

    /// Tells what has begun and what is over, and now and then what goes on.
    pub fn tell(&mut self, found: Vec<Alarm>, now: Timestamp) {
        let urgent = found.iter().any(|alarm| alarm.severity == Severity::Critical);
        for (alarm, status) in transitions(&mut self.told, found, self.repeat, now) {
            for webhook in &self.webhooks {
                let (webhook, alarm) = (Box::new(webhook.clone()), Box::new(alarm.clone()));
                let _ = self.messages.try_send(Message::Alarm { webhook, alarm, status });
            }
        }
        if let Some((url, every)) = &self.heartbeat
            && !urgent
            && self.alive.is_none_or(|alive| now.duration_since(alive) >= *every)
        {
            self.alive = Some(now);
            let _ = self.messages.try_send(Message::Alive { url: url.clone() });
        }
    }
}

/// What is to be told: `firing` what has begun or goes on for long, `resolved` what is over.
fn transitions(
    told: &mut BTreeMap<Key, (Alarm, Timestamp)>,
    found: Vec<Alarm>,
    repeat: SignedDuration,
    now: Timestamp,
) -> Vec<(Alarm, &'static str)> {
    let mut tell = Vec::new();
    let found: BTreeMap<_, _> = found.into_iter().map(|alarm| (alarm.key(), alarm)).collect();
    told.retain(|key, (alarm, _)| {
        let is_there = found.contains_key(key);
        if !is_there {
            tell.push((alarm.clone(), "resolved"));
        }
        is_there
    });
    for (key, alarm) in found {
        let last = told.get(&key).map(|(_, last)| *last);
        if last.is_none_or(|last| now.duration_since(last) >= repeat) {
            told.insert(key, (alarm.clone(), now));
            tell.push((alarm, "firing"));
        }
    }
    tell
}

/// What a webhook is told.
fn body(format: WebhookFormat, alarm: &Alarm, status: &str) -> Value {
    let Alarm { name, severity, cluster, subject, summary, remedy, since, .. } = alarm;
    match format {
        WebhookFormat::Json => json!({
            "status": status, "name": name, "severity": severity.name(), "cluster": cluster,
            "subject": subject, "summary": summary, "remedy": remedy, "since": since,
        }),
        WebhookFormat::Alertmanager => {
            let mut alert = json!({
                "labels": {
                    "alertname": format!("Rekindle{name}"), "severity": severity.name(),
                    "cluster": cluster, "subject": subject,
                },
                "annotations": { "summary": summary, "remedy": remedy },
                "startsAt": since,
            });
            if status == "resolved" {
                alert["endsAt"] = json!(Timestamp::now());
            }
            json!([alert])
        }
        WebhookFormat::Text => {
            let about = [&**cluster, &**subject];
            let about: Vec<_> = about.into_iter().filter(|it| !it.is_empty()).collect();
            let about = about.join(", ");
            let text = match status {
                "resolved" => format!("Over: {name} ({about})"),
                _ => format!("{name} ({about}): {summary}. What to do: {remedy}"),
            };
            json!({ "text": text })
        }
    }
}

fn send_all(runtime: &Runtime, waiting: &Receiver<Message>, log: &Log) {
    // Whoever is told nothing needs no authorities to trust.
    let client = std::cell::LazyCell::new(|| Client::builder().timeout(ANSWERS_WITHIN).build());
    let say = |text: String| {
        (*log)(LogLine { level: Level::Warning, cluster: None, job: None, text });
    };
    let env = |name: &str| std::env::var(name).ok();
    for message in waiting {
        let client = match &*client {
            Ok(client) => client,
            Err(error) => {
                say(format!("nobody can be told by HTTP: {error}"));
                continue;
            }
        };
        let sent = match &message {
            Message::Alive { url } => {
                url.reveal(&env).and_then(|url| runtime.block_on(send(client.get(url))))
            }
            Message::Alarm { webhook, alarm, status } => {
                request(client, webhook, &env).and_then(|request| {
                    let body = body(webhook.format, alarm, status);
                    let request = request.header("content-type", "application/json");
                    runtime.block_on(send_again(request.body(body.to_string())))
                })
            }
        };
        if let Err(fault) = sent {
            let whom = match message {
                Message::Alive { .. } => "the heartbeat".to_owned(),
                Message::Alarm { alarm, .. } => format!("a webhook of {}", alarm.name),
            };
            say(format!("{whom} was not taken: {fault}"));
        }
    }
}

fn request(
    client: &Client,
    webhook: &Webhook,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<reqwest::RequestBuilder, String> {
    let mut request = client.post(webhook.url.reveal(env)?);
    for (name, value) in &webhook.headers {
        request = request.header(name, value.reveal(env)?);
    }
    Ok(request)
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
            let found = found.iter().map(|subject| alarm(subject)).collect();
            let tell = transitions(&mut told, found, day, at(now));
            let tell =
                tell.into_iter().map(|(alarm, status)| format!("{} {status}", alarm.subject));
            tell.collect::<Vec<_>>()
        };
        assert_eq!(what(&["a"], 0), ["a firing"]);
        assert_eq!(what(&["a", "b"], 1), ["b firing"]);
        assert!(what(&["a", "b"], 99).is_empty());
        assert_eq!(what(&["a", "b"], 100), ["a firing"]);
        assert_eq!(what(&["b"], 101), ["a resolved", "b firing"]);
        assert_eq!(what(&[], 102), ["b resolved"]);
        assert!(what(&[], 103).is_empty());
    }

    #[test]
    fn everybody_is_told_as_he_wants() {
        let told = |format, status| body(format, &alarm("daily"), status);
        let json = told(WebhookFormat::Json, "firing");
        assert_eq!((&json["status"], &json["name"]), (&json!("firing"), &json!("JobFailed")));
        let alerts = told(WebhookFormat::Alertmanager, "firing");
        assert_eq!(alerts[0]["labels"]["alertname"], "RekindleJobFailed");
        assert!(alerts[0].get("endsAt").is_none());
        assert!(told(WebhookFormat::Alertmanager, "resolved")[0]["endsAt"].is_string());
        let text = told(WebhookFormat::Text, "firing");
        assert_eq!(text["text"], "JobFailed (prod, daily): it failed. What to do: mend it");
        assert_eq!(told(WebhookFormat::Text, "resolved")["text"], "Over: JobFailed (prod, daily)");
    }
}
