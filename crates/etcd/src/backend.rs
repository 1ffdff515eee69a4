//! etcd's backend: a bbolt file whose buckets are etcd's, and what its small buckets say.

use crate::digest::Sha256Digest;
use crate::error::{Error, PairFault, RecordDamage, text_of};
use crate::ids::{MemberId, RaftIndex, RaftTerm};
use crate::membership::Member;
use crate::revision::{RecordKey, Revision};
use crate::schema;
use crate::status::read_record;
use crate::version::{Marks, Version};
use crate::wire::{Fields, WireFault};
use rekindle_bolt::{Bucket, Db, ReadAt, Scan};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Most bytes of keys and values that are read of a bucket that should be small.
const SMALL_BUCKET_MAX: usize = 16 << 20;

/// An opened backend. Read only.
#[derive(Debug)]
pub struct Backend<S> {
    db: Db<S>,
}

/// How far the compaction of old records has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compaction {
    /// The compaction asked for last; its records may still be there.
    pub scheduled: Option<Revision>,
    /// The compaction that was carried out last.
    pub finished: Option<Revision>,
}

impl Compaction {
    /// The compact revision that a server started on this database has: it resumes what was
    /// scheduled. `None` where nothing was ever compacted (servers say -1).
    #[must_use]
    pub fn revision(self) -> Option<Revision> {
        self.scheduled.max(self.finished)
    }
}

/// An alarm that a member has raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Alarm {
    /// The member.
    pub member: MemberId,
    /// What for.
    pub kind: AlarmKind,
}

impl Alarm {
    /// Reads a key of the `alarm` bucket, which is all that there is of an alarm (etcd
    /// `schema/alarm.go`).
    pub(crate) fn parse(key: &[u8]) -> Result<Self, WireFault> {
        let mut alarm = Self { member: MemberId(0), kind: AlarmKind::Other(0) };
        for field in Fields::of(key) {
            let field = field?;
            match field.number {
                1 => alarm.member = MemberId(field.uint64()?),
                2 => {
                    alarm.kind = match field.int64()? {
                        1 => AlarmKind::NoSpace,
                        2 => AlarmKind::Corrupt,
                        other => AlarmKind::Other(other),
                    };
                }
                _ => {}
            }
        }
        Ok(alarm)
    }
}

/// What an alarm is raised for (etcd `api/etcdserverpb/rpc.proto`, AlarmType).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AlarmKind {
    /// The database has reached its quota; writes are refused.
    NoSpace,
    /// Members were found to differ; everything is refused.
    Corrupt,
    /// A kind that this program does not know.
    Other(i64),
}

/// Authentication as the `auth` bucket has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    /// Clients must authenticate.
    pub enabled: bool,
    /// Grows with each change of users and roles.
    pub revision: Option<u64>,
}

/// A downgrade as the `cluster` bucket has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Downgrade {
    /// It is under way.
    pub enabled: bool,
    /// To which version.
    pub target: String,
}

/// What the small buckets of a database say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The greatest record key; `None` where there is no record.
    pub last_record: Option<RecordKey>,
    /// How far compaction has come.
    pub compaction: Compaction,
    /// The raft index applied last.
    pub consistent_index: Option<RaftIndex>,
    /// The raft term of that index (since 3.5).
    pub term: Option<RaftTerm>,
    /// Which etcd wrote it.
    pub marks: Marks,
    /// Members by ascending key.
    pub members: Vec<Member>,
    /// Alarms that are raised.
    pub alarms: Vec<Alarm>,
    /// Authentication.
    pub auth: Auth,
    /// A downgrade that was asked for.
    pub downgrade: Option<Downgrade>,
}

impl Facts {
    /// The revision that a server started on this database has: at least that of the last record,
    /// and of a compaction that outlived it (issue 17780).
    #[must_use]
    pub fn revision(&self) -> Revision {
        let last = self.last_record.map(|key| key.revision);
        last.max(self.compaction.revision()).unwrap_or_default().max(Revision::FIRST)
    }
}

