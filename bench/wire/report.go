package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// report is everything that was measured and where.
type report struct {
	Machine  string            `json:"machine"`
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

// print writes the table of a cell: medians, spreads, and ratios to each rival.
func (r *report) print(w io.Writer, c cell) {
	_, _ = fmt.Fprintf(w, "\n%s: %s; %d rounds\n", c.Name, c.What, r.options.rounds)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	defer func() { _ = t.Flush() }()
	ms := metricsOf(c.Kind)
	_, _ = fmt.Fprint(t, "peer\t")
	for i, m := range ms {
		_, _ = fmt.Fprintf(t, "%s\t", m.name)
		if i == 0 {
			_, _ = fmt.Fprint(t, "spread\tvs haproxy-tcp\tvs haproxy\tvs nginx\t")
		}
	}
	_, _ = fmt.Fprintln(t, "others %\t")
	for _, p := range r.options.peers {
		if _, ok := r.Versions[p.name]; !ok {
			continue
		}
		_, _ = fmt.Fprintf(t, "%s\t", p.name)
		for i, m := range ms {
			v := r.values(c, p.name, m)
			_, _ = fmt.Fprintf(t, "%s\t", number(median(v)))
			if i == 0 {
				low, high := spread(v)
				_, _ = fmt.Fprintf(t, "%s..%s\t", number(low), number(high))
				for _, rival := range []string{"haproxy-tcp", "haproxy", "nginx"} {
					_, _ = fmt.Fprintf(t, "%s\t", number(median(ratios(v, r.values(c, rival, m)))))
				}
			}
		}
		_, _ = fmt.Fprintf(t, "%s\t\n", r.noise(c, p.name))
	}
}

// noise is how much others used the machine, with a mark for runs that stayed
// disturbed.
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

func (r *report) write(dir string) error {
	if dir == "" {
		return nil
	}
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "wire.json"), append(b, '\n'), 0o644)
}
