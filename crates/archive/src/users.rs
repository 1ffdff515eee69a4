//! Who may do what in a cluster. Bases alone know it: a watch tells nothing of users and roles.

use crate::error::Error;
use crate::format::base::Base;
use crate::frame::Frame;
use rekindle_etcd::schema;
use std::collections::BTreeSet;
use std::fmt;

/// What a return to an earlier base would make of that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsersDrift {
    /// Whoever asks would be served, and later had to say who he is.
    pub opens: bool,
    /// Users and roles that were removed or changed later, and would be as they were before: `user eve`,
    /// `role ops`. A change may be one of a password that had become known, or a permission that was revoked.
    pub reverted: Vec<String>,
}

/// Whose users, roles and passwords a restore brings back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsersFrom {
    /// Those of the restore point.
    Point,
    /// Those of the newest base.
    Latest,
}

impl Base {
    /// What taking users and roles of this one would make of those of a later base; none where nobody can
    /// get rights by it that he has no more.
    ///
    /// # Errors
    /// The frame of one is damaged.
    pub fn users_drift(&self, later: &Self) -> Result<Option<UsersDrift>, Error> {
        let (then, now) = (Users::of(self)?, Users::of(later)?);
        let drift = UsersDrift {
            opens: now.enabled && !then.enabled,
            reverted: then.records.difference(&now.records).map(Record::to_string).collect(),
        };
        // Where nobody is asked who he is, users count for nothing.
        let is_worse = drift.opens || (now.enabled && !drift.reverted.is_empty());
        Ok(is_worse.then_some(drift))
    }

    /// Whether it has any user.
    ///
    /// # Errors
    /// Its frame is damaged.
    pub fn has_users(&self) -> Result<bool, Error> {
        Ok(!Frame::parse(&self.frame)?.0.pairs(schema::AUTH_USERS).is_empty())
    }

    /// With the users of that base or this one. Where they differ, the revision of authentication is above
    /// both, so that no token that was given out since is taken for a new one.
    ///
    /// # Errors
    /// The frame of one is damaged.
    pub fn with_users(self, from: UsersFrom, later: &Self) -> Result<Self, Error> {
        let (mut frame, page_size) = Frame::parse(&self.frame)?;
        let (theirs, _) = Frame::parse(&later.frame)?;
        let (then, now) = (Users::in_frame(&frame).revision, Users::in_frame(&theirs).revision);
        if from == UsersFrom::Latest {
            for bucket in [schema::AUTH, schema::AUTH_USERS, schema::AUTH_ROLES] {
                frame.replace(bucket, theirs.pairs(bucket).to_vec());
            }
        }
        if let Some(revision) = then.max(now).filter(|_| then != now) {
            let key = schema::auth::REVISION;
            let mut auth = frame.pairs(schema::AUTH).to_vec();
            auth.retain(|(name, _)| name != key);
            auth.push((key.to_vec(), revision.saturating_add(1).to_be_bytes().to_vec()));
            auth.sort();
            frame.replace(schema::AUTH, auth);
        }
        Ok(Self { frame: frame.to_file(page_size)?, ..self })
    }
}

/// Of a frame.
struct Users {
    enabled: bool,
    revision: Option<u64>,
    records: BTreeSet<Record>,
}

/// A user with his password and roles, or a role with its permissions.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Record {
    is_role: bool,
    name: Vec<u8>,
    content: Vec<u8>,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_role { "role" } else { "user" };
        write!(f, "{what} {}", String::from_utf8_lossy(&self.name).escape_debug())
    }
}

impl Users {
    fn of(base: &Base) -> Result<Self, Error> {
        Ok(Self::in_frame(&Frame::parse(&base.frame)?.0))
    }

    fn in_frame(frame: &Frame) -> Self {
        let auth = frame.pairs(schema::AUTH);
        let value = |key: &[u8]| auth.iter().find(|(it, _)| it == key).map(|(_, value)| &value[..]);
        let revision = value(schema::auth::REVISION).and_then(|it| it.try_into().ok());
        let records = |bucket, is_role| {
            let pairs = frame.pairs(bucket).iter().cloned();
            pairs.map(move |(name, content)| Record { is_role, name, content })
        };
        let users = records(schema::AUTH_USERS, false);
        Self {
            enabled: value(schema::auth::ENABLED) == Some(&[1]),
            revision: revision.map(u64::from_be_bytes),
            records: users.chain(records(schema::AUTH_ROLES, true)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle_bolt::Pair;

    /// A base whose cluster asks who one is or not, at that revision of authentication, with those users,
    /// whose passwords stand behind a colon, and roles, whose permissions do.
    fn base(enabled: bool, revision: u64, users: &[&str]) -> Base {
        let mut frame = Frame::default();
        let mut add = |bucket, key: &[u8], value: &[u8]| {
            frame.add(bucket, Pair { key, value, is_bucket: false }).unwrap();
        };
        add(schema::KEY, &[0; 17], b"x");
        add(schema::AUTH, schema::auth::ENABLED, &[u8::from(enabled)]);
        add(schema::AUTH, schema::auth::REVISION, &revision.to_be_bytes());
        for (bucket, records) in [(schema::AUTH_USERS, users), (schema::AUTH_ROLES, &["ops:write"])]
        {
            for record in records {
                let (name, content) = record.split_once(':').unwrap_or((record, "secret"));
                add(bucket, name.as_bytes(), content.as_bytes());
            }
        }
        let frame = frame.to_file(4096).unwrap();
        Base { hash: 0, kubernetes: false, erased: 0, parts: Vec::new(), frame }
    }

    #[test]
    fn more_rights_than_now_are_told() {
        let check = |then: &Base, now: &Base, opens: bool, reverted: Option<&[&str]>| {
            let reverted = reverted.map(|names| names.iter().map(|&it| it.to_owned()).collect());
            let want = reverted.map(|reverted| UsersDrift { opens, reverted });
            assert_eq!(then.users_drift(now).unwrap(), want);
        };
        let (open, closed) = (base(false, 1, &[]), base(true, 7, &["root"]));
        check(&open, &closed, true, Some(&[]));
        check(&closed, &open, false, None);
        check(&closed, &closed, false, None);
        check(&base(true, 3, &["eve", "root"]), &closed, false, Some(&["user eve"]));
        check(&base(true, 3, &["root:old"]), &closed, false, Some(&["user root"]));
        check(&closed, &base(true, 9, &["adam", "root"]), false, None);
        check(&base(false, 3, &["eve"]), &open, false, None);
    }

    #[test]
    fn users_that_are_the_same_stay_as_they_are() {
        let base = base(true, 3, &["root"]);
        let users = base.clone().with_users(UsersFrom::Point, &base).unwrap();
        assert_eq!(Users::of(&users).unwrap().revision, Some(3));
    }

    #[test]
    fn users_of_either_get_a_revision_above_both() {
        let (then, now) = (base(true, 3, &["eve", "root"]), base(true, 7, &["root"]));
        for (from, want) in
            [(UsersFrom::Point, &["eve", "root"][..]), (UsersFrom::Latest, &["root"])]
        {
            let users = Users::of(&then.clone().with_users(from, &now).unwrap()).unwrap();
            let records = users.records.iter().filter(|record| !record.is_role);
            let names: Vec<_> = records.map(|it| str::from_utf8(&it.name).unwrap()).collect();
            assert_eq!((users.enabled, users.revision, &names[..]), (true, Some(8), want));
        }
    }
}
