//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is all that a soak found.
type report struct {
	Began   time.Time         `json:"began"`
	Command string            `json:"command"`
	Options map[string]string `json:"options"`
	Machine string            `json:"machine"`
	Commit  string            `json:"commit"`
	Version string            `json:"version"`

	Checks      []check                    `json:"checks"`
	Requests    int64                      `json:"requests"`
	Errors      int64                      `json:"errors"`
	Unexplained int64                      `json:"unexplained"`
	Outcomes    map[string]int64           `json:"outcomes"`
	Causes      map[cause]map[string]int64 `json:"errors_by_cause_and_explanation"`
	Examples    []string                   `json:"unexplained_examples,omitempty"`
	Broken      []string                   `json:"broken,omitempty"`
	Acts        map[kind]int               `json:"disturbances"`
	First       times                      `json:"first_byte"`
	E2E         times                      `json:"end_to_end"`
	Growth      growth                     `json:"growth"`
	Log         logged                     `json:"log"`
	Exit        string                     `json:"exit,omitempty"`
	Base        sample                     `json:"before"`
	Rests       []rest                     `json:"at_rest"`
	Samples     []sample                   `json:"samples"`
}

func (o options) table() map[string]string {
	return map[string]string{
		"duration": o.duration.String(), "clients": fmt.Sprint(o.clients), "seed": fmt.Sprint(o.seed), "speed": fmt.Sprint(o.speed),
		"pause": o.pause.String(), "lull": o.lull.String(), "fill": fmt.Sprint(o.fill), "heap": fmt.Sprint(o.heap), "growth": fmt.Sprint(o.growth), "faults": fmt.Sprint(o.faults),
	}
}

// command repeats the run on another machine: without folders and ports of this one.
func (o options) command() string {
	return fmt.Sprintf("go run ./bench/soak -duration %v -clients %d -seed %d -pause %v -lull %v -speed %v -fill %d -heap %d -growth %v -faults=%t",
		o.duration, o.clients, o.seed, o.pause, o.lull, o.speed, o.fill, o.heap, o.growth, o.faults)
}

func (r *report) failed() bool {
	return slices.ContainsFunc(r.Checks, func(c check) bool { return !c.OK })
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }
func passed(ok bool) string {
	if ok {
		return "ok"
	}
	return "FAILED"
}

// row is a line of a table.
type row []string

// tables are the parts of the report, in order.
func (r *report) tables() (out []struct {
	title string
	rows  []row
}) {
	add := func(title string, rows []row) {
		if len(rows) > 1 {
			out = append(out, struct {
				title string
				rows  []row
			}{title, rows})
		}
	}
	held := []row{{"check", "", "found"}}
	for _, c := range r.Checks {
		held = append(held, row{c.Name, passed(c.OK), c.Says})
	}
	add("Checks", held)
	add("At rest: the clients gone, the fleet well, garbage collected", r.resting())
	did := []row{{"what clients did", "went well"}}
	for _, k := range slices.Sorted(maps.Keys(r.Outcomes)) {
		did = append(did, row{k, fmt.Sprint(r.Outcomes[k])})
	}
	add("Requests", did)
	errors := []row{{"what the client saw", "explained by", "times"}}
	for _, c := range slices.Sorted(maps.Keys(r.Causes)) {
		for _, why := range slices.Sorted(maps.Keys(r.Causes[c])) {
			errors = append(errors, row{string(c), why, fmt.Sprint(r.Causes[c][why])})
		}
	}
	add("Errors", errors)
	acts := []row{{"disturbance of a replica", "times"}}
	for _, k := range slices.Sorted(maps.Keys(r.Acts)) {
		acts = append(acts, row{string(k), fmt.Sprint(r.Acts[k])})
	}
	add("Disturbances", acts)
	add("Times of answers that went well, in ms", []row{
		{"", "answers", "p50", "p90", "p99", "longest"}, r.First.row("first body byte"), r.E2E.row("end to end"),
	})
	return out
}

// resting is what lbd holds when it has nothing to do.
func (r *report) resting() []row {
	rows := []row{{"after", "requests", "live heap, MiB", "of that index", "pages with holes", "stacks", "RSS before that", "goroutines", "descriptors"}}
	for _, s := range r.Rests {
		h := s.Heap
		rows = append(rows, row{s.After, fmt.Sprint(s.Requests), fmt.Sprintf("%.3f", mib(h.Live)), fmt.Sprintf("%.1f", mib(h.Sites[index])),
			fmt.Sprintf("%.1f", mib(h.Spans-h.Live)), fmt.Sprintf("%.1f", mib(h.Stacks)), fmt.Sprintf("%.1f", mib(s.RSS)), fmt.Sprint(s.Goroutines), fmt.Sprint(s.Descriptors)})
	}
	return rows
}

// index is who allocates the index of prompt prefixes.
const index = "lbd/balancer/prefix.(*Index).made"

func (t times) row(name string) row {
	ms := func(v float64) string { return fmt.Sprintf("%.1f", v) }
	return row{name, fmt.Sprint(t.N), ms(t.P50), ms(t.P90), ms(t.P99), ms(t.Max)}
}

// text writes the tables for a terminal.
func (r *report) text(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, t := range r.tables() {
		fmt.Fprintln(w)
		for _, cells := range t.rows {
			fmt.Fprintln(w, strings.Join(cells, "\t"))
		}
	}
	for _, s := range slices.Concat(r.Examples, r.Broken, r.Log.Bad) {
		fmt.Fprintln(w, "\n!", s)
	}
	return w.Flush()
}

// markdown writes them for the repository.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Soak\n\n`%s`, %s, %s, %s, commit %s.\nWhat the machine does besides moves the times; the checks hold on any.\n\n![RSS, goroutines, descriptors, requests and errors over time](soak.svg)\n",
		r.Command, r.Began.Format("2006-01-02 15:04 UTC"), r.Machine, r.Version, r.Commit)
	for _, t := range r.tables() {
		fmt.Fprintf(&b, "\n## %s\n\n", t.title)
		for i, cells := range t.rows {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
			if i == 0 {
				b.WriteString(strings.Repeat("|---", len(cells)) + "|\n")
			}
		}
	}
	for _, s := range slices.Concat(r.Examples, r.Broken, r.Log.Bad) {
		fmt.Fprintf(&b, "\n- `%s`", strings.ReplaceAll(s, "`", "'"))
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// write leaves soak.md, soak.json and soak.svg in a folder.
func (r *report) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	for name, text := range map[string]string{"soak.md": r.markdown(), "soak.json": string(b) + "\n", "soak.svg": r.picture()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func machine() string {
	model := "unknown CPU"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	return fmt.Sprintf("%d x %s, %s", runtime.NumCPU(), model, runtime.Version())
}
