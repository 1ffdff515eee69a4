// Command oracle is the real bbolt, made to answer our tests.
//
//	oracle generate | check | dump [-workers N] [-timeout D] < jobs > answers
//
// A job is one line of JSON on stdin, its answer one line of JSON on stdout, in the order of the
// jobs, so that ten thousand files go through one process. Each answer has "id" (the job's "id",
// else its "path") and "ok"; where ok is false, "error" says why; what else there is to say is in
// "detail".
//
//	generate  {"path":"/t/db","seed":7}            a database shaped as etcd's; see shape in generate.go
//	check     {"path":"/t/db","patches":[{"at":16,"hex":"ff"}],"truncate":8192}
//	                                               bbolt's own consistency check, of a copy where it is patched
//	dump      {"path":"/t/db","pairs":true}        counts and digests of every bucket
//
// Broken files may make bbolt panic, fault, overflow its stack, exhaust memory or never end, and
// some of that cannot be recovered from inside the process: the jobs are done by child processes.
// One that dies or exceeds the timeout is replaced, and its job answered with ok false.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"
)

// verbs do one job each: the line as it came, and a directory for scratch files.
var verbs = map[string]func(line []byte, scratch string) (any, error){
	"generate": generate,
	"check":    check,
	"dump":     dump,
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 3 && args[0] == "worker" {
		return work(args[1], args[2])
	}
	if len(args) == 0 || verbs[args[0]] == nil {
		return fmt.Errorf("usage: oracle generate|check|dump [-workers N] [-timeout D] < jobs > answers")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	workers := flags.Int("workers", runtime.NumCPU(), "child processes")
	timeout := flags.Duration("timeout", 10*time.Second, "the most that one job may take")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	scratch, err := scratchDir()
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	pool := pool{verb: args[0], scratch: scratch, timeout: *timeout}
	return pool.run(os.Stdin, os.Stdout, *workers)
}

// scratchDir is in memory where that can be had: mutated copies are written and read once.
func scratchDir() (string, error) {
	if dir, err := os.MkdirTemp("/dev/shm", "oracle-"); err == nil {
		return dir, nil
	}
	return os.MkdirTemp("", "oracle-")
}

// job is what every job has, whatever its verb.
type job struct {
	ID   string `json:"id,omitempty"`
	Path string `json:"path"`
}

// decode refuses a field that it does not know: a misspelt one would quietly test something else.
func decode(line []byte, job any) error {
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	return decoder.Decode(job)
}

type answer struct {
	ID     string `json:"id"`
	OK     bool   `json:"ok"`
	Error  string `json:"error,omitempty"`
	Detail any    `json:"detail,omitempty"`
}

func answerTo(line []byte, detail any, err error) answer {
	var j job
	_ = json.Unmarshal(line, &j) // A line that is no JSON has no id; its verb says so.
	a := answer{ID: j.ID, OK: err == nil, Detail: detail}
	if a.ID == "" {
		a.ID = j.Path
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

// work is a child process: it answers one job after another until stdin ends.
func work(verb, scratch string) error {
	if err := limitMemory(); err != nil {
		return err
	}
	lines := bufio.NewReader(os.Stdin)
	answers := json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return nil // The parent closed the pipe.
		}
		detail, err := verbs[verb](line, scratch)
		if err := answers.Encode(answerTo(line, detail, err)); err != nil {
			return err
		}
	}
}
