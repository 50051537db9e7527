package replay

import (
	"fmt"
	"strconv"
	"strings"

	"lbd/bench/sim/engine"
)

// Group is a number of replicas alike.
type Group struct {
	Count int
	// Preset names the model and hardware, see engine.Presets; the default is engine's.
	Preset string
	// Speed is how many times as fast as the preset every step is; 0 means 1.
	Speed float64
	// Weight is what the operator wrote into lbd's configuration; 0 means 1.
	Weight int
	// Engine has further settings. Preset, Seed and Quiet are set by the run.
	Engine engine.Config
}

// Fleet is what stands behind lbd.
type Fleet []Group

// Size is the number of replicas.
func (f Fleet) Size() (n int) {
	for _, g := range f {
		n += g.Count
	}
	return n
}

// String is the notation of ParseFleet.
func (f Fleet) String() string {
	var parts []string
	for _, g := range f {
		s := strconv.Itoa(g.Count)
		if g.Preset != "" {
			s += "x" + g.Preset
		}
		if g.Speed != 0 && g.Speed != 1 {
			s += fmt.Sprintf("@%g", g.Speed)
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, ",")
}

// ParseFleet reads the command line's notation, groups apart by commas, each COUNT[xPRESET][@SPEED]:
//
//	16                              16 replicas of the default preset
//	8xllama-3.1-8b,8xllama-3.1-8b@0.5    half of them at half the speed
func ParseFleet(s string) (Fleet, error) {
	var f Fleet
	for part := range strings.SplitSeq(s, ",") {
		g, err := parseGroup(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("fleet %q: %w", s, err)
		}
		f = append(f, g)
	}
	return f, nil
}

func parseGroup(s string) (g Group, err error) {
	rest, speed, fast := strings.Cut(s, "@")
	count, preset, _ := strings.Cut(rest, "x")
	if g.Count, err = strconv.Atoi(count); err != nil || g.Count < 1 || g.Count > maxReplicas {
		return g, fmt.Errorf("group %q; want COUNT[xPRESET][@SPEED] with a count of 1 to %d", s, maxReplicas)
	}
	if g.Preset = preset; preset != "" {
		if _, err := engine.PresetNamed(preset); err != nil {
			return g, err
		}
	}
	if fast {
		if g.Speed, err = strconv.ParseFloat(speed, 64); err != nil || !(g.Speed > 0) || g.Speed > 1000 {
			return g, fmt.Errorf("group %q: speed %q; want a number above 0, 1 being the preset's", s, speed)
		}
	}
	return g, nil
}

// maxReplicas is ten times the largest fleet anybody has told of.
const maxReplicas = 10000

// ReplicaInfo is what an operator knows of a replica.
type ReplicaInfo struct {
	ID     string
	Weight int
	// Preset is the model of its step time, with Speed not applied.
	Preset engine.Preset
	Speed  float64
	// Engine is its configuration with every default filled in.
	Engine engine.Config
}

// KVTokens is the capacity of the KV cache.
func (r *ReplicaInfo) KVTokens() int { return r.Engine.NumBlocks * r.Engine.BlockSize }
