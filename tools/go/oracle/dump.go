package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"os"

	bolt "go.etcd.io/bbolt"
)

type dumpJob struct {
	job
	// Pairs lists every pair of the buckets other than `key`, which may be of any size.
	Pairs bool `json:"pairs"`
}

type dumped struct {
	PageSize int            `json:"page_size"`
	Buckets  []dumpedBucket `json:"buckets"`
}

type dumpedBucket struct {
	// Name is the path from the root: etcd's buckets lie there, a nested one is "outer/inner".
	Name     string `json:"name"`
	Sequence uint64 `json:"sequence"`
	Count    uint64 `json:"count"`
	// SHA256 is over each pair in order: key length, key, value length, value; the lengths are 8
	// bytes, big-endian.
	SHA256 string      `json:"sha256"`
	Pairs  [][2]string `json:"pairs,omitempty"`
}

func dump(line []byte, _ string) (any, error) {
	var job dumpJob
	if err := decode(line, &job); err != nil {
		return nil, err
	}
	if _, err := os.Stat(job.Path); err != nil {
		return nil, err
	}
	db, err := bolt.Open(job.Path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	result := dumped{PageSize: db.Info().PageSize, Buckets: []dumpedBucket{}}
	err = db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			return result.add(string(name), b, job.Pairs)
		})
	})
	return result, err
}

func (d *dumped) add(name string, b *bolt.Bucket, pairs bool) error {
	at := len(d.Buckets)
	d.Buckets = append(d.Buckets, dumpedBucket{})
	bucket := dumpedBucket{Name: name, Sequence: b.Sequence()}
	digest := sha256.New()
	err := b.ForEach(func(k, v []byte) error {
		if v == nil {
			inner := b.Bucket(k)
			if inner == nil {
				return fmt.Errorf("bucket %s: entry %x is a bucket that cannot be opened", name, k)
			}
			return d.add(name+"/"+string(k), inner, pairs)
		}
		bucket.Count++
		hashSized(digest, k)
		hashSized(digest, v)
		if pairs && name != "key" {
			bucket.Pairs = append(bucket.Pairs, [2]string{hex.EncodeToString(k), hex.EncodeToString(v)})
		}
		return nil
	})
	bucket.SHA256 = hex.EncodeToString(digest.Sum(nil))
	d.Buckets[at] = bucket
	return err
}

func hashSized(digest hash.Hash, bytes []byte) {
	var size [8]byte
	binary.BigEndian.PutUint64(size[:], uint64(len(bytes)))
	digest.Write(size[:])
	digest.Write(bytes)
}
