//! What a client makes of servers that misbehave.

use std::time::Duration;

use rekindle_client::{Client, Code, Config, DialFault, Error, SnapshotStream, TlsFault, TlsFiles};
use rekindle_testkit::doubles::{Ending, SnapshotDouble, SnapshotScript};
use sha2::{Digest, Sha256};

const STALL: Duration = Duration::from_millis(500);

async fn snapshot(double: &SnapshotDouble) -> SnapshotStream {
    let mut config = Config::new([double.url()]);
    config.timeouts.stall = STALL;
    let client = Client::new(config).expect("a valid endpoint");
    client.members()[0].snapshot().await.expect("it answers")
}

/// All pieces until the end, and the error that came instead of it.
async fn drain(stream: &mut SnapshotStream) -> (Vec<u8>, Option<Error>) {
    let mut whole = Vec::new();
    loop {
        match stream.next().await {
            Ok(Some(chunk)) => whole.extend_from_slice(&chunk.blob),
            Ok(None) => return (whole, None),
            Err(error) => return (whole, Some(error)),
        }
    }
}

#[tokio::test]
async fn a_sound_stream() {
    let script = SnapshotScript::sound(100);
    let double = SnapshotDouble::start(script.clone());
    let (whole, error) = drain(&mut snapshot(&double).await).await;
    assert_eq!(error, None);
    let (data, digest) = whole.split_at(whole.len() - 32);
    assert_eq!(data, script.data());
    assert_eq!(&Sha256::digest(data)[..], digest);
}

#[tokio::test]
async fn a_slow_stream_never_fails() {
    // Twenty times a third of the stall's time: all of it takes several stalls.
    let script = SnapshotScript::sound(19).dripping(STALL / 3);
    let double = SnapshotDouble::start(script.clone());
    let (whole, error) = drain(&mut snapshot(&double).await).await;
    assert_eq!((whole.len(), error), (script.data().len() + 32, None));
}

#[tokio::test]
async fn a_stalled_stream_fails_and_says_how_far_it_came() {
    let double = SnapshotDouble::start(SnapshotScript::sound(10).ending(Ending::StallAfter(3)));
    let (whole, error) = drain(&mut snapshot(&double).await).await;
    match error {
        Some(Error::Stalled { call: "Snapshot", after, received, .. }) => {
            assert_eq!((after, received), (STALL, whole.len() as u64));
            assert_eq!(received, 3 * 32 * 1024);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_cut_stream_is_an_error_and_an_early_end_is_not() {
    let double = SnapshotDouble::start(SnapshotScript::sound(10).ending(Ending::CutAfter(3)));
    let (_, error) = drain(&mut snapshot(&double).await).await;
    assert!(matches!(error, Some(Error::Lost { .. })), "{error:?}");

    // Only the digest tells; that is for the reader to look at.
    let double = SnapshotDouble::start(SnapshotScript::sound(10).ending(Ending::EndAfter(3)));
    let (whole, error) = drain(&mut snapshot(&double).await).await;
    assert_eq!((whole.len(), error), (3 * 32 * 1024, None));
}

#[tokio::test]
async fn a_wrong_digest_is_passed_on_as_it_is() {
    let script = SnapshotScript::sound(2).ending(Ending::WrongDigest);
    let double = SnapshotDouble::start(script.clone());
    let (whole, error) = drain(&mut snapshot(&double).await).await;
    assert_eq!(error, None);
    assert_ne!(&Sha256::digest(script.data())[..], &whole[whole.len() - 32..]);
}

#[tokio::test]
async fn a_server_that_says_nothing() {
    // The system takes the connection on its behalf, and it never comes to look.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let short = Duration::from_millis(200);
    let error_at = async |url: String, command: Duration| {
        let mut config = Config::new([url]);
        (config.timeouts.dial, config.timeouts.command) = (short, command);
        config.tls = Some(TlsFiles { insecure_skip_verify: true, ..TlsFiles::default() });
        let client = Client::new(config).expect("a valid endpoint");
        client.members()[0].status().await.expect_err("nobody answers")
    };
    let patient = Duration::from_secs(20);
    let error = error_at(format!("https://{address}"), patient).await;
    let fault = DialFault::TimedOut(short);
    assert!(matches!(&error, Error::Unreachable { fault: at, .. } if *at == fault), "{error}");
    let error = error_at(format!("http://{address}"), short).await;
    assert!(matches!(error, Error::Deadline { call: "Status", .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_is_no_etcd() {
    let double = SnapshotDouble::start(SnapshotScript::sound(0));
    let client = Client::new(Config::new([double.url()])).expect("a valid endpoint");
    let error = client.members()[0].status().await.expect_err("it knows no status");
    assert!(matches!(error, Error::Rpc { code: Code::Unimplemented, .. }), "{error}");

    let secure = double.url().replace("http://", "https://");
    let mut config = Config::new([secure]);
    config.tls = Some(TlsFiles { insecure_skip_verify: true, ..TlsFiles::default() });
    let client = Client::new(config).expect("a valid endpoint");
    let error = client.members()[0].status().await.expect_err("it speaks no TLS");
    assert!(
        matches!(&error, Error::Tls { fault, .. } if **fault == TlsFault::PeerIsPlain),
        "{error}"
    );
}
