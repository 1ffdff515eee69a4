package main

import (
	"crypto/sha256"
	"errors"
	"io"
	"os"

	bolt "go.etcd.io/bbolt"
)

// writer gathers puts and deletes into bbolt commits, as etcd's batched backend does. A bucket that
// the shape lacks takes nothing. The first error stays, and is returned by close.
type writer struct {
	shape *shape
	db    *bolt.DB
	tx    *bolt.Tx
	err   error
}

func create(path string, s *shape) (*writer, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		PageSize:       s.PageSize,
		NoFreelistSync: !s.SyncFreelist,
		NoSync:         true,
		// The other kind walks a Go map to find room, so that no two runs give the same file.
		FreelistType: bolt.FreelistArrayType,
	})
	if err != nil {
		return nil, err
	}
	w := &writer{shape: s, db: db}
	for _, name := range bucketNames {
		if s.has(name) {
			w.bucket(name)
		}
	}
	w.commit()
	return w, nil
}

// bucket opens a bucket for writing, made where it is missing.
func (w *writer) bucket(name string) *bolt.Bucket {
	if w.err == nil && w.tx == nil {
		w.tx, w.err = w.db.Begin(true)
	}
	if w.err != nil {
		return nil
	}
	b, err := w.tx.CreateBucketIfNotExists([]byte(name))
	if err != nil {
		w.err = err
		return nil
	}
	b.FillPercent = w.shape.FillPercent
	return b
}

func (w *writer) put(bucket string, key, value []byte) {
	if !w.shape.has(bucket) {
		return
	}
	if b := w.bucket(bucket); b != nil {
		w.err = b.Put(key, value)
	}
}

func (w *writer) delete(bucket string, key []byte) {
	if !w.shape.has(bucket) {
		return
	}
	if b := w.bucket(bucket); b != nil {
		w.err = b.Delete(key)
	}
}

func (w *writer) commit() {
	if w.tx == nil {
		return
	}
	if w.err == nil {
		w.err = w.tx.Commit()
	} else {
		w.tx.Rollback()
	}
	w.tx = nil
}

func (w *writer) close() error {
	w.commit()
	return errors.Join(w.err, w.db.Close())
}

// asSnapshot replaces the database at path by what the Snapshot RPC would send of it.
func asSnapshot(path string) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer db.Close()
	part := path + ".part"
	out, err := os.Create(part)
	if err != nil {
		return err
	}
	defer out.Close()
	digest := sha256.New()
	err = db.View(func(tx *bolt.Tx) error {
		_, err := tx.WriteTo(io.MultiWriter(out, digest))
		return err
	})
	if err != nil {
		return err
	}
	if _, err := out.Write(digest.Sum(nil)); err != nil {
		return err
	}
	return os.Rename(part, path)
}
