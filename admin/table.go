package admin

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// writeTable is the same for people; "-" stands for unknown and for nothing.
func (v *fleetView) writeTable(w io.Writer) {
	fmt.Fprintf(w, "generation %d\n\n", v.Generation)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	row(t, "REPLICA", "STATE", "SERVES", "IN-FLIGHT", "PENDING", "WAITING", "RUNNING", "FOREIGN", "KV", "POLLED", "DEVICE", "WEIGHT", "OF",
		"EJECTIONS", "MODELS", "SINCE", "REASON")
	for i := range v.Replicas {
		v.Replicas[i].writeRow(t)
	}
	row(t)
	row(t, "MODEL", "STRATEGY", "AVAILABLE", "HELD", "ALIASES")
	for _, m := range v.Models {
		row(t, m.Name, m.Strategy, fmt.Sprintf("%d/%d", len(m.Available), len(m.Replicas)), m.held(), strings.Join(m.Aliases, ","))
	}
	if len(v.Unresolved) > 0 {
		row(t)
		row(t, "NAME", "REASON")
		for _, name := range v.Unresolved {
			row(t, name, "no address is known; lbd's log says what the last look-up gave")
		}
	}
	t.Flush()
}

func (m *modelView) held() string {
	if m.Held == nil {
		return ""
	}
	return strconv.Itoa(m.Held.Waiting)
}

func (r *replicaView) writeRow(w io.Writer) {
	row(w, r.ID, r.State, r.serves(), decimal(r.Own.InFlight), decimal(r.Own.Pending),
		gauge(r.Polled.Waiting), gauge(r.Polled.Running), r.Polled.foreignText(), percent(r.Polled.KVCacheUsage), r.Polled.ageText(),
		r.Device, decimal(r.Weight), r.of(), strconv.Itoa(r.Ejections), strings.Join(r.Models, ","), since(r.Since), r.Reason)
}

func (r *replicaView) of() string {
	if r.Of == nil {
		return ""
	}
	return *r.Of
}

func (r *replicaView) serves() string {
	switch {
	case r.Draining:
		return "draining"
	case r.Available:
		return "yes"
	}
	return "no"
}

func (p *polledView) foreignText() string {
	if p.Foreign == nil {
		return ""
	}
	return decimal(*p.Foreign)
}

func (p *polledView) ageText() string {
	if p.AgeSeconds == nil {
		return "never"
	}
	text := fmt.Sprintf("%.1fs ago", *p.AgeSeconds)
	if *p.Stale {
		text += ", stale"
	}
	return text
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

func gauge(v *float64) string {
	if v == nil {
		return ""
	}
	return strconv.FormatFloat(*v, 'f', -1, 64)
}

func percent(v *float64) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf("%.0f%%", *v*100)
}

func since(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func row(w io.Writer, cells ...string) {
	for i, c := range cells {
		cells[i] = printable(c)
	}
	fmt.Fprintln(w, strings.Join(cells, "\t"))
}

// printable keeps what replicas call their models from steering a terminal.
func printable(s string) string {
	if s == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
