package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"lbd/bench/sim"
	"lbd/bench/sim/engine"
)

const defaultSimModel = "meta-llama/Llama-3.1-8B-Instruct"

// simLayouts are named sets of replicas: one model per replica.
var simLayouts = map[string][]string{
	// Three models, two replicas each, on consecutive ports.
	"seed": {
		defaultSimModel, defaultSimModel,
		"Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct",
		"mistralai/Mixtral-8x7B-Instruct-v0.1", "mistralai/Mixtral-8x7B-Instruct-v0.1",
	},
}

// simOptions are the flags of lbd sim.
type simOptions struct {
	listen   string
	replicas int
	models   []string
	layout   string
	profile  string
	speed    float64
	seed     uint64
	apiKey   string
	cached   bool

	loadTime, keepAlive                time.Duration
	maxModelLen, maxNumSeqs, numBlocks int
	maxQueuedReqs, maxQueuedTokens     int
}

func newSimCommand() *cobra.Command {
	o := &simOptions{}
	cmd := &cobra.Command{
		Use:   "sim [flags]",
		Short: "Run simulated vLLM replicas",
		Long: `Run one or more vLLM replicas without a GPU. They answer as vLLM v0.6.4 or v0.19
does: endpoints, metrics, errors, streams and connection behaviour, at the pace of
a simulated H100. Faults are switched with POST /sim/faults; GET /sim/stats counts
what happened. Runs until SIGINT or SIGTERM.`,
		Example: `  lbd sim
  lbd sim --layout seed --profile v0.6.4 --speed 4
  lbd sim --replicas 2 --model Qwen/Qwen2.5-7B-Instruct --listen 127.0.0.1:9000
  curl -X POST 127.0.0.1:8001/sim/faults -d '{"hang":{"count":1}}'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return o.run(ctx, cmd.OutOrStdout())
		},
	}
	o.addFlags(cmd)
	return cmd
}

func (o *simOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.listen, "listen", "127.0.0.1:8001", "`address` of the first replica; the others take the next ports")
	f.IntVar(&o.replicas, "replicas", 0, "number of replicas (default: one per --model)")
	f.StringArrayVar(&o.models, "model", nil, "served model `name`; repeatable, replicas take them in turn (default "+defaultSimModel+")")
	f.StringVar(&o.layout, "layout", "", "a named set instead of --model and --replicas: seed = 2 x Llama-3.1-8B, 2 x Qwen2.5-7B, 2 x Mixtral-8x7B")
	f.StringVar(&o.profile, "profile", string(sim.ProfileV019), "vLLM release to behave as: v0.6.4 or v0.19")
	f.Float64Var(&o.speed, "speed", 1, "run so many times as fast as real time")
	f.Uint64Var(&o.seed, "seed", 1, "of texts, lengths, step jitter and fault rates")
	f.DurationVar(&o.loadTime, "load-time", 0, "refuse connections that long after start, as a loading vLLM does")
	f.DurationVar(&o.keepAlive, "keep-alive", 5*time.Second, "close connections idle for that long")
	f.StringVar(&o.apiKey, "api-key", "", "bearer token clients need below /v1")
	f.BoolVar(&o.cached, "enable-prompt-tokens-details", false, "tell the cached prompt tokens in usage")
	f.IntVar(&o.maxModelLen, "max-model-len", 0, "longest prompt and output together, in tokens (default: the model's)")
	f.IntVar(&o.maxNumSeqs, "max-num-seqs", 0, "most requests in a batch (default: the release's)")
	f.IntVar(&o.maxQueuedReqs, "max-num-queued-reqs", 0, "refuse with 503 beyond so many requests, waiting or running, as vLLM 0.29 and newer (default: no limit)")
	f.IntVar(&o.maxQueuedTokens, "max-num-queued-tokens", 0, "refuse with 503 beyond so many prompt tokens without a first token, as vLLM 0.29 and newer (default: no limit)")
	f.IntVar(&o.numBlocks, "num-blocks", 0, "KV cache size in 16-token blocks (default: what an 80 GB card holds)")
}

// run serves until ctx ends.
func (o *simOptions) run(ctx context.Context, out io.Writer) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	models, err := o.resolve()
	if err != nil {
		return err
	}
	addrs, err := consecutive(o.listen, len(models))
	if err != nil {
		return usageError{err}
	}
	var servers []*sim.Server
	defer func() {
		for _, s := range servers {
			s.Stop()
		}
	}()
	for i, model := range models {
		s, err := sim.New(o.config(model, i))
		if err != nil {
			return usageError{err}
		}
		if err := s.Start(addrs[i]); err != nil {
			return o.startError(addrs[i], i, err)
		}
		servers = append(servers, s)
		fmt.Fprintf(out, "%s  %s  vLLM %s  %d KV tokens\n", s.URL(), model, s.Config().Profile, s.KVTokens())
	}
	<-ctx.Done()
	return nil
}

// check finds what cannot be meant. To the simulator 0 is a default and a name is
// a field; on a command line both are what somebody typed.
func (o *simOptions) check() error {
	switch {
	case !slices.Contains(sim.Profiles(), sim.Profile(o.profile)):
		return usagef("--profile %q; want %s", o.profile, profileNames())
	case !(o.speed > 0):
		return usagef("--speed %v; want more than 0", o.speed)
	case o.keepAlive <= 0:
		return usagef("--keep-alive %v; want more than 0", o.keepAlive)
	case o.loadTime < 0:
		return usagef("--load-time %v; want 0 or more", o.loadTime)
	case slices.Contains(o.models, ""):
		return usagef(`--model ""; want the served model name`)
	}
	for flag, n := range map[string]int{
		"max-model-len": o.maxModelLen, "max-num-seqs": o.maxNumSeqs, "num-blocks": o.numBlocks,
		"max-num-queued-reqs": o.maxQueuedReqs, "max-num-queued-tokens": o.maxQueuedTokens,
	} {
		if n < 0 {
			return usagef("--%s %d; want 0 (the default) or more", flag, n)
		}
	}
	return nil
}

// profileNames lists the releases of vLLM there are.
func profileNames() string {
	var names []string
	for _, p := range sim.Profiles() {
		names = append(names, string(p))
	}
	return strings.Join(names, " or ")
}

// resolve names the model of every replica.
func (o *simOptions) resolve() ([]string, error) {
	if o.layout != "" {
		models, ok := simLayouts[o.layout]
		if !ok {
			return nil, usagef("--layout %q; want seed", o.layout)
		}
		if len(o.models) > 0 || o.replicas != 0 {
			return nil, usagef("--layout goes neither with --model nor with --replicas")
		}
		return models, nil
	}
	models := o.models
	if len(models) == 0 {
		models = []string{defaultSimModel}
	}
	n := o.replicas
	if n < 0 || n > 0 && n < len(models) {
		return nil, usagef("--replicas %d; want at least one for each of %d models", n, len(models))
	}
	if n == 0 {
		n = len(models)
	}
	all := make([]string, n)
	for i := range all {
		all[i] = models[i%len(models)]
	}
	return all, nil
}

func (o *simOptions) config(model string, i int) sim.Config {
	return sim.Config{
		Model: model, Profile: sim.Profile(o.profile), Speed: o.speed, Seed: o.seed + uint64(i),
		APIKey: o.apiKey, KeepAlive: o.keepAlive, LoadTime: o.loadTime, PromptTokensDetails: o.cached,
		MaxNumQueuedReqs: o.maxQueuedReqs, MaxNumQueuedTokens: o.maxQueuedTokens,
		Engine: engine.Config{MaxModelLen: o.maxModelLen, MaxNumSeqs: o.maxNumSeqs, NumBlocks: o.numBlocks},
	}
}

// startError says which flag to change; a taken port is not a mistake in the
// flags, so it has its own exit code.
func (o *simOptions) startError(addr string, i int, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("replica %d: %s is taken; want free ports from --listen %s on", i+1, addr, o.listen)
	} else {
		err = fmt.Errorf("replica %d: --listen %s: %w", i+1, addr, err)
	}
	return exitError{exitStart, err}
}

// consecutive returns n addresses with rising ports. Port 0 stays 0: any free
// one.
func consecutive(listen string, n int) ([]string, error) {
	host, text, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, fmt.Errorf("--listen %q: %s; want host:port", listen, strings.TrimPrefix(err.Error(), "address "+listen+": "))
	}
	first, err := strconv.Atoi(text)
	if err != nil || first < 0 || first+n-1 > 65535 {
		return nil, fmt.Errorf("--listen %q: want a port of 0 to %d for %d replicas", listen, 65536-n, n)
	}
	addrs := make([]string, n)
	for i := range addrs {
		port := first
		if first != 0 {
			port += i
		}
		addrs[i] = net.JoinHostPort(host, strconv.Itoa(port))
	}
	return addrs, nil
}
