package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"lbd/bench/load"
	"lbd/bench/load/export"
)

// keepLimit bounds what is kept of the streams for profile_export.json: about a
// thousand bytes for each of a million events.
const keepLimit = 1 << 30

// output is where the results go: a file, a directory, both or neither. Both are
// begun before the run: a path that cannot be written is known before, not after,
// an hour of load.
type output struct {
	file    *wholeFile
	dir     string // made for this run; empty when none is wanted
	records bool
	kept    bool
}

// resultsDir is the directory of all runs, empty when none is wanted.
func (o *benchOptions) resultsDir() string {
	if o.results == "" && o.file == "" {
		return "results"
	}
	return o.results
}

func (o *benchOptions) keepBytes() int64 {
	if o.resultsDir() == "" || !o.profileExport {
		return 0
	}
	return keepLimit
}

func (o *benchOptions) open(models []string) (*output, error) {
	out := &output{records: o.records}
	var err error
	if out.file, err = beginFile("output", o.file); err != nil {
		return nil, err
	}
	if root := o.resultsDir(); root != "" {
		if out.dir, err = runDirectory(filepath.Join(root, o.env), "lbd-bench", models, time.Now()); err != nil {
			out.file.discard()
			return nil, usagef("cannot write results: %w", err)
		}
	}
	return out, nil
}

// runDirectory makes TOOL_MODEL_TIME; a second one in the same second gets a number.
func runDirectory(parent, tool string, models []string, now time.Time) (string, error) {
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	model := "mix"
	if len(models) == 1 {
		model = fileName(models[0])
	}
	base := filepath.Join(parent, tool+"_"+model+"_"+now.Format("20060102-150405"))
	for n := 1; ; n++ {
		dir := base
		if n > 1 {
			dir = fmt.Sprintf("%s-%d", base, n)
		}
		if err := os.Mkdir(dir, 0o755); !errors.Is(err, fs.ErrExist) {
			return dir, err
		}
	}
}

// fileName is the name with what is no plain character in a path replaced, as
// genai-perf names its directories.
func fileName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("-.", r):
			return r
		}
		return '_'
	}, name)
}

// keep writes what the run has brought.
func (out *output) keep(res *load.Results) error {
	if out.dir != "" {
		if err := export.Write(out.dir, res); err != nil {
			return err
		}
	}
	if !out.records {
		res.Records = nil
	}
	if out.dir != "" {
		if err := export.WriteJSON(filepath.Join(out.dir, "results.json"), res); err != nil {
			return err
		}
	}
	out.kept = true
	return out.file.keep(func(w io.Writer) error {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", " ")
		return encoder.Encode(res)
	})
}

// discard removes what keep has not made final.
func (out *output) discard() {
	out.file.discard()
	if out.dir != "" && !out.kept {
		os.RemoveAll(out.dir)
	}
}