impl<S: ReadAt> Backend<S> {
    /// Opens a database and makes sure that it is etcd's.
    ///
    /// # Errors
    /// [`Error::Bolt`], [`Error::NotEtcd`].
    pub fn open(source: S) -> Result<Self, Error> {
        let backend = Self { db: Db::open(source)? };
        backend.bucket(schema::KEY)?.ok_or(Error::NotEtcd)?;
        Ok(backend)
    }

    /// The file below.
    #[must_use]
    pub fn db(&self) -> &Db<S> {
        &self.db
    }

    /// What tells this database from others where it has no digest: a SHA-256 over the meta in
    /// force. Copies of one file have the same; members of one cluster do not.
    #[must_use]
    pub fn identity(&self) -> Sha256Digest {
        let meta = self.db.meta();
        let mut sha = Sha256::new();
        for number in [meta.root.0, meta.high_water.0, meta.txid.0, meta.page_size as u64] {
            sha.update(number.to_be_bytes());
        }
        Sha256Digest(sha.finalize().into())
    }

    /// The bucket of that name.
    ///
    /// # Errors
    /// [`Error::Bolt`].
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket>, Error> {
        Ok(self.db.bucket(&self.db.root(), name)?)
    }

    /// The bucket of records.
    pub(crate) fn key_bucket(&self) -> Result<Bucket, Error> {
        self.bucket(schema::KEY)?.ok_or(Error::NotEtcd)
    }

    /// Reads all small buckets.
    ///
    /// # Errors
    /// [`Error::Bolt`]; [`Error::Pair`] for a value that etcd could not read;
    /// [`Error::Record`] where the last record's key is none; [`Error::BucketTooLarge`].
    pub fn facts(&self) -> Result<Facts, Error> {
        let meta = Small::read(self, schema::META, "meta")?;
        let cluster = Small::read(self, schema::CLUSTER, "cluster")?;
        let auth = Small::read(self, schema::AUTH, "auth")?;
        let has_term = meta.get(schema::meta::TERM).is_some();
        Ok(Facts {
            last_record: self.last_record()?,
            compaction: Compaction {
                scheduled: meta.revision(schema::meta::SCHEDULED_COMPACTION)?,
                finished: meta.revision(schema::meta::FINISHED_COMPACTION)?,
            },
            consistent_index: meta.number(schema::meta::CONSISTENT_INDEX)?.map(RaftIndex),
            term: meta.number(schema::meta::TERM)?.map(RaftTerm),
            marks: Marks {
                storage: meta.version(schema::meta::STORAGE_VERSION)?,
                cluster: cluster.version(schema::cluster::VERSION)?,
                has_term,
            },
            members: self.members()?,
            alarms: self.alarms()?,
            auth: Auth {
                enabled: auth.get(schema::auth::ENABLED) == Some(&[1]),
                revision: auth.number(schema::auth::REVISION)?,
            },
            downgrade: cluster.downgrade()?,
        })
    }

