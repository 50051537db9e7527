package workload

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"lbd/bench/load"
	"lbd/bench/trace"
)

// Schema is the value of a file's "schema".
const Schema = "lbd-workload/1"

// Workload is what traffic to send.
type Workload struct {
	Name, Description string
	Arrival           Arrival
	// Requests counts later turns too; 0 is no end.
	Requests         int
	Duration, Warmup time.Duration
	SLO              load.SLO
	Classes          []Class
}

// Class is conversations of one kind.
type Class struct {
	Name string
	// Weight is the class's part of all conversations.
	Weight float64
	// Models are the weights of the models; empty: the caller's mix.
	Models        map[string]float64
	Input, Output trace.Lengths
	// Later is what the user says in later turns.
	Later  trace.Lengths
	Turns  trace.Lengths // requests in a conversation
	Think  Think
	Stream bool
	Prefix Prefix
}

// Prefix is a text that the conversations of one tenant begin with.
type Prefix struct {
	Tenants, Tokens int
	// Skew is the exponent of Zipf's law over the tenants; 0 makes all alike.
	Skew float64
}

// maxTurns bounds a conversation: its prompt grows with each turn.
const maxTurns = 1000

// maxTenants bounds the table that tenants are drawn from.
const maxTenants = 1_000_000

// NewClass is a class with every default.
func NewClass(name string) Class {
	return Class{Name: name, Weight: 1, Input: trace.Fixed(512), Output: trace.Fixed(128), Turns: trace.Fixed(1), Stream: true}
}

// Validate tells what cannot be meant. What it says of a file's keys has no line:
// [Parse] has checked those before; it is for a workload that flags have changed.
func (w *Workload) Validate() error {
	a := &w.Arrival
	switch {
	case a.Rate == 0 && a.Concurrency == 0:
		return errors.New("no load; want a rate or a concurrency")
	case a.Rate != 0 && a.Concurrency != 0:
		return errors.New("a rate and a concurrency; want one of both")
	case w.Requests <= 0 && w.Duration <= 0:
		return errors.New("no end; want a number of requests or a duration")
	case len(w.Classes) == 0:
		return errors.New("no classes; want at least one")
	}
	if err := a.validate(); err != nil {
		return err
	}
	for i := range w.Classes {
		if err := w.Classes[i].validate(); err != nil {
			if w.Classes[i].Name == "" { // the only one, of a command line
				return err
			}
			return fmt.Errorf("class %q: %w", w.Classes[i].Name, err)
		}
	}
	return nil
}

func (c *Class) validate() error {
	switch {
	case !(c.Weight > 0) || math.IsInf(c.Weight, 0):
		return fmt.Errorf("weight %v; want a number above 0", c.Weight)
	case c.Turns.Max > maxTurns:
		return fmt.Errorf("turns %v; want at most %d", c.Turns, maxTurns)
	}
	return c.Prefix.validate()
}

func (p Prefix) validate() error {
	switch {
	case p.Tenants < 0 || p.Tenants > maxTenants:
		return fmt.Errorf("%d tenants; want 1 to %d", p.Tenants, maxTenants)
	case p.Tokens < 0 || p.Tokens > 1<<24:
		return fmt.Errorf("prefix of %d tokens; want 1 to %d", p.Tokens, 1<<24)
	case (p.Tenants == 0) != (p.Tokens == 0):
		return fmt.Errorf("%d tenants with %d prefix tokens; want both", p.Tenants, p.Tokens)
	case !(p.Skew >= 0 && p.Skew <= 10):
		return fmt.Errorf("skew %v; want 0 to 10", p.Skew)
	}
	return nil
}

// Describe lists what a comparison of two runs has to find equal, for
// [load.Results.Workload]; models are those of classes that name none.
func (w *Workload) Describe(models map[string]float64) map[string]string {
	d := map[string]string{"name": w.Name, "arrival": w.Arrival.String()}
	put := func(key, value, absent string) {
		if value != absent {
			d[key] = value
		}
	}
	put("requests", strconv.Itoa(w.Requests), "0")
	put("duration", w.Duration.String(), "0s")
	put("warmup", w.Warmup.String(), "0s")
	put("slo", w.SLO.String(), "")
	for i := range w.Classes {
		c := &w.Classes[i]
		prefix := ""
		if c.Name != "" {
			prefix = c.Name + "."
		}
		put(prefix+"weight", number(c.Weight), "1")
		put(prefix+"models", weights(cmp.Or(nonEmpty(c.Models), nonEmpty(models))), "")
		put(prefix+"input_tokens", c.Input.String(), "")
		put(prefix+"output_tokens", c.Output.String(), "")
		put(prefix+"stream", strconv.FormatBool(c.Stream), "true")
		put(prefix+"prefix", c.Prefix.String(), "")
		put(prefix+"turns", c.Turns.String(), "1")
		if c.Turns.Max > 1 {
			put(prefix+"later_input_tokens", c.later().String(), "")
			put(prefix+"think_time", c.Think.String(), "0s")
		}
	}
	return d
}

// nonEmpty is a pointer to the map, nil when it is empty, so that cmp.Or can choose.
func nonEmpty(m map[string]float64) *map[string]float64 {
	if len(m) == 0 {
		return nil
	}
	return &m
}

func (c *Class) later() trace.Lengths {
	if c.Later == (trace.Lengths{}) {
		return c.Input
	}
	return c.Later
}

func (p Prefix) String() string {
	if p.Tenants == 0 {
		return ""
	}
	s := fmt.Sprintf("%d tenants of %d tokens", p.Tenants, p.Tokens)
	if p.Skew > 0 {
		s += ", skew " + number(p.Skew)
	}
	return s
}

func weights(m *map[string]float64) string {
	if m == nil {
		return ""
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(*m)) {
		parts = append(parts, name+"="+number((*m)[name]))
	}
	return strings.Join(parts, ",")
}

func number(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }
