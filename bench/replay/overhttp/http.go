package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"lbd/bench/load"
	"lbd/bench/replay"
	"lbd/bench/sim"
)

const model = "meta-llama/Llama-3.1-8B-Instruct"

// binary is the lbd to measure; remove takes it away again when it was built here.
func (o *options) binary(ctx context.Context) (path string, remove func(), err error) {
	if o.lbd != "" {
		return o.lbd, func() {}, nil
	}
	dir, err := os.MkdirTemp("", "overhttp")
	if err != nil {
		return "", nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	path = filepath.Join(dir, "lbd")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", path, "lbd/cmd/lbd").CombinedOutput(); err != nil {
		remove()
		return "", nil, fmt.Errorf("cannot build lbd: %w\n%s", err, out)
	}
	return path, remove, nil
}

// http sends the slice through one lbd for each strategy, all at the same time.
func (s *slice) http(ctx context.Context, binary string, names []string, replicas int, seed uint64) ([]served, error) {
	all, errs := make([]served, len(names)), make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			all[i], errs[i] = s.through(ctx, binary, name, replicas, seed)
			if errs[i] != nil {
				errs[i] = fmt.Errorf("%s: %w", name, errs[i])
			}
		})
	}
	wg.Wait()
	return all, errors.Join(errs...)
}

// through measures one strategy.
func (s *slice) through(ctx context.Context, binary, name string, replicas int, seed uint64) (served, error) {
	one := served{Strategy: name}
	var urls []string
	for i := range replicas {
		r, err := sim.New(sim.Config{Model: model, Seed: seed<<16 + uint64(i), PromptTokensDetails: true})
		if err != nil {
			return one, err
		}
		if err := r.Start("127.0.0.1:0"); err != nil {
			return one, err
		}
		defer r.Kill()
		urls = append(urls, r.URL())
	}
	p, err := startLBD(ctx, binary, name, s.refused, urls)
	if err != nil {
		return one, err
	}
	defer p.stop()
	records := make([]load.Record, len(s.arrivals))
	_, err = load.Run(ctx, load.Options{
		Target: p.url, Seed: seed, Requests: s.requests, Timeout: 5 * time.Minute,
		OnRecord: func(r load.Record) { records[r.Index] = r },
	})
	if err == nil {
		err = ctx.Err()
	}
	s.add(&one, records)
	return one, err
}

func (s *slice) requests(yield func(load.Request) bool) {
	for _, a := range s.arrivals {
		q := load.Request{
			At: a.At, Model: model, PromptTokens: a.PromptTokens, OutputTokens: a.OutputTokens, Stream: true,
			Blocks: a.Blocks, BlockTokens: 512,
		}
		if !yield(q) {
			return
		}
	}
}

// add counts what the client saw, from the scheduled time on: what it was late itself is part of it, and told.
func (s *slice) add(one *served, records []load.Record) {
	cached, prompt := 0, 0
	for i := range records {
		r := &records[i]
		cached += r.CachedTokens
		prompt += r.PromptTokens
		one.LateMS = max(one.LateMS, round1(millis(r.Lateness())))
		if !s.counted(i) {
			continue
		}
		ttft := millis(r.TTFT())
		switch {
		case r.Status == http.StatusTooManyRequests:
			one.Refused++
			ttft = failed
		case !r.OK() || r.Events == 0:
			one.Failed++
			ttft = failed
		}
		one.TTFT = append(one.TTFT, round1(ttft))
		one.TPOT = append(one.TPOT, round1(millis(r.TPOT())))
	}
	if prompt > 0 {
		one.HitRate = float64(cached) / float64(prompt)
	}
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// process is an lbd that runs.
type process struct {
	cmd *exec.Cmd
	url string
}

func startLBD(ctx context.Context, binary, name string, refused replay.Limits, urls []string) (*process, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	p := &process{url: "http://" + addr}
	p.cmd = exec.CommandContext(ctx, binary, "--listen", addr, "--admin-listen", "off", "--strategy", name,
		"--endpoints", strings.Join(urls, ","), "--log-level", "error", "--drain-timeout", "1s",
		"--admission-max-ttft", refused.TTFT.String(), "--admission-max-tpot", refused.TPOT.String())
	p.cmd.Stdout, p.cmd.Stderr = os.Stderr, os.Stderr
	p.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "LBD_") || strings.HasPrefix(v, "VLLM_") || strings.HasPrefix(v, "METRICS_")
	})
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if err := p.ready(ctx, len(urls)); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// freeAddress is one that nobody listens on now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// ready waits until lbd says that all replicas are healthy.
func (p *process) ready(ctx context.Context, replicas int) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	want := fmt.Sprintf(`"healthy_replicas":%d`, replicas)
	for {
		if body, err := get(ctx, p.url+"/health"); err == nil && strings.Contains(body, want) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("lbd at %s did not become ready: %w", p.url, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func get(ctx context.Context, url string) (string, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(q)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text := make([]byte, 4096)
	n, _ := res.Body.Read(text)
	return string(text[:n]), nil
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	_ = p.cmd.Wait()                          // that it was signalled is no error here
}
