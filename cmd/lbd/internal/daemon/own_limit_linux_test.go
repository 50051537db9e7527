package daemon_test

import (
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"lbd/balancer"
	"lbd/bench/sim"
)

// noDescriptors lets nobody in this process open another file until the test ends
// or the result is called. The limit is zero and not the lowest free descriptor: what
// goes on in the background may give up a lower one.
func noDescriptors(t *testing.T) (restore func()) {
	t.Helper()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	restore = func() { syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old) }
	t.Cleanup(restore)
	limitDescriptors(t, 0)
	return restore
}

// oneDescriptor is for a process without any: from now on one can be opened.
func oneDescriptor(t *testing.T) {
	t.Helper()
	free := uint64(0)
	for {
		if _, err := unix.FcntlInt(uintptr(free), unix.F_GETFD, 0); err == unix.EBADF {
			break
		}
		free++
	}
	limitDescriptors(t, free+1)
}

func limitDescriptors(t *testing.T, n uint64) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	limit.Cur = n
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
}

// When lbd runs out of descriptors it says so, and blames no replica for it.
func TestOutOfDescriptors(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, []string{r.URL()}, quiet...)
	w := p.dial()
	w.send("GET /health HTTP/1.1\r\nHost: lbd\r\n\r\n")
	w.answer("GET") // lbd has accepted
	restore := noDescriptors(t)
	for range 12 { // as many failures as would eject
		w.sendPost("/v1/completions", `{"model":"`+llama+`","prompt":"x","max_tokens":1}`)
		a := w.answer("POST")
		if _, code, _ := openAIError(t, a); a.StatusCode != 503 || code != "overloaded" || a.Header.Get("Retry-After") == "" {
			t.Fatalf("%s %s", a.Status, a.body)
		}
	}
	restore()
	if s := p.state(r); s.Health.State != balancer.Healthy || s.Health.Ejections != 0 {
		t.Errorf("the replica is %s after %d ejections", s.Health.State, s.Health.Ejections)
	}
	goodRequest(t, w)
}
