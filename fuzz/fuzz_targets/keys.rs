//! Any bytes as what an archive keeps of its keys, or a user hands over: after a first byte that says
//! what, the text of a secret, a key file, `archive.json`, or a sealed key. What a reader takes, its
//! writer writes so that it is read as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rekindle_archive::format::header::Moment;
use rekindle_archive::format::keys::SecretText;
use rekindle_archive::format::{Domain, Fingerprint};
use rekindle_archive::{
    Archive, Identity, Protection, Recipient, Sealing, Signer, SigningKey, Store,
};
use std::sync::OnceLock;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => secret(bytes),
        1 => key_file(bytes),
        2 => archive_file(bytes),
        _ => key_object(bytes),
    }
});

fn secret(bytes: &[u8]) {
    let Ok(text) = SecretText::parse(bytes) else { return };
    assert_eq!(text.encode().as_slice(), bytes, "a secret has one text");
}

fn key_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for identity in Identity::parse_file(text).into_iter().flatten() {
        let again = Identity::parse_file(&identity.file_text()).expect("what was read is written");
        assert_eq!(again.len(), 1);
        assert_eq!(again.first().map(Identity::public), Some(identity.public()));
    }
    if let Ok(key) = SigningKey::parse_file(text) {
        let again = SigningKey::parse_file(&key.file_text()).expect("what was read is written");
        assert_eq!(again.public(), key.public());
    }
    if let Ok(recipient) = text.parse::<Recipient>() {
        assert_eq!(recipient.to_string(), text);
    }
    if let Ok(signer) = text.parse::<Signer>() {
        assert_eq!(signer.to_string(), text);
    }
    if let Some(fingerprint) = Fingerprint::parse(text) {
        assert_eq!(fingerprint.to_string(), text);
    }
}

fn archive_file(bytes: &[u8]) {
    static STORE: OnceLock<Store> = OnceLock::new();
    let store = STORE.get_or_init(|| Store::memory().expect("memory"));
    store.remove("archive.json").expect("memory");
    store.create("archive.json", bytes.to_vec()).expect("memory");
    if let Ok(archive) = Archive::open(store.clone()) {
        let opened = archive.clone().with_identities(&[]);
        assert_eq!(opened.is_err(), archive.is_sealed(), "its keys are not there");
    }
}

/// An archive whose sealed key was lost, and somebody has put something in its place.
fn key_object(bytes: &[u8]) {
    static ARCHIVE: OnceLock<(Archive, Identity)> = OnceLock::new();
    let (archive, owner) = ARCHIVE.get_or_init(|| {
        let owner = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
        let owner = Identity::parse_file(owner).expect("an identity").remove(0);
        let sealing = Sealing::To(vec![owner.public()]);
        let protection = Protection { sealing, signers: Vec::new() };
        let store = Store::memory().expect("memory");
        (Archive::init(store, Moment(0), &protection).expect("an archive"), owner)
    });
    let store = archive.store();
    for old in store.list("keys").expect("memory") {
        store.remove(&old.name).expect("memory");
    }
    let digest = Domain::KeyObject.digest(&[bytes]);
    let id: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    store.create(&format!("keys/{:020}-{id}.age", 1), bytes.to_vec()).expect("memory");
    let opened = archive.clone().with_identities(std::slice::from_ref(owner));
    assert!(opened.is_err(), "nobody knows the secret any more");
}
