package main

import (
	"encoding/json"
	"errors"
	"fmt"
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
	file    *resultFile
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
	if out.file, err = newResultFile(o.file); err != nil {
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
	return out.file.keep(res)
}

// discard removes what keep has not made final.
func (out *output) discard() {
	out.file.discard()
	if out.dir != "" && !out.kept {
		os.RemoveAll(out.dir)
	}
}

// resultFile is a file that appears when the results are complete.
type resultFile struct {
	path string
	temp *os.File // nil when no file is wanted
}

func newResultFile(path string) (*resultFile, error) {
	if path == "" {
		return &resultFile{}, nil
	}
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return nil, usagef("cannot write --output: %w", err)
	}
	return &resultFile{path: path, temp: temp}, nil
}

func (f *resultFile) keep(res *load.Results) error {
	if f.temp == nil {
		return nil
	}
	encoder := json.NewEncoder(f.temp)
	encoder.SetIndent("", " ")
	err := encoder.Encode(res)
	if err == nil {
		err = f.temp.Chmod(0o644)
	}
	if err == nil {
		err = f.temp.Close()
	}
	if err == nil {
		err = os.Rename(f.temp.Name(), f.path)
	}
	if err != nil {
		return fmt.Errorf("cannot write --output: %w", err)
	}
	f.temp = nil
	return nil
}

// discard removes what keep has not made final.
func (f *resultFile) discard() {
	if f.temp != nil {
		f.temp.Close()
		os.Remove(f.temp.Name())
	}
}
