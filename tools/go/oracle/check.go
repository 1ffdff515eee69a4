package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
)

type checkJob struct {
	job
	// Patches are laid over a copy of the file, in order; one past its end makes it longer.
	Patches []patch `json:"patches"`
	// Truncate cuts the copy to this many bytes, after the patches.
	Truncate *int64 `json:"truncate"`
}

type patch struct {
	At  int64  `json:"at"`
	Hex string `json:"hex"`
}

// The first findings say what is wrong; a file of garbage may have millions.
const findingsMax = 5

// check runs what `bbolt check` runs, with the same options.
func check(line []byte, scratch string) (any, error) {
	var job checkJob
	if err := decode(line, &job); err != nil {
		return nil, err
	}
	path := job.Path
	if len(job.Patches) > 0 || job.Truncate != nil {
		mutant, err := mutants.make(job, scratch)
		if err != nil {
			return nil, fmt.Errorf("cannot make the mutant: %w", err)
		}
		path = mutant
	}
	return nil, checkFile(path)
}

func checkFile(path string) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, PreLoadFreelist: true})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bolt.Tx) error {
		var findings []error
		for finding := range tx.Check() {
			findings = append(findings, finding)
			if len(findings) == findingsMax {
				break // The check waits for a reader until this process ends, which is now.
			}
		}
		return errors.Join(findings...)
	})
}

// mutants is this process's one scratch copy. Thousands of jobs in a row mutate the same base: each
// undoes what the last one changed instead of copying the file anew.
var mutants mutantMaker

type mutantMaker struct {
	basePath string
	base     []byte
	file     *os.File
	dirty    []span
}

type span struct{ from, to int64 }

func (m *mutantMaker) make(job checkJob, scratch string) (string, error) {
	if err := m.reset(job.Path, scratch); err != nil {
		return "", err
	}
	for _, patch := range job.Patches {
		bytes, err := hex.DecodeString(patch.Hex)
		if err != nil {
			return "", err
		}
		m.dirty = append(m.dirty, span{patch.At, patch.At + int64(len(bytes))})
		if _, err := m.file.WriteAt(bytes, patch.At); err != nil {
			return "", err
		}
	}
	if job.Truncate != nil {
		m.dirty = append(m.dirty, span{*job.Truncate, int64(len(m.base))})
		if err := m.file.Truncate(*job.Truncate); err != nil {
			return "", err
		}
	}
	return m.file.Name(), nil
}

// reset makes the scratch file equal to the base again.
func (m *mutantMaker) reset(basePath, scratch string) error {
	size := int64(len(m.base))
	if m.basePath != basePath {
		base, err := os.ReadFile(basePath)
		if err != nil {
			return err
		}
		if m.file == nil {
			name := filepath.Join(scratch, fmt.Sprintf("mutant-%d", os.Getpid()))
			if m.file, err = os.Create(name); err != nil {
				return err
			}
		}
		size = int64(len(base))
		m.basePath, m.base, m.dirty = basePath, base, []span{{0, size}}
	}
	for _, d := range m.dirty {
		from, to := min(d.from, size), min(d.to, size)
		if from >= to {
			continue
		}
		if _, err := m.file.WriteAt(m.base[from:to], from); err != nil {
			return err
		}
	}
	m.dirty = nil
	return m.file.Truncate(size)
}
