package daemon_test

import (
	"os"
	"os/exec"
	"testing"

	"lbd/internal/loopback"
)

// A log that nobody reads from the first line on, as behind `| head -1`, ends nobody.
func TestLogReaderIsGone(t *testing.T) {
	binary := built(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	addr := loopback.Free(t)
	p := &process{t: t, cmd: exec.Command(binary, "--listen", addr, "--admin-listen", "off", "--endpoints", "http://127.0.0.1:1"), done: make(chan struct{}), url: "http://" + addr}
	p.cmd.Stderr, p.cmd.Env = w, []string{}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go func() { defer close(p.done); p.cmd.Wait() }()
	t.Cleanup(func() { p.cmd.Process.Kill(); <-p.done })
	until(t, "serving", func() bool {
		select {
		case <-p.done:
			t.Fatalf("ended: %v", p.cmd.ProcessState)
		default:
		}
		status, _ := p.get("/version")
		return status == 200
	})
}
