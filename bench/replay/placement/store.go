package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// outcome is a line of the file: what one policy reached in one cell with one seed.
type outcome struct {
	Cell      string `json:"cell"`
	Rev       int    `json:"rev"`
	Policy    string `json:"policy"`
	PolicyRev int    `json:"policy_rev,omitempty"` // of lbd's own rules, which change; see -rev
	Seed      uint64 `json:"seed"`

	// Of a search: the capacity, how many runs it took, and the load it began with.
	Capacity float64 `json:"capacity,omitempty"`
	Runs     int     `json:"runs,omitempty"`
	From     float64 `json:"from,omitempty"`

	// Of a run at a share of the reference's capacity (1 = all of it); 0 is a search.
	Share   float64  `json:"share,omitempty"`
	Figures *figures `json:"figures,omitempty"`
}

// figures are those of one run, times in milliseconds.
type figures struct {
	Load    float64 `json:"load"`
	Good    float64 `json:"good"`
	TTFT50  float64 `json:"ttft_p50"`
	TTFT99  float64 `json:"ttft_p99"`
	TPOT99  float64 `json:"tpot_p99"`
	E2E99   float64 `json:"e2e_p99"`
	HitRate float64 `json:"hit_rate"`
	CoV     float64 `json:"busy_cov"`
	Refused float64 `json:"refused,omitempty"` // share of all requests, with limits
}

// job is what an outcome answers.
type job struct {
	cell, policy   string
	rev, policyRev int
	seed           uint64
	share          float64
}

func (o *outcome) job() job { return job{o.Cell, o.Policy, o.Rev, o.PolicyRev, o.Seed, o.Share} }

// store is the file of outcomes. It may be used by several goroutines.
type store struct {
	path string
	mu   sync.Mutex
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

// get is the outcome of a job, if it is there.
func (s *store) get(j job) (outcome, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.done[j]
	return o, ok
}

// add appends an outcome at once, so that a run that is cut short loses nothing.
func (s *store) add(o outcome) error {
	s.mu.Lock()
	defer s.mu.Unlock()
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

// newest is the highest revision of a policy among the outcomes, 0 when there is none or it has no revisions.
func (s *store) newest(policy string) (rev int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for j := range s.done {
		if j.policy == policy {
			rev = max(rev, j.policyRev)
		}
	}
	return rev
}
