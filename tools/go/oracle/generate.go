package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// generated is what is known of a database by having made it.
type generated struct {
	Shape     shape `json:"shape"`
	Size      int64 `json:"size"`
	Revision  int64 `json:"revision"`
	Scheduled int64 `json:"scheduled_compact_revision"`
	Finished  int64 `json:"finished_compact_revision"`
	// Records are those in the `key` bucket, of which some are of keys that no longer live.
	Records  int `json:"records"`
	LiveKeys int `json:"live_keys"`
}

// generate writes a database shaped as etcd's. Its content depends on the job alone; where bbolt
// puts the pages does not quite, as it walks Go maps when it merges and spills.
func generate(line []byte, _ string) (any, error) {
	var seed struct{ Seed uint64 }
	if err := json.Unmarshal(line, &seed); err != nil {
		return nil, err
	}
	s := drawShape(seed.Seed)
	if err := decode(line, &s); err != nil {
		return nil, err
	}
	w, err := create(s.Path, &s)
	if err != nil {
		return nil, err
	}
	k := newKeyspace(w, rand.New(rand.NewPCG(s.Seed, 2)), &s)
	k.live()
	k.fillAuth()
	k.fillMembership()
	k.fillMeta()
	k.fillNested()
	if err := w.close(); err != nil {
		return nil, err
	}
	if s.Snapshot {
		if err := asSnapshot(s.Path); err != nil {
			return nil, err
		}
	}
	return k.result()
}

func (k *keyspace) result() (any, error) {
	info, err := os.Stat(k.shape.Path)
	if err != nil {
		return nil, err
	}
	result := generated{
		Shape: *k.shape, Size: info.Size(), Revision: k.revision,
		Scheduled: k.scheduled, Finished: k.finished, Records: len(k.records),
	}
	for _, state := range k.states {
		if state.live {
			result.LiveKeys++
		}
	}
	return result, nil
}

// live is the cluster's life: transactions in commits of random size, with leases and finished
// compactions between them, then the last compaction and the bump that the shape asks for.
func (k *keyspace) live() {
	leasesEvery := k.shape.Transactions/(k.shape.Leases+1) + 1
	for i := range k.shape.Transactions {
		if len(k.leases) < k.shape.Leases && i%leasesEvery == 0 {
			k.grant()
		}
		k.transact()
		if k.shape.Compaction != "none" && oneIn(k.rand, 700) {
			k.compact(k.drawRevision(), 1)
		}
		if oneIn(k.rand, k.shape.CommitEvery) {
			k.put("meta", []byte("consistent_index"), bigEndian(uint64(10+i)))
			k.commit()
		}
	}
	for len(k.leases) < k.shape.Leases {
		k.grant()
	}
	share := map[string]float64{"scheduled": 0, "half": 0.5, "finished": 1}
	if share, ok := share[k.shape.Compaction]; ok {
		k.compact(k.drawRevision(), share)
	}
	k.commit()
	if k.shape.Bump == 0 {
		return
	}
	k.bump(k.shape.Bump)
	if k.shape.BumpBooted {
		k.boot()
		for range k.rand.IntN(20) {
			k.transact()
		}
	}
	k.commit()
}

// drawRevision is one that was used, the current one as often as any older.
func (k *keyspace) drawRevision() int64 {
	if oneIn(k.rand, 2) {
		return k.revision
	}
	return 1 + k.rand.Int64N(k.revision)
}

