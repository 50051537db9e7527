package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// outcome is a line of the file: the capacity of one policy in one cell with one seed.
type outcome struct {
	Cell      string  `json:"cell"`
	Rev       int     `json:"rev"`
	Policy    string  `json:"policy"`
	PolicyRev int     `json:"policy_rev,omitempty"` // of lbd's own rules, which change; see -rev
	Seed      uint64  `json:"seed"`
	Capacity  float64 `json:"capacity"`
	Runs      int     `json:"runs"`
}

// job is what an outcome answers.
type job struct {
	cell, policy   string
	rev, policyRev int
	seed           uint64
}

func (o *outcome) job() job { return job{o.Cell, o.Policy, o.Rev, o.PolicyRev, o.Seed} }

// store is the file of outcomes.
type store struct {
	path string
	done map[job]outcome
}

func openStore(path string) (*store, error) {
	s := &store{path: path, done: map[job]outcome{}}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		var o outcome
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		s.done[o.job()] = o
	}
	return s, lines.Err()
}

// add appends an outcome at once, so that a run that is cut short loses nothing.
func (s *store) add(o outcome) error {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o755); err != nil {
		return err
	}
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(s.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	s.done[o.job()] = o
	return errors.Join(err, f.Close())
}
