//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is everything that was measured and where.
type report struct {
	Machine  string            `json:"machine"`
	Versions map[string]string `json:"versions"`
	Skipped  []string          `json:"skipped,omitempty"`
	Peers    []party           `json:"peers"`
	Cells    []measured        `json:"cells"`
	Samples  []sample          `json:"samples"`
}

// party is a peer in a report.
type party struct {
	Name string `json:"name"`
	LBD  bool   `json:"lbd,omitempty"`
}

// measured is a cell and how it was measured: the cells of a report may come
// from several runs.
type measured struct {
	cell
	Rounds  int       `json:"rounds"`
	Measure float64   `json:"measured_seconds"`
	Commit  string    `json:"commit"`
	Command string    `json:"command"`
	Began   time.Time `json:"began"`
}

// add begins the report of a cell.
func (r *report) add(c cell, o options, command, commit string) measured {
	m := measured{cell: c, Rounds: o.rounds, Measure: o.seconds, Commit: commit, Command: command, Began: time.Now().UTC().Round(time.Second)}
	r.Cells = append(r.Cells, m)
	return m
}

// keep takes over the cells of an earlier report that this one has not.
func (r *report) keep(old *report) error {
	if old.Machine != r.Machine {
		return fmt.Errorf("the earlier results are of another machine, %q; want %q", old.Machine, r.Machine)
	}
	for _, c := range old.Cells {
		if _, ok := r.cellOf(c.Name); ok {
			continue
		}
		r.Cells = append(r.Cells, c)
		for _, s := range old.Samples {
			if s.Cell == c.Name {
				r.Samples = append(r.Samples, s)
			}
		}
	}
	place := func(m measured) int {
		return slices.IndexFunc(cells, func(c cell) bool { return c.Name == m.Name })
	}
	slices.SortStableFunc(r.Cells, func(a, b measured) int { return place(a) - place(b) })
	for _, p := range old.Peers {
		if !slices.Contains(r.Peers, p) {
			r.Peers = append(r.Peers, p)
		}
	}
	for name, v := range old.Versions {
		if _, ok := r.Versions[name]; !ok {
			r.Versions[name] = v
		}
	}
	return nil
}

func (r *report) cellOf(name string) (measured, bool) {
	i := slices.IndexFunc(r.Cells, func(m measured) bool { return m.Name == name })
	if i < 0 {
		return measured{}, false
	}
	return r.Cells[i], true
}

func cpus() int { return runtime.NumCPU() }

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
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("%d x %s, Linux %s, %s", cpus(), model, strings.TrimSpace(string(kernel)), runtime.Version())
}

// commit is the tree lbd is built from, with a mark when it has changes.
func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// rounds returns the runs of a peer in a cell by round; nil where one failed.
func (r *report) rounds(c measured, peer string) []*outcome {
	out := make([]*outcome, c.Rounds)
	for _, s := range r.Samples {
		if s.Cell == c.Name && s.Peer == peer {
			out[s.Round-1] = s.Outcome
		}
	}
	return out
}

// values returns a figure of a peer in a cell, by round.
func (r *report) values(c measured, peer string, m metric) []float64 {
	without := r.rounds(c, direct)
	var out []float64
	for i, o := range r.rounds(c, peer) {
		if o == nil {
			out = append(out, math.NaN())
			continue
		}
		out = append(out, m.value(o, without[i]))
	}
	return out
}

// in are the peers that were measured in a cell.
func (r *report) in(c measured) (out []string) {
	for _, p := range r.Peers {
		if slices.ContainsFunc(r.Samples, func(s sample) bool { return s.Cell == c.Name && s.Peer == p.Name }) {
			out = append(out, p.Name)
		}
	}
	return out
}

// yardsticks are the peers that ratios are taken against: the floor, the rivals,
// and the first lbd where there are several.
func (r *report) yardsticks(c measured) (out []string) {
	all := r.in(c)
	for _, name := range []string{"relay", "haproxy-tcp", "haproxy", "nginx"} {
		if slices.Contains(all, name) {
			out = append(out, name)
		}
	}
	own := slices.DeleteFunc(r.own(), func(p string) bool { return !slices.Contains(all, p) })
	if len(own) > 1 {
		out = append(out, own[0])
	}
	return out
}

// own are the builds and variants of lbd that were measured.
func (r *report) own() (out []string) {
	for _, p := range r.Peers {
		if p.LBD {
			out = append(out, p.Name)
		}
	}
	return out
}

// rows is the table of a cell: medians, the spread of the first figure, and its
// ratios, each the median of the ratios within the rounds.
func (r *report) rows(c measured) [][]string {
	ms, sticks := metricsOf(c.cell), r.yardsticks(c)
	head := []string{"peer", ms[0].name, "min..max"}
	for _, s := range sticks {
		head = append(head, "/ "+s)
	}
	for _, m := range ms[1:] {
		head = append(head, m.name)
	}
	table := [][]string{append(head, "others %")}
	for _, p := range r.in(c) {
		v := r.values(c, p, ms[0])
		low, high := spread(v)
		row := []string{p, number(median(v)), number(low) + ".." + number(high)}
		for _, s := range sticks {
			row = append(row, number(median(ratios(v, r.values(c, s, ms[0])))))
		}
		for _, m := range ms[1:] {
			row = append(row, number(median(r.values(c, p, m))))
		}
		table = append(table, append(row, r.noise(c, p)))
	}
	return table
}

// print writes the table of a cell for a terminal.
func (r *report) print(w io.Writer, c measured) {
	_, _ = fmt.Fprintf(w, "\n%s: %s; %d rounds\n", c.Name, c.What, c.Rounds)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range r.rows(c) {
		_, _ = fmt.Fprintln(t, strings.Join(row, "\t")+"\t")
	}
	_ = t.Flush()
}

// noise is how much others used the machine, with a mark for each run that
// stayed disturbed.
func (r *report) noise(c measured, peer string) string {
	var v []float64
	mark := ""
	for _, s := range r.Samples {
		if s.Cell == c.Name && s.Peer == peer && s.Outcome != nil {
			v = append(v, s.Others*100)
			if s.Noisy {
				mark += "!"
			}
		}
	}
	return number(median(v)) + mark
}

// number writes a figure with three significant digits.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "-"
	case math.IsInf(v, 0):
		return "never"
	case a >= 100 || a == math.Trunc(a) && a < 1e6:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// write puts the results into a folder, beside the cells of an earlier run that
// are there.
func (r *report) write(dir, name string) error {
	if dir == "" {
		return nil
	}
	if err := r.keepIn(dir, name); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		text []byte
	}{{".json", append(b, '\n')}, {".md", []byte(r.markdown(name))}, {".svg", []byte(r.picture())}} {
		if err := os.WriteFile(filepath.Join(dir, name+f.name), f.text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (r *report) keepIn(dir, name string) error {
	path := filepath.Join(dir, name+".json")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var old report
	if err := json.Unmarshal(b, &old); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return r.keep(&old)
}
