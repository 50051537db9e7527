package sim

import (
	"fmt"
	"io"
	"strings"
	"time"

	"lbd/bench/sim/engine"
)

// Profile names the vLLM release whose surface is reproduced.
type Profile string

const (
	// ProfileV064 is vllm/vllm-openai:v0.6.4.post1, engine V0.
	ProfileV064 Profile = "v0.6.4"
	// ProfileV019 is vLLM v0.19.0 as in the kvcached image, engine V1.
	ProfileV019 Profile = "v0.19"
)

// Profiles lists what Config.Profile accepts.
func Profiles() []Profile { return []Profile{ProfileV064, ProfileV019} }

// version is what GET /version answers.
func (p Profile) version() string {
	if p == ProfileV064 {
		return "0.6.4.post1"
	}
	return "0.19.0"
}

func (p Profile) engine() engine.Profile {
	if p == ProfileV064 {
		return engine.ProfileV0
	}
	return engine.ProfileV1
}

// Config describes one replica. The zero value of every field but Model is
// usable.
type Config struct {
	Model   string   // served name
	Aliases []string // further served names; answers always carry Model
	Profile Profile  // "" = ProfileV019

	// Engine zero = the preset of Model, with the scheduler of Profile.
	Engine engine.Config
	Speed  float64 // 1 = real time, 10 = ten times faster; 0 = 1
	Seed   uint64  // texts, natural lengths, ids, fault rates

	APIKey    string        // as vllm --api-key: guards paths below /v1 only
	KeepAlive time.Duration // idle connection life; 0 = uvicorn's 5 s
	LoadTime  time.Duration // refuses connections that long after Start

	// APITime is the front-end cost of a request before it reaches the queue,
	// invisible in the gauges; 0 = engine.FrontEnd (2 to 5 ms + 0.25 us per
	// character), negative = none.
	APITime time.Duration
	// AbortPoll is how often a request looks whether its client still listens;
	// 0 = 1 s for v0.6.4 (iterate_with_cancellation) and at once for v0.19.
	AbortPoll time.Duration
	// StatsPoll is how often an idle V0 engine refreshes its gauges;
	// 0 = POLLING_TIMEOUT_MS = 10 s. V1 does not use it.
	StatsPoll time.Duration

	// Unmerged gives every token an event of its own. v0.19 otherwise joins the
	// tokens a slow reader is behind with, as V1's output collector does; v0.6.4
	// never does.
	Unmerged bool
	// MaxNumQueuedReqs and MaxNumQueuedTokens are the flags of these names: beyond so many
	// requests, waiting or running, or prompt tokens of those without a first token, the
	// replica refuses. 0 = no limit. vLLM has them from v0.29 on; ProfileV019 stands for it.
	MaxNumQueuedReqs, MaxNumQueuedTokens int
	// RequestIDHeaders is v0.19's --enable-request-id-headers.
	RequestIDHeaders bool
	// PromptTokensDetails is --enable-prompt-tokens-details: usage tells the
	// cached prompt tokens.
	PromptTokensDetails bool
	// EmbeddingDims is the length of embedding vectors; 0 = 384.
	EmbeddingDims int
	// Device, if set, is the GPU this replica shares under kvcached.
	Device *Device
	// WeightBytes is what the model's weights take of Device; 0 = 16 GB, an 8B
	// model in bf16.
	WeightBytes int64
	// RecordBodyBytes bounds the body kept per RecordedRequest; 0 = 64 KiB.
	RecordBodyBytes int

	Log io.Writer // one line per start, stop and fault change; nil = silent
}

func (c Config) withDefaults() (Config, error) {
	if c.Profile == "" {
		c.Profile = ProfileV019
	}
	if c.Profile != ProfileV064 && c.Profile != ProfileV019 {
		return c, fmt.Errorf("profile %q: want %q or %q", c.Profile, ProfileV064, ProfileV019)
	}
	if c.Model == "" {
		return c, fmt.Errorf("model %q: want the served model name", c.Model)
	}
	if c.Speed < 0 {
		return c, fmt.Errorf("speed %v: want more than 0", c.Speed)
	}
	if c.MaxNumQueuedReqs < 0 || c.MaxNumQueuedTokens < 0 {
		return c, fmt.Errorf("limits of %d queued requests and %d queued tokens: want 0 (none) or more", c.MaxNumQueuedReqs, c.MaxNumQueuedTokens)
	}
	if c.Profile == ProfileV064 && (c.MaxNumQueuedReqs > 0 || c.MaxNumQueuedTokens > 0) {
		return c, fmt.Errorf("profile %q takes all requests; want %q for a limit of those queued", c.Profile, ProfileV019)
	}
	if c.Speed == 0 {
		c.Speed = 1
	}
	if c.KeepAlive == 0 {
		c.KeepAlive = 5 * time.Second
	}
	if c.AbortPoll == 0 && c.Profile == ProfileV064 {
		c.AbortPoll = time.Second
	}
	if c.StatsPoll == 0 {
		c.StatsPoll = 10 * time.Second
	}
	if c.EmbeddingDims == 0 {
		c.EmbeddingDims = 384
	}
	if c.WeightBytes == 0 {
		c.WeightBytes = 16 << 30
	}
	if c.RecordBodyBytes == 0 {
		c.RecordBodyBytes = 64 << 10
	}
	if c.Log == nil {
		c.Log = io.Discard
	}
	c.Engine = c.engineConfig()
	return c, nil
}

// engineConfig completes Engine from the model's preset and the profile.
func (c Config) engineConfig() engine.Config {
	e := c.Engine
	if e.Preset == "" && e.Model == nil {
		e.Preset = presetName(c.Model)
	}
	if e.Profile == "" {
		e.Profile = c.Profile.engine()
	}
	if e.Seed == 0 {
		e.Seed = c.Seed
	}
	return e
}

// presetName is "" for a name no preset knows, which makes the engine use its
// default: an unknown name is a fine-tune more often than a new size.
func presetName(model string) string {
	p, ok := engine.PresetFor(model)
	if !ok {
		return ""
	}
	return p.Name
}

// serves reports whether name is one of the served names.
func (c Config) serves(name string) bool {
	if name == c.Model {
		return true
	}
	for _, a := range c.Aliases {
		if a == name {
			return true
		}
	}
	return false
}

// apiTime is the front-end cost in wall time; u in [0, 1) places it between a
// quiet and a busy server.
func (c Config) apiTime(promptBytes int, u float64) time.Duration {
	if c.APITime < 0 {
		return 0
	}
	d := c.APITime
	if d == 0 {
		d = engine.FrontEnd(promptBytes, u)
	}
	return time.Duration(float64(d) / c.Speed)
}

func (c Config) logf(format string, args ...any) {
	fmt.Fprintf(c.Log, "sim "+strings.TrimSuffix(format, "\n")+"\n", args...)
}
