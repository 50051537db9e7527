package report

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// MaxFile bounds what is read of one file, unpacked.
const MaxFile = 1 << 30

// kind is a format of result files.
type kind int

const (
	notResults kind = iota
	lbdResults
	genaiPerfRaw
	genaiPerfSummary
	genaiPerfCSV
	aiperfRecords
	aiperfSummary
	guidellmResults
	vllmResults
)

// found is a result file.
type found struct {
	path string
	kind kind
	data []byte
}

// Find reads all result files below a directory, or the one file. Files that are
// no results are passed over; a result file that cannot be read is an error.
func Find(root string) ([]*Run, error) {
	byDir := map[string][]found{}
	var dirs []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != root && strings.HasPrefix(d.Name(), ".") {
				return filepath.SkipDir
			}
			return nil
		}
		f, err := open(path)
		if err != nil || f.kind == notResults {
			return err
		}
		dir := filepath.Dir(path)
		if byDir[dir] == nil {
			dirs = append(dirs, dir)
		}
		byDir[dir] = append(byDir[dir], f)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read results: %w", err)
	}
	var runs []*Run
	for _, dir := range dirs {
		of, err := assemble(byDir[dir])
		if err != nil {
			return nil, err
		}
		runs = append(runs, of...)
	}
	return runs, nil
}

// open reads a file whose name may be that of results.
func open(path string) (found, error) {
	f := found{path: path}
	name := strings.TrimSuffix(path, ".gz")
	ext := filepath.Ext(name)
	if strings.HasPrefix(filepath.Base(path), ".") || !slices.Contains([]string{".json", ".jsonl", ".csv"}, ext) {
		return f, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return f, err
	}
	defer file.Close()
	var r io.Reader = file
	if name != path {
		if r, err = gzip.NewReader(file); err != nil {
			return f, fmt.Errorf("%s: %w", path, err)
		}
	}
	f.data, err = io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err == nil && len(f.data) > MaxFile {
		err = errors.New("longer than 1 GiB")
	}
	if err != nil {
		return f, fmt.Errorf("%s: %w", path, err)
	}
	f.kind = detect(ext, f.data)
	return f, nil
}

// detect tells formats apart by what only they have. JSON need not be valid to be
// recognised: a broken result file must not be passed over.
func detect(ext string, data []byte) kind {
	has := func(keys ...string) bool {
		for _, key := range keys {
			if !bytes.Contains(data, []byte(`"`+key+`"`)) {
				return false
			}
		}
		return true
	}
	switch {
	case ext == ".csv" && bytes.HasPrefix(data, []byte("Metric,")) && bytes.Contains(data, []byte("Request Latency (ms)")):
		return genaiPerfCSV
	case ext == ".csv":
		return notResults
	case ext == ".jsonl" && has("metadata", "metrics", "request_start_ns"):
		return aiperfRecords
	case has("schema") && bytes.Contains(data, []byte(`"lbd-bench/`)):
		return lbdResults
	case has("experiments", "response_timestamps"):
		return genaiPerfRaw
	case has("benchmarks", "requests_per_second", "successful"):
		return guidellmResults
	case has("aiperf_version", "request_latency"):
		return aiperfSummary
	case has("request_throughput", "request_latency", "input_config"):
		return genaiPerfSummary
	case has("request_throughput", "mean_ttft_ms", "num_prompts"):
		return vllmResults
	}
	return notResults
}

// assemble makes runs of the result files of one directory. What `lbd bench`
// writes for other tools' readers beside its own results is the same run.
func assemble(files []found) ([]*Run, error) {
	own := slices.ContainsFunc(files, func(f found) bool { return f.kind == lbdResults })
	var runs []*Run
	for _, f := range files {
		if own && f.kind != lbdResults {
			continue
		}
		of, err := read(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.path, err)
		}
		for _, r := range of {
			r.Files = []string{f.path}
		}
		runs = append(runs, of...)
	}
	return runs, nil
}

func read(f found) ([]*Run, error) {
	switch f.kind {
	case lbdResults:
		return one(readLbd(f.data))
	}
	return nil, nil
}

func one(r *Run, err error) ([]*Run, error) {
	if err != nil {
		return nil, err
	}
	return []*Run{r}, nil
}

// FindAll reads the results of several environments, one below each directory, and
// names each after its directory.
func FindAll(dirs []string) ([]Environment, error) {
	var all []Environment
	for i, name := range names(dirs) {
		runs, err := Find(dirs[i])
		if err != nil {
			return nil, err
		}
		if len(runs) == 0 {
			return nil, fmt.Errorf("no results below %q; want files of lbd bench, genai-perf, aiperf, guidellm or vllm bench serve", dirs[i])
		}
		all = append(all, Environment{name, runs})
	}
	return all, nil
}

// names are the last elements in which the paths differ, or the whole paths where
// no single one tells all of them apart: results/baseline/1 and results/managed/1
// are baseline and managed.
func names(dirs []string) []string {
	split := make([][]string, len(dirs))
	for i, dir := range dirs {
		if abs, err := filepath.Abs(dir); err == nil {
			dir = abs
		}
		split[i] = strings.Split(filepath.ToSlash(dir), "/")
		slices.Reverse(split[i])
	}
	for depth := range split[0] {
		seen := map[string]bool{}
		all := make([]string, len(dirs))
		for i, parts := range split {
			if depth < len(parts) {
				all[i] = parts[depth]
				seen[all[i]] = all[i] != ""
			}
		}
		if len(seen) == len(dirs) && !seen[""] {
			return all
		}
	}
	return dirs
}