    /// Keys of Kubernetes are among the records: looked for in the first, the last and up to 64
    /// leaves between, so that it costs next to nothing.
    ///
    /// # Errors
    /// [`Error::Bolt`], [`Error::Record`] for what is damaged where it looks.
    pub fn holds_kubernetes(&self) -> Result<bool, Error> {
        let bucket = self.key_bucket()?;
        if leaf_holds_kubernetes(&mut Scan::new(&self.db, &bucket))? {
            return Ok(true);
        }
        let last = self.last_record()?.map_or(0, |key| key.revision.get());
        for sample in (1..=KUBERNETES_SAMPLES).rev() {
            let revision = Revision::new(last / KUBERNETES_SAMPLES * sample).unwrap_or_default();
            let key = RecordKey::first_of(revision).to_bytes();
            if leaf_holds_kubernetes(&mut Scan::starting_at(&self.db, &bucket, &key))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn last_record(&self) -> Result<Option<RecordKey>, Error> {
        let last = self.db.last_key(&self.key_bucket()?)?;
        last.map(|key| {
            RecordKey::parse(&key).map_err(|fault| RecordDamage { key, fault: fault.into() }.into())
        })
        .transpose()
    }

    fn members(&self) -> Result<Vec<Member>, Error> {
        let small = Small::read(self, schema::MEMBERS, "members")?;
        let parse = |(key, value): &(Vec<u8>, Vec<u8>)| {
            let what = "a member with id and peerURLs";
            Member::parse_json(value).ok_or_else(|| small.fault(key, PairFault::Json { what }))
        };
        small.pairs.iter().map(parse).collect()
    }

    fn alarms(&self) -> Result<Vec<Alarm>, Error> {
        let small = Small::read(self, schema::ALARM, "alarm")?;
        let parse = |(key, _): &(Vec<u8>, Vec<u8>)| {
            Alarm::parse(key).map_err(|fault| small.fault(key, fault))
        };
        small.pairs.iter().map(parse).collect()
    }
}

/// Leaves that are looked into for keys of Kubernetes.
const KUBERNETES_SAMPLES: i64 = 64;

fn leaf_holds_kubernetes<S: ReadAt>(scan: &mut Scan<'_, S>) -> Result<bool, Error> {
    let Some(leaf) = scan.next_leaf()? else { return Ok(false) };
    for pair in leaf.pairs() {
        let (_, kv) =
            read_record(pair).map_err(|fault| RecordDamage { key: pair.key.to_vec(), fault })?;
        if schema::is_kubernetes(kv.key) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A small bucket, whole.
struct Small {
    name: &'static str,
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Small {
    /// Reads a bucket; one that is missing is empty.
    fn read<S: ReadAt>(
        backend: &Backend<S>,
        bucket: &[u8],
        name: &'static str,
    ) -> Result<Self, Error> {
        let mut pairs = Vec::new();
        let mut bytes = 0;
        if let Some(bucket) = backend.bucket(bucket)? {
            let mut scan = Scan::new(&backend.db, &bucket);
            while let Some(leaf) = scan.next_leaf()? {
                for pair in leaf.pairs() {
                    bytes += pair.key.len() + pair.value.len();
                    if bytes > SMALL_BUCKET_MAX {
                        return Err(Error::BucketTooLarge { bucket: name, max: SMALL_BUCKET_MAX });
                    }
                    pairs.push((pair.key.to_vec(), pair.value.to_vec()));
                }
            }
        }
        Ok(Self { name, pairs })
    }

    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.pairs.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_slice())
    }

    fn fault(&self, key: &[u8], fault: impl Into<PairFault>) -> Error {
        Error::Pair { bucket: self.name, key: text_of(key), fault: fault.into() }
    }

    fn number(&self, key: &[u8]) -> Result<Option<u64>, Error> {
        let parse = |value: &[u8]| {
            let bytes = value
                .try_into()
                .map_err(|_| self.fault(key, PairFault::Length { got: value.len(), want: 8 }))?;
            Ok(u64::from_be_bytes(bytes))
        };
        self.get(key).map(parse).transpose()
    }

    fn revision(&self, key: &[u8]) -> Result<Option<Revision>, Error> {
        let parse = |value| RecordKey::parse(value).map_err(|fault| self.fault(key, fault));
        Ok(self.get(key).map(parse).transpose()?.map(|key| key.revision))
    }

    fn version(&self, key: &[u8]) -> Result<Option<Version>, Error> {
        let parse = |value| {
            let text = String::from_utf8_lossy(value).into_owned();
            Version::parse(&text).ok_or_else(|| self.fault(key, PairFault::Version { got: text }))
        };
        self.get(key).map(parse).transpose()
    }

    /// Source: etcd `server/etcdserver/version/downgrade.go`, DowngradeInfo.
    fn downgrade(&self) -> Result<Option<Downgrade>, Error> {
        let key = schema::cluster::DOWNGRADE;
        let parse = |value| {
            let what = "an object with target-version and enabled";
            let object = serde_json::from_slice::<Value>(value).ok().filter(Value::is_object);
            let object = object.ok_or_else(|| self.fault(key, PairFault::Json { what }))?;
            let target = object.get("target-version").and_then(Value::as_str).unwrap_or_default();
            let enabled = object.get("enabled").and_then(Value::as_bool).unwrap_or_default();
            Ok(Downgrade { enabled, target: target.to_owned() })
        };
        self.get(key).map(parse).transpose()
    }
}
