package main

import (
	"encoding/json"
	"fmt"
	"io"
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
	Commit   string            `json:"commit"`
	Command  string            `json:"command"`
	Began    time.Time         `json:"began"`
	Versions map[string]string `json:"versions"`
	Skipped  []string          `json:"skipped,omitempty"`
	Samples  []sample          `json:"samples"`
	options  options
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
func (r *report) rounds(cell, peer string) []*outcome {
	out := make([]*outcome, r.options.rounds)
	for _, s := range r.Samples {
		if s.Cell == cell && s.Peer == peer {
			out[s.Round-1] = s.Outcome
		}
	}
	return out
}

// values returns a figure of a peer in a cell, by round.
func (r *report) values(c cell, peer string, m metric) []float64 {
	without := r.rounds(c.Name, direct)
	var out []float64
	for i, o := range r.rounds(c.Name, peer) {
		if o == nil {
			out = append(out, math.NaN())
			continue
		}
		out = append(out, m.value(o, without[i]))
	}
	return out
}

// measured are the peers that were found.
func (r *report) measured() (out []string) {
	for _, p := range r.options.peers {
		if _, ok := r.Versions[p.name]; ok {
			out = append(out, p.name)
		}
	}
	return out
}

// yardsticks are the peers that ratios are taken against: the floor, the rivals,
// and the first lbd where there are several.
func (r *report) yardsticks() (out []string) {
	all := r.measured()
	for _, name := range []string{"relay", "haproxy-tcp", "haproxy", "nginx"} {
		if slices.Contains(all, name) {
			out = append(out, name)
		}
	}
	if own := r.own(); len(own) > 1 {
		out = append(out, own[0])
	}
	return out
}

// own are the builds and variants of lbd that were measured.
func (r *report) own() (out []string) {
	for _, p := range r.options.peers {
		if _, ok := r.Versions[p.name]; ok && p.lbd {
			out = append(out, p.name)
		}
	}
	return out
}

// rows is the table of a cell: medians, the spread of the first figure, and its
// ratios, each the median of the ratios within the rounds.
func (r *report) rows(c cell) [][]string {
	ms, sticks := metricsOf(c), r.yardsticks()
	head := []string{"peer", ms[0].name, "min..max"}
	for _, s := range sticks {
		head = append(head, "/ "+s)
	}
	for _, m := range ms[1:] {
		head = append(head, m.name)
	}
	table := [][]string{append(head, "others %")}
	for _, p := range r.measured() {
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
func (r *report) print(w io.Writer, c cell) {
	_, _ = fmt.Fprintf(w, "\n%s: %s; %d rounds\n", c.Name, c.What, r.options.rounds)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range r.rows(c) {
		_, _ = fmt.Fprintln(t, strings.Join(row, "\t")+"\t")
	}
	_ = t.Flush()
}

// noise is how much others used the machine, with a mark for each run that
// stayed disturbed.
func (r *report) noise(c cell, peer string) string {
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

// write puts the results into a folder.
func (r *report) write(dir string) error {
	if dir == "" {
		return nil
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
	}{{"wire.json", append(b, '\n')}, {"wire.md", []byte(r.markdown())}, {"wire.svg", []byte(r.picture())}} {
		if err := os.WriteFile(filepath.Join(dir, f.name), f.text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
