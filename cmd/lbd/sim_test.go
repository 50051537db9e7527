package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSimResolve(t *testing.T) {
	cases := []struct {
		name string
		o    simOptions
		want []string
		err  string
	}{
		{"default", simOptions{}, []string{defaultSimModel}, ""},
		{"in turn", simOptions{models: []string{"a", "b"}, replicas: 3}, []string{"a", "b", "a"}, ""},
		{"one each", simOptions{models: []string{"a", "b"}}, []string{"a", "b"}, ""},
		{"layout", simOptions{layout: "seed"}, simLayouts["seed"], ""},
		{"layout unknown", simOptions{layout: "x"}, nil, `layout "x"`},
		{"layout and model", simOptions{layout: "seed", models: []string{"a"}}, nil, "--layout"},
		{"too few", simOptions{models: []string{"a", "b"}, replicas: 1}, nil, "--replicas 1"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.o.resolve()
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatalf("error %v, want %q", err, c.err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestConsecutive(t *testing.T) {
	got, err := consecutive("127.0.0.1:8001", 3)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"127.0.0.1:8001", "127.0.0.1:8002", "127.0.0.1:8003"}, got); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"8001", "x:y", "h:65535", "h:-1"} {
		if _, err := consecutive(bad, 2); err == nil || !strings.Contains(err.Error(), "--listen") {
			t.Errorf("%q: error %v, want one that names --listen", bad, err)
		}
	}
}

// lineWriter hands over each line as it is written.
type lineWriter chan string

func (w lineWriter) Write(b []byte) (int, error) { w <- string(b); return len(b), nil }

func TestSimServesUntilStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	lines, done := make(lineWriter, 8), make(chan error)
	o := &simOptions{listen: "127.0.0.1:0", models: []string{"a/b"}, profile: "v0.6.4", speed: 1, keepAlive: time.Second}
	go func() { done <- o.run(ctx, lines) }()
	line := <-lines
	if !strings.Contains(line, "a/b") || !strings.Contains(line, "v0.6.4") || !strings.Contains(line, "KV tokens") {
		t.Errorf("line %q, want URL, model, profile and KV tokens", line)
	}
	url, _, _ := strings.Cut(line, " ")
	res, err := http.Get(url + "/version")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if string(body) != `{"version":"0.6.4.post1"}` {
		t.Errorf("version %s", body)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestSimPortTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	o := &simOptions{listen: ln.Addr().String(), profile: "v0.19", speed: 1, keepAlive: time.Second}
	err = o.run(context.Background(), io.Discard)
	var exit exitError
	if !errors.As(err, &exit) || exit.code != exitStart || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("error %v, want exit code %d and the flag", err, exitStart)
	}
}

// What cannot be meant names its flag and the bad value, and nothing is started.
func TestSimBadFlags(t *testing.T) {
	for _, c := range [][2]string{
		{"--profile=v0.5", `--profile "v0.5"`}, {"--speed=0", "--speed 0"}, {"--speed=-1", "--speed -1"}, {"--speed=NaN", "--speed NaN"},
		{"--keep-alive=0s", "--keep-alive 0s"}, {"--keep-alive=-1s", "--keep-alive -1s"}, {"--load-time=-1s", "--load-time -1s"},
		{"--max-model-len=-5", "--max-model-len -5"}, {"--max-num-seqs=-1", "--max-num-seqs -1"}, {"--num-blocks=-1", "--num-blocks -1"},
		{"--model=", `--model ""`}, {"--layout=x", `--layout "x"`},
	} {
		got := lbd(t, "sim", "--listen=127.0.0.1:0", c[0])
		if got.code != exitUsage || got.stdout != "" || !strings.HasPrefix(got.stderr, "lbd: "+c[1]+"; want ") {
			t.Errorf("%s: %+v; want an error that begins %q", c[0], got, c[1])
		}
	}
}
