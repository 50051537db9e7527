package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"time"
)

// setup is what rounds must have in common to be one result.
type setup struct {
	Requests   int      `json:"requests"`
	Replicas   int      `json:"replicas"`
	Speed      float64  `json:"trace_speed"`
	Strategies []string `json:"strategies"`

	MaxTTFT time.Duration `json:"admission_max_ttft,omitempty"` // in ns
	MaxTPOT time.Duration `json:"admission_max_tpot,omitempty"`
}

// round is both media, with one seed.
type round struct {
	Seed   uint64   `json:"seed"`
	Replay []served `json:"replay"`
	HTTP   []served `json:"http"`
}

// results is the file.
type results struct {
	Setup  setup   `json:"setup"`
	Rounds []round `json:"rounds"`

	path string
}

func openResults(path string) (*results, error) {
	r := &results{path: path}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// belongsTo sets what is to be measured; rounds of another setup must be removed by hand.
func (r *results) belongsTo(s setup) error {
	if len(r.Rounds) > 0 && !reflect.DeepEqual(r.Setup, s) {
		return fmt.Errorf("%s has rounds of another setup, %+v; want %+v, or another -out", r.path, r.Setup, s)
	}
	r.Setup = s
	return nil
}

func (r *results) save() error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(r.path, append(text, '\n'), 0o644)
}
