package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// The most that the values of one database come to: some are of hundreds of KiB, and a test makes
// hundreds of databases.
const valueBytesMax = 24 << 20

// keyspace plays etcd's mvcc store: transactions, deletions, lease revocations and compactions, each
// written to the `key` bucket as etcd writes it.
type keyspace struct {
	*writer
	rand   *rand.Rand
	shape  *shape
	keys   []string
	states map[string]*keyState
	// records are those in the bucket, in revision order.
	records []record
	leases  []int64
	// revision is the last one used; a new store is at 1.
	revision            int64
	scheduled, finished int64
	valueBytes          int
}

type keyState struct {
	created, version, lease int64
	live                    bool
}

type record struct {
	revision revision
	key      string
}

func newKeyspace(w *writer, r *rand.Rand, s *shape) *keyspace {
	k := &keyspace{writer: w, rand: r, shape: s, states: map[string]*keyState{}, revision: 1}
	for i := range s.Keys {
		key := drawKey(r, i)
		if k.states[key] == nil {
			k.keys = append(k.keys, key)
			k.states[key] = &keyState{}
		}
	}
	return k
}

func drawKey(r *rand.Rand, i int) string {
	switch r.IntN(4) {
	case 0:
		return fmt.Sprintf("/registry/pods/ns-%d/pod-%d", r.IntN(5), i)
	case 1:
		return fmt.Sprintf("k%d", i)
	case 2:
		return string(drawBytes(r, 1+r.IntN(300)))
	default:
		// Runs of the least and the greatest byte sort next to each other's prefixes.
		return string(slices.Repeat([]byte{pick(r, byte(0), 0xff)}, 1+r.IntN(20)))
	}
}

func drawBytes(r *rand.Rand, n int) []byte {
	bytes := make([]byte, n)
	for i := range bytes {
		bytes[i] = byte(r.Uint32())
	}
	return bytes
}

func (k *keyspace) drawValue() []byte {
	limit := min(k.shape.ValueMax, 100)
	if oneIn(k.rand, 20) && k.valueBytes+k.shape.ValueMax < valueBytesMax {
		limit = k.shape.ValueMax
	}
	value := drawBytes(k.rand, k.rand.IntN(limit+1))
	k.valueBytes += len(value)
	return value
}

// transact does one transaction; one that changes nothing uses no revision, as in etcd.
func (k *keyspace) transact() {
	if len(k.leases) > 0 && oneIn(k.rand, 40) {
		k.revoke(k.rand.IntN(len(k.leases)))
		return
	}
	ops := min(1+k.rand.IntN(k.shape.OpsMax), len(k.keys))
	var chosen []string
	for range ops {
		// etcd refuses a transaction that writes a key twice.
		if key := pick(k.rand, k.keys...); !slices.Contains(chosen, key) {
			chosen = append(chosen, key)
		}
	}
	next, sub := k.revision+1, int64(0)
	for _, key := range chosen {
		state := k.states[key]
		if k.rand.IntN(100) < k.shape.DeletePercent {
			if state.live {
				k.remove(key, revision{next, sub, true})
				sub++
			}
			continue
		}
		k.store(key, revision{next, sub, false})
		sub++
	}
	if sub > 0 {
		k.revision = next
	}
}

func (k *keyspace) store(key string, at revision) {
	state := k.states[key]
	if !state.live {
		*state = keyState{created: at.main, live: true}
	}
	state.version++
	state.lease = 0
	if len(k.leases) > 0 && oneIn(k.rand, 4) {
		state.lease = pick(k.rand, k.leases...)
	}
	kv := keyValue{[]byte(key), state.created, at.main, state.version, k.drawValue(), state.lease}
	k.append(record{at, key}, kv.encode())
}

func (k *keyspace) remove(key string, at revision) {
	*k.states[key] = keyState{}
	k.append(record{at, key}, keyValue{key: []byte(key)}.encode())
}

func (k *keyspace) append(r record, value []byte) {
	k.records = append(k.records, r)
	k.put("key", r.revision.encode(), value)
}

// grant adds a lease; some have been checkpointed.
func (k *keyspace) grant() {
	id := k.rand.Int64()
	ttl := int64(1 + k.rand.IntN(100_000))
	k.leases = append(k.leases, id)
	k.put("lease", bigEndian(uint64(id)), leaseRecord(id, ttl, pick(k.rand, 0, 0, ttl/2)))
}

// revoke deletes a lease's keys in one revision, in the order of the keys.
func (k *keyspace) revoke(i int) {
	lease := k.leases[i]
	k.leases = slices.Delete(k.leases, i, i+1)
	var keys []string
	for _, key := range k.keys {
		if state := k.states[key]; state.live && state.lease == lease {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for sub, key := range keys {
		k.remove(key, revision{k.revision + 1, int64(sub), true})
	}
	if len(keys) > 0 {
		k.revision++
	}
	k.delete("lease", bigEndian(uint64(lease)))
}

// compact schedules a compaction at a revision and removes that share of its records: 1 finishes it.
func (k *keyspace) compact(at int64, share float64) {
	if at <= max(k.scheduled, k.finished) {
		return
	}
	k.scheduled = at
	k.put("meta", []byte("scheduledCompactRev"), revision{main: at}.encode())
	newest := map[string]revision{}
	for _, r := range k.records {
		if r.revision.main <= at {
			newest[r.key] = r.revision
		}
	}
	var kept, removed []record
	for _, r := range k.records {
		keep := r.revision.main > at || newest[r.key] == r.revision &&
			(!r.revision.tombstone || k.shape.KeepTombstone && r.revision.main == at)
		if keep {
			kept = append(kept, r)
		} else {
			removed = append(removed, r)
		}
	}
	done := int(share * float64(len(removed)))
	for i, r := range removed[:done] {
		k.delete("key", r.revision.encode())
		if i%100 == 99 {
			k.commit() // etcd removes in batches, which leaves free pages between.
		}
	}
	if share == 1 {
		k.finished = at
		k.put("meta", []byte("finishedCompactRev"), revision{main: at}.encode())
	}
	k.records = append(kept, removed[done:]...)
	slices.SortFunc(k.records, func(a, b record) int {
		return slices.Compare(a.revision.encode(), b.revision.encode())
	})
}

// bump is what a restore adds so that no client meets a revision twice.
func (k *keyspace) bump(by int64) {
	k.revision += by
	k.append(record{revision: revision{main: k.revision}}, nil)
	k.scheduled = k.revision
	k.put("meta", []byte("scheduledCompactRev"), revision{main: k.revision}.encode())
}

// boot finishes the scheduled compaction, as etcd does when it starts.
func (k *keyspace) boot() {
	at := k.scheduled
	k.scheduled = k.finished
	k.compact(at, 1)
}
