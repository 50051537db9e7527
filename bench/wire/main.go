//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// options is what the flags say.
type options struct {
	cells    []cell
	peers    []peer
	rounds   int
	seconds  float64
	warm     float64
	out      string // folder of the results; empty: none are written
	name     string // of their files, without the extension
	port     int
	loadCPU  int
	proxyCPU int
	profile  string
	mutex    string
	seed     uint64
	quiet    float64 // share of the machine others may use
	sleep    bool    // processors may
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "wire:", err)
		os.Exit(1)
	}
}

// run is the rig, or one of the roles it starts itself in.
func run(args []string) error {
	if len(args) > 1 {
		switch args[0] {
		case "pin":
			return pinMain(args[1:])
		case "load":
			return role(loadMain, args[1:])
		case "relay":
			return role(relayMain, args[1:])
		case "awake":
			return role(awakeMain, args[1:])
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "wire")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	o, err := parse(ctx, args, dir)
	if err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	return measure(ctx, o, dir)
}

// role runs a role that takes ports.
func role(main func(ports []int) error, args []string) error {
	var ports []int
	for _, a := range args {
		port, err := strconv.Atoi(a)
		if err != nil {
			return fmt.Errorf("port %q: %w", a, err)
		}
		ports = append(ports, port)
	}
	return main(ports)
}

// list is a flag that may be given more than once.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func parse(ctx context.Context, args []string, dir string) (options, error) {
	fs := flag.NewFlagSet("wire", flag.ContinueOnError)
	var o options
	var builds, variants list
	names := fs.String("cells", "all", "cells to measure, of "+cellNames())
	peers := fs.String("peers", "all", "peers, of direct,relay,haproxy-tcp,haproxy,nginx,caddy,lbd; lbd is every build and variant, each has its own name too")
	fs.IntVar(&o.rounds, "rounds", 5, "rounds; each has every peer once, shuffled")
	fs.Float64Var(&o.seconds, "seconds", 2, "measured seconds of each run")
	fs.Float64Var(&o.warm, "warm", 0.5, "seconds before them")
	fs.StringVar(&o.out, "o", "", "folder to write wire.md, wire.json and wire.svg (or features.*) to, beside the cells an earlier run left there; empty: none")
	fs.IntVar(&o.port, "port", 21000, "ports to use: a free block of 20 from here on; below the kernel's range for outgoing connections")
	fs.IntVar(&o.loadCPU, "load-cpu", 0, "CPU of the load")
	fs.IntVar(&o.proxyCPU, "proxy-cpu", 1, "CPU of the proxy")
	fs.Var(&builds, "lbd", "binary of lbd, PATH or NAME=PATH; may be repeated to compare builds; default: built from this tree")
	common := fs.String("lbd-args", "", "further flags for every lbd, separated by spaces")
	fs.Var(&variants, "variant", "NAME=FLAGS: a further lbd of the first build with these flags; may be repeated")
	fs.StringVar(&o.profile, "pprof", "", "write a CPU profile of each lbd's last run to this file (with cell and name put before the extension)")
	fs.StringVar(&o.mutex, "mutex", "", "write what each lbd's last run waited for locks to this file, likewise")
	fs.Uint64Var(&o.seed, "seed", 1, "of the shuffle")
	fs.Float64Var(&o.quiet, "quiet", 0.05, "share of the machine others may use before a run waits or is repeated")
	fs.BoolVar(&o.sleep, "sleep", false, "let processors sleep when there is nothing to do; a virtual machine may get them back late")
	costs := fs.Bool("features", false, "what lbd's optional features cost: lbd and its variants instead of its rivals, cells "+featureCells+" unless told, into features.md, .json and .svg")
	quick := fs.Bool("quick", false, "one round of half a second: does it run at all")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("argument %q is not wanted", fs.Arg(0))
	}
	if *quick {
		o.rounds, o.seconds, o.warm = 1, 0.5, 0.2
	}
	o.name = "wire"
	if *costs {
		o.name = "features"
		for _, f := range features {
			variants = append(variants, f.Name+"="+strings.Join(f.Args, " "))
		}
		*names = cmp.Or(told(fs, "cells"), featureCells)
		*peers = cmp.Or(told(fs, "peers"), "lbd")
	}
	var err error
	if o.cells, err = chosen(*names); err != nil {
		return o, err
	}
	all, err := lbds(ctx, builds, variants, strings.Fields(*common), dir)
	if err != nil {
		return o, err
	}
	for i := range all {
		if at := slices.IndexFunc(features, func(f variant) bool { return f.Name == all[i].name }); at >= 0 && *costs {
			all[i].head, all[i].tls = features[at].Head, features[at].TLS
		}
	}
	all = append(all, rivals...)
	o.peers, err = choosePeers(*peers, all)
	return o, err
}

// told is the value of a flag if it was given.
func told(fs *flag.FlagSet, name string) (value string) {
	fs.Visit(func(f *flag.Flag) {
		if f.Name == name {
			value = f.Value.String()
		}
	})
	return value
}

// lbds returns the builds and variants of lbd to measure.
func lbds(ctx context.Context, builds, variants list, common []string, dir string) ([]peer, error) {
	if len(builds) == 0 {
		path := filepath.Join(dir, "lbd")
		if err := build(ctx, path); err != nil {
			return nil, err
		}
		builds = list{path}
	}
	var out []peer
	first := ""
	for i, b := range builds {
		name, path, ok := strings.Cut(b, "=")
		if !ok {
			name, path = "lbd", b
			if i > 0 {
				name = fmt.Sprintf("lbd%d", i+1)
			}
		}
		path, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			first = path
		}
		out = append(out, lbdPeer(name, path, common))
	}
	for _, v := range variants {
		name, flags, _ := strings.Cut(v, "=")
		out = append(out, lbdPeer(name, first, append(slices.Clone(common), strings.Fields(flags)...)))
	}
	return out, nil
}

func choosePeers(names string, all []peer) ([]peer, error) {
	if names == "all" {
		return all, nil
	}
	var out []peer
	for _, n := range strings.Split(names, ",") {
		found := false
		for _, p := range all {
			// "lbd" is every build and variant of it.
			if p.name == n || n == "lbd" && p.lbd {
				if !slices.ContainsFunc(out, func(q peer) bool { return q.name == p.name }) {
					out = append(out, p)
				}
				found = true
			}
		}
		if !found {
			return nil, fmt.Errorf("peer %q is unknown", n)
		}
	}
	return out, nil
}