func (k *keyspace) fillAuth() {
	enabled := byte(0)
	if k.shape.Users > 0 && oneIn(k.rand, 2) {
		enabled = 1
	}
	k.put("auth", []byte("authEnabled"), []byte{enabled})
	k.put("auth", []byte("authRevision"), bigEndian(1+uint64(k.shape.Users+k.shape.Roles)))
	for i := range k.shape.Roles {
		name := fmt.Sprintf("role-%d", i)
		var permissions []permission
		for range k.rand.IntN(5) {
			permissions = append(permissions, permission{k.rand.Uint64N(3), drawBytes(k.rand, 4), pick(k.rand, nil, []byte{0})})
		}
		k.put("authRoles", []byte(name), roleRecord(name, permissions))
	}
	for i := range k.shape.Users {
		name := pick(k.rand, "root", fmt.Sprintf("user-%d", i))
		// As long as a bcrypt hash is, which nothing here computes.
		password := pick(k.rand, nil, []byte("$2a$10$"+strings.Repeat("x", 53)))
		var roles []string
		for range k.rand.IntN(3) {
			roles = append(roles, fmt.Sprintf("role-%d", k.rand.IntN(k.shape.Roles+1)))
		}
		k.put("authUsers", []byte(name), userRecord(name, password, roles))
	}
	k.commit()
}

func (k *keyspace) fillMembership() {
	var ids []uint64
	for i := range k.shape.Members {
		id := k.rand.Uint64() >> pick(k.rand, 0, 0, 8) // A short id has fewer hex digits, not zeros.
		ids = append(ids, id)
		member := map[string]any{"id": id, "peerURLs": []string{fmt.Sprintf("https://10.0.0.%d:2380", i)}}
		if oneIn(k.rand, 4) {
			member["isLearner"] = true
		} else {
			member["name"] = fmt.Sprintf("member-%d", i)
			member["clientURLs"] = []string{fmt.Sprintf("https://10.0.0.%d:2379", i)}
		}
		text, err := json.Marshal(member)
		if err != nil {
			k.err = err
		}
		k.put("members", fmt.Appendf(nil, "%x", id), text)
	}
	for range k.shape.Removed {
		k.put("members_removed", fmt.Appendf(nil, "%x", k.rand.Uint64()), []byte("removed"))
	}
	for i := range k.shape.Alarms {
		ids = append(ids, k.rand.Uint64()) // An alarm may be of a member that is gone.
		k.put("alarm", alarmRecord(ids[i%len(ids)], 1+k.rand.Uint64N(2)), nil)
	}
	k.put("cluster", []byte("clusterVersion"), []byte(k.shape.Version+".0"))
	if k.shape.Version > "3.4" && oneIn(k.rand, 3) {
		k.put("cluster", []byte("downgrade"), []byte(`{"target-version":"","enabled":false}`))
	}
	if k.shape.Version > "3.4" && len(ids) > 0 {
		text, err := json.Marshal(map[string]any{"voters": ids, "auto_leave": false})
		if err != nil {
			k.err = err
		}
		k.put("meta", []byte("confState"), text)
	}
	k.commit()
}

func (k *keyspace) fillMeta() {
	index := uint64(k.shape.Transactions + 100)
	k.put("meta", []byte("consistent_index"), bigEndian(index))
	if k.shape.Version > "3.4" {
		k.put("meta", []byte("term"), bigEndian(1+k.rand.Uint64N(50)))
	}
	if k.shape.Version > "3.5" {
		k.put("meta", []byte("storageVersion"), []byte(k.shape.Version+".0"))
	}
	k.commit()
}

// fillNested adds buckets in a bucket, each second one too large to be inline.
func (k *keyspace) fillNested() {
	if k.shape.Nested == 0 {
		return
	}
	bucket := k.bucket("nested")
	for depth := range k.shape.Nested {
		if k.err != nil {
			return
		}
		k.err = k.fillBucket(bucket, depth%2 == 0)
		if k.err == nil {
			bucket, k.err = bucket.CreateBucket(fmt.Appendf(nil, "inner-%d", depth))
		}
	}
}

func (k *keyspace) fillBucket(bucket *bolt.Bucket, spilled bool) error {
	if err := bucket.SetSequence(k.rand.Uint64()); err != nil {
		return err
	}
	pairs := 3
	if spilled {
		pairs = k.shape.PageSize / 8
	}
	for i := range pairs {
		if err := bucket.Put(fmt.Appendf(nil, "pair-%d", i), drawBytes(k.rand, 10)); err != nil {
			return err
		}
	}
	return nil
}
