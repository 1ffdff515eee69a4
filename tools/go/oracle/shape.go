package main

import (
	"math/rand/v2"
	"slices"
)

// shape is a job of generate: what the database looks like. All but path and seed are drawn from
// the seed; whatever the job states goes before that.
type shape struct {
	job
	Seed uint64 `json:"seed"`

	PageSize int `json:"page_size"`
	// SyncFreelist writes the freelist, which etcd on Linux does not.
	SyncFreelist bool `json:"sync_freelist"`
	// Snapshot writes the file as the Snapshot RPC sends it: metas as bbolt copies them, and 32
	// bytes of SHA-256 at the end.
	Snapshot bool `json:"snapshot"`
	// FillPercent is how full bbolt leaves the pages that it splits.
	FillPercent float64 `json:"fill_percent"`
	// Missing are buckets that the file does not have.
	Missing []string `json:"missing"`
	// Nested adds a bucket `nested` with buckets inside, inline and not, this deep: bbolt's right,
	// though etcd has none.
	Nested int `json:"nested"`

	// Version is the etcd release that wrote it: 3.4, 3.5, 3.6 or 3.7.
	Version string `json:"version"`
	// Keys is how many distinct keys the transactions choose from.
	Keys         int `json:"keys"`
	Transactions int `json:"transactions"`
	OpsMax       int `json:"ops_max"`
	ValueMax     int `json:"value_max"`
	// DeletePercent of the operations on a living key delete it.
	DeletePercent int `json:"delete_percent"`
	// CommitEvery is the mean number of transactions that one bbolt commit carries.
	CommitEvery int `json:"commit_every"`
	// Compaction is the last one's state: "none", "scheduled" (nothing removed yet), "half" (some
	// records removed), "finished". Unless it is "none", finished ones went before.
	Compaction string `json:"compaction"`
	// KeepTombstone keeps one that lies at the compact revision itself, as 3.4.34, 3.5.16 and 3.6 do.
	KeepTombstone bool `json:"keep_tombstone"`
	// Bump is what a restore with a revision bump added, 0 for none. Booted: etcd ran after it.
	Bump       int64 `json:"bump"`
	BumpBooted bool  `json:"bump_booted"`

	Leases  int `json:"leases"`
	Users   int `json:"users"`
	Roles   int `json:"roles"`
	Alarms  int `json:"alarms"`
	Members int `json:"members"`
	Removed int `json:"removed"`
}

var bucketNames = []string{
	"alarm", "auth", "authRoles", "authUsers", "cluster", "key", "lease", "members", "members_removed", "meta",
}

func drawShape(seed uint64) shape {
	r := rand.New(rand.NewPCG(seed, 1))
	s := shape{
		Seed:          seed,
		PageSize:      pick(r, 4096, 4096, 16384, 65536),
		SyncFreelist:  oneIn(r, 3),
		Snapshot:      oneIn(r, 3),
		FillPercent:   pick(r, 0.5, 0.9, 1.0),
		Missing:       []string{},
		Version:       pick(r, "3.4", "3.5", "3.6", "3.7"),
		Keys:          1 + upTo(r, 1000),
		Transactions:  upTo(r, 3000),
		OpsMax:        pick(r, 1, 1, 4, 30),
		ValueMax:      pick(r, 0, 50, 2000, 10_000, 300_000),
		DeletePercent: pick(r, 0, 10, 50),
		CommitEvery:   1 + upTo(r, 100),
		Compaction:    pick(r, "none", "scheduled", "half", "finished"),
		KeepTombstone: oneIn(r, 2),
		Leases:        sometimes(r, 200),
		Users:         sometimes(r, 40),
		Roles:         sometimes(r, 40),
		Alarms:        pick(r, 0, 0, 0, 1, 3),
		Members:       pick(r, 0, 1, 3, 5, 40),
		Removed:       sometimes(r, 100),
	}
	if oneIn(r, 5) {
		s.Bump = pick(r, int64(1), 1_000_000, 1_000_000_000)
		s.BumpBooted = oneIn(r, 2)
	}
	for _, name := range bucketNames {
		if oneIn(r, 25) {
			s.Missing = append(s.Missing, name)
		}
	}
	return s
}

func (s *shape) has(bucket string) bool {
	return !slices.Contains(s.Missing, bucket)
}

func pick[T any](r *rand.Rand, choices ...T) T {
	return choices[r.IntN(len(choices))]
}

func oneIn(r *rand.Rand, n int) bool {
	return r.IntN(n) == 0
}

// upTo draws from 0..=limit, with small numbers as likely as large ones: most faults live there.
func upTo(r *rand.Rand, limit int) int {
	for limit > 1 && oneIn(r, 3) {
		limit /= 8
	}
	return r.IntN(limit + 1)
}

// sometimes is zero half of the time.
func sometimes(r *rand.Rand, limit int) int {
	if oneIn(r, 2) {
		return 0
	}
	return upTo(r, limit)
}
