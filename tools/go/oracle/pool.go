package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

// A job needs no more memory than this; a count read from a broken page may ask for anything.
const memoryMax = 1 << 30

// limitMemory makes a runaway job end its own process, never the machine.
func limitMemory() error {
	debug.SetMaxStack(64 << 20)
	limit := syscall.Rlimit{Cur: memoryMax, Max: memoryMax}
	return syscall.Setrlimit(syscall.RLIMIT_DATA, &limit)
}

// pool hands jobs to child processes and puts their answers back into the order of the jobs.
type pool struct {
	verb    string
	scratch string
	timeout time.Duration
}

type pending struct {
	line   []byte
	answer chan []byte
}

func (p *pool) run(in io.Reader, out io.Writer, workers int) error {
	jobs := make(chan pending)
	// As much as this may be answered while the oldest job still takes its time.
	inOrder := make(chan pending, 1024)
	for range workers {
		go p.serve(jobs)
	}
	readErr := make(chan error, 1)
	go func() {
		readErr <- feed(in, jobs, inOrder)
		close(jobs)
		close(inOrder)
	}()
	buffered := bufio.NewWriter(out)
	for job := range inOrder {
		buffered.Write(<-job.answer)
		if len(inOrder) == 0 {
			buffered.Flush() // The caller may be waiting for this answer before its next job.
		}
	}
	return errors.Join(<-readErr, buffered.Flush())
}

func feed(in io.Reader, jobs, inOrder chan<- pending) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			line = append(bytes.TrimSpace(line), '\n')
			job := pending{line, make(chan []byte, 1)}
			inOrder <- job
			jobs <- job
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// serve answers jobs with one child at a time, started when there is a job for it.
func (p *pool) serve(jobs <-chan pending) {
	var c *child
	for job := range jobs {
		if c == nil {
			started, err := p.start()
			if err != nil {
				job.answer <- failed(job.line, err)
				continue
			}
			c = started
		}
		line, err := c.ask(job.line, p.timeout)
		if err != nil {
			job.answer <- failed(job.line, err)
			c = nil
			continue
		}
		if !isOK(line) {
			// A rejected file may have left a goroutine walking it, or much memory in use.
			c.end()
			c = nil
		}
		job.answer <- line
	}
	if c != nil {
		c.end()
	}
}

func isOK(line []byte) bool {
	var a answer
	return json.Unmarshal(line, &a) == nil && a.OK
}

func failed(line []byte, err error) []byte {
	text, _ := json.Marshal(answerTo(line, nil, err))
	return append(text, '\n')
}

type child struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	errors bytes.Buffer
}

func (p *pool) start() (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(self, "worker", p.verb, p.scratch)}
	// A crash is an answer here, and its first line says enough.
	c.cmd.Env = append(os.Environ(), "GOTRACEBACK=none")
	c.cmd.Stderr = &c.errors
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	return c, c.cmd.Start()
}

func (c *child) end() {
	c.cmd.Process.Kill()
	c.cmd.Wait()
}

// ask returns the child's answer, or why there is none; the child is gone in the second case.
func (c *child) ask(line []byte, timeout time.Duration) ([]byte, error) {
	timedOut := make(chan struct{})
	timer := time.AfterFunc(timeout, func() {
		close(timedOut)
		c.cmd.Process.Kill()
	})
	_, writeErr := c.in.Write(line)
	answer, readErr := c.out.ReadBytes('\n')
	if timer.Stop() && writeErr == nil && readErr == nil {
		return answer, nil
	}
	c.cmd.Process.Kill()
	state := c.cmd.Wait()
	select {
	case <-timedOut:
		return nil, fmt.Errorf("timeout after %v", timeout)
	default:
		first, _, _ := strings.Cut(strings.TrimSpace(c.errors.String()), "\n")
		return nil, fmt.Errorf("crashed: %s (%v)", first, state)
	}
}
