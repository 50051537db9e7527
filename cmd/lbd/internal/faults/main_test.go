package faults

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/spf13/pflag"
	"go.uber.org/goleak"

	"lbd/balancer/strategy"
	"lbd/cmd/lbd/internal/config"
	"lbd/cmd/lbd/internal/daemon"
	"lbd/internal/zone"
)

// The test binary is also the lbd under test: with flagsVar set it serves, so that
// lbd runs with the race detector if the tests do, and can be killed.
const (
	flagsVar    = "FAULTS_LBD_FLAGS" // a JSON list of flags and their values
	resolverVar = "FAULTS_LBD_DNS"   // host:port of the DNS server to ask
)

// atOnce is how many rows run at once: they mostly wait.
const atOnce = 5

func TestMain(m *testing.M) {
	if flags := os.Getenv(flagsVar); flags != "" {
		if err := serve(flags, os.Getenv(resolverVar)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		f.Value.Set(strconv.Itoa(atOnce)) // nobody has asked for another number
	}
	goleak.VerifyTestMain(m)
}

// serve is lbd as cmd/lbd runs it.
func serve(flags, resolver string) error {
	if resolver != "" {
		net.DefaultResolver = zone.Asking(resolver)
	}
	var all []string
	if err := json.Unmarshal([]byte(flags), &all); err != nil {
		return err
	}
	load := func() (*config.Config, error) {
		fs := pflag.NewFlagSet("lbd", pflag.ContinueOnError)
		config.Flags(fs)
		for i := 0; i < len(all); i += 2 {
			if err := fs.Set(all[i], all[i+1]); err != nil {
				return nil, fmt.Errorf("--%s %s: %w", all[i], all[i+1], err)
			}
		}
		return config.Load(config.Options{Flags: fs, Strategies: strategy.Names(), ReadFile: os.ReadFile})
	}
	cfg, err := load()
	if err != nil {
		return err
	}
	log, lines := daemon.NewLogger(os.Stderr, cfg)
	defer lines.Close()
	d, err := daemon.New(cfg, daemon.Options{Log: log, Lines: lines, Version: "test", Load: load})
	if err != nil {
		return err
	}
	return d.Run(context.Background())
}

// number reads a setting of the whole run from the environment.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q; want a number", name, text)
	}
	return n
}
