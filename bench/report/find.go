package report

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
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
	if f.kind == notResults && ofLbdBench(path) && !json.Valid(f.data) {
		return f, fmt.Errorf("%s: is no JSON, %d bytes long; want what lbd bench wrote, or the directory removed", path, len(f.data))
	}
	return f, nil
}

// ofLbdBench says that a file is lbd bench's results by its place. Only that tells
// where a full disk has left nothing of it.
func ofLbdBench(path string) bool {
	return filepath.Base(path) == "results.json" && strings.HasPrefix(filepath.Base(filepath.Dir(path)), "lbd-bench_")
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
// writes for other tools' readers beside its own results is the same run; so are
// the several files of genai-perf and of aiperf.
func assemble(files []found) ([]*Run, error) {
	if own := ofKind(files, lbdResults); len(own) > 0 {
		return each(own, func(b []byte) ([]*Run, error) { return one(readLbd(b)) })
	}
	var runs []*Run
	for _, part := range []struct {
		files []found
		read  func([]byte) ([]*Run, error)
	}{{ofKind(files, guidellmResults), readGuide}, {ofKind(files, vllmResults), readVllm}} {
		of, err := each(part.files, part.read)
		if err != nil {
			return nil, err
		}
		runs = append(runs, of...)
	}
	for _, records := range []kind{aiperfRecords, genaiPerfRaw} {
		of, err := profiles(files, records)
		if err != nil {
			return nil, err
		}
		runs = append(runs, of...)
	}
	return runs, nil
}

func ofKind(files []found, k kind) []found {
	var of []found
	for _, f := range files {
		if f.kind == k {
			of = append(of, f)
		}
	}
	return of
}

// each reads files that are runs of their own.
func each(files []found, read func([]byte) ([]*Run, error)) ([]*Run, error) {
	var runs []*Run
	for _, f := range files {
		of, err := read(f.data)
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

func one(r *Run, err error) ([]*Run, error) {
	if err != nil {
		return nil, err
	}
	return []*Run{r}, nil
}

// profiles reads the files that genai-perf, or aiperf, wrote of one run: records,
// a summary as JSON, a summary as CSV. Several runs in one directory cannot be
// told apart, unless they are records alone.
func profiles(files []found, records kind) ([]*Run, error) {
	tool, summaries, read := "genai-perf", ofKind(files, genaiPerfSummary), readGenaiRaw
	if records == aiperfRecords {
		tool, summaries, read = "aiperf", ofKind(files, aiperfSummary), readAiperf
	} else if len(summaries) == 0 && len(ofKind(files, aiperfSummary)) == 0 && len(ofKind(files, aiperfRecords)) == 0 {
		summaries = ofKind(files, genaiPerfCSV)
	}
	raw := ofKind(files, records)
	if len(summaries) > 1 {
		return nil, fmt.Errorf("%s: %d summaries of %s in one directory; want one run in each", filepath.Dir(summaries[0].path), len(summaries), tool)
	}
	runs, err := each(raw, func(b []byte) ([]*Run, error) { return one(read(b)) })
	if err != nil || len(summaries) == 0 {
		return runs, err
	}
	summary := summaries[0]
	g, err := readSummary(summary)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", summary.path, err)
	}
	if len(runs) == 0 {
		r := g.run(tool)
		r.Files = []string{summary.path}
		return []*Run{r}, nil
	}
	for _, r := range runs {
		g.join(r, tool)
		r.Files = append(r.Files, summary.path)
	}
	return runs, nil
}

func readSummary(f found) (*genaiSummary, error) {
	if f.kind == genaiPerfCSV {
		return readGenaiCSV(f.data)
	}
	return readGenaiSummary(f.data)
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
