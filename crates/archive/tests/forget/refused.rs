//! What cannot be read, or must not be written: nothing is erased then, and nothing is taken for damaged
//! that is not.

use crate::keyspaces::{Keyspace, Saving, advance, all_of, forget, now, now_is};
use crate::{HOUR, names};
use rekindle_archive::{
    Archive, Error, Forgotten, Identity, Policy, Protection, PruneRequest, RekeyRequest, Sealing,
    Signer, SigningKey, Store, plan_prune,
};

fn sealed_to(owner: &Identity, signers: Vec<Signer>) -> Archive {
    let protection = Protection { sealing: Sealing::To(vec![owner.public()]), signers };
    Archive::init(Store::memory().unwrap(), now_is(), &protection).unwrap()
}

fn all_objects(archive: &Archive) -> Vec<(String, u64)> {
    let listed = archive.store().list("").unwrap();
    listed.into_iter().map(|it| (it.name, it.bytes)).collect()
}

#[track_caller]
fn check_refused(archive: &Archive, what: &Forgotten, want: &str) -> Error {
    let before = all_objects(archive);
    let refused = forget(archive, what, &now).unwrap_err();
    assert!(refused.to_string().contains(want), "{refused}");
    assert!(all_objects(archive) == before, "something was changed");
    refused
}

/// A segment that is sealed to keys that are not at hand once counted as damaged, and went.
#[test]
fn what_another_identity_opens_is_not_damaged() {
    let (one, two) = (Identity::generate(), Identity::generate());
    let mut saving = Saving::new();
    saving.archive = sealed_to(&one, Vec::new());
    let mut keyspace = Keyspace::new();
    for _ in 0..2 {
        keyspace.write(&[("/key", false)], 40);
        saving.save(&keyspace);
        advance(HOUR);
    }
    assert_eq!(names(&saving.archive, ".seg").len(), 1);
    let owned = saving.archive.clone().with_identities(std::slice::from_ref(&one)).unwrap();
    let (add, remove) = (vec![two.public()], vec![one.public()]);
    let plan = owned.plan_rekey(&RekeyRequest { add, remove, ..RekeyRequest::default() }).unwrap();
    saving.archive = owned.rekey(&plan, now_is()).unwrap();
    keyspace.write(&[("/key", false)], 40);
    saving.try_save(&keyspace, None).unwrap();
    // The older bases go, and the log stays.
    let policy = Policy { log: Some(30 * 24 * HOUR), last: 1, ..Policy::default() };
    let owned = saving.archive.clone().with_identities(&[one, two.clone()]).unwrap();
    for _ in 0..3 {
        let policy = policy.clone();
        let request = PruneRequest { policy, bases_max: 10, grace: 0, now: now_is() };
        plan_prune(&owned, &request).unwrap().carry_out(&owned).unwrap();
        advance(25 * HOUR);
    }
    for key in saving.archive.store().list("keys").unwrap() {
        if key.name.starts_with("keys/00000000000000000001-") {
            saving.archive.store().remove(&key.name).unwrap();
        }
    }
    let reopened = Archive::open(saving.archive.store().clone()).unwrap();
    let second = reopened.with_identities(&[two]).unwrap();
    check_refused(&second, &all_of("/no/such/key"), "sealed to generation 1");
}

#[test]
fn what_cannot_be_read_and_is_needed() {
    for end in [".base", ".pack"] {
        let saving = Saving::new();
        let mut keyspace = Keyspace::new();
        keyspace.write(&[("/secret", false), ("/key", false)], 40);
        saving.save(&keyspace);
        let name = names(&saving.archive, end).remove(0);
        saving.archive.store().remove(&name).unwrap();
        saving.archive.store().create(&name, b"rekindle".to_vec()).unwrap();
        check_refused(&saving.archive, &all_of("/secret"), &name);
    }
}

#[test]
fn without_what_it_needs_to_write() {
    let (owner, key) = (Identity::generate(), SigningKey::generate().unwrap());
    let mut saving = Saving::new();
    let archive = sealed_to(&owner, vec![key.public()]);
    saving.archive = archive.with_signing_key(key).unwrap();
    let mut keyspace = Keyspace::new();
    keyspace.write(&[("/secret", false), ("/key", false)], 40);
    saving.save(&keyspace);
    let reopened = Archive::open(saving.archive.store().clone()).unwrap();
    let unsigned = reopened.with_identities(std::slice::from_ref(&owner)).unwrap();
    let refused = check_refused(&unsigned, &all_of("/secret"), "no signing key was given");
    assert!(matches!(refused, Error::NoSigningKey { .. }));

    let open = saving.archive.clone().with_identities(&[owner]).unwrap();
    for key in open.store().list("keys").unwrap() {
        open.store().remove(&key.name).unwrap();
    }
    let refused = check_refused(&open, &all_of("/secret"), "the secret of its keys is gone");
    assert!(matches!(refused, Error::KeysGone { .. }));
}
