package handover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lbd/internal/loopback"
)

// A process that is started by Start in a test is this test binary; what it does then
// is said here.
const behave = "HANDOVER_TEST"

func TestMain(m *testing.M) {
	if as := os.Getenv(behave); as != "" && os.Getenv(variable) != "" {
		os.Exit(successor(as))
	}
	goleak.VerifyTestMain(m)
}

// successor plays the new process.
func successor(as string) int {
	in, err := Inherit()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 9
	}
	switch as {
	case "serve": // one connection, and then the end
		ln, _ := in.Take(Main, "here")
		in.Ready()
		c, err := ln.Accept()
		if err != nil {
			return 9
		}
		defer c.Close()
		fmt.Fprintf(c, "drained %v, args %d, handover %t", in.Drained(), len(os.Args), os.Getenv(variable) != "")
	case "refuse":
		in.Failed(errors.New("line 1\nline 2"))
		return 1
	case "hang":
		time.Sleep(time.Hour)
	case "babble":
		fmt.Fprintln(in.ready, strings.Repeat("x", 2*maxAnswer))
	case "die":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		time.Sleep(time.Hour)
	}
	return 0
}

func listening(t *testing.T) *net.TCPListener {
	t.Helper()
	ln, err := Listen(loopback.Address(), false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func TestStart(t *testing.T) {
	t.Setenv(behave, "serve")
	ln := listening(t)
	pid, err := Start(t.Context(), []Socket{{Main, "here", ln}}, []string{"a:1", "b:2"})
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 100)
	n, err := c.Read(b)
	if want := fmt.Sprintf("drained [a:1 b:2], args %d, handover false", len(os.Args)); string(b[:n]) != want {
		t.Errorf("the next process says %q, %v; want %q", b[:n], err, want)
	}
	p.Wait()
}

// The socket goes on waiting without blocking, which it shares with its copies.
func TestStartLeavesTheSocketAlone(t *testing.T) {
	t.Setenv(behave, "refuse")
	ln := listening(t)
	if _, err := Start(t.Context(), []Socket{{Main, "here", ln}}, nil); err == nil {
		t.Fatal("no error")
	}
	ended := make(chan error, 1)
	go func() { _, err := ln.Accept(); ended <- err }()
	time.Sleep(20 * time.Millisecond) // a chance to block in accept(2), where Close would not reach it
	ln.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Accept does not end")
	}
}

func TestStartFails(t *testing.T) {
	for as, want := range map[string]string{
		"refuse": "line 1; line 2", "leave": "ended before it was ready", "die": "killed", "babble": "EOF|ended before|answered",
	} {
		t.Setenv(behave, as)
		_, err := Start(t.Context(), []Socket{{Main, "here", listening(t)}}, nil)
		ok := false
		for w := range strings.SplitSeq(want, "|") {
			ok = ok || err != nil && strings.Contains(err.Error(), w)
		}
		if !ok || strings.Contains(err.Error(), strings.Repeat("x", maxAnswer+1)) {
			t.Errorf("%s: %v; want %s", as, err, want)
		}
	}
}

func TestStartIsAbandoned(t *testing.T) {
	t.Setenv(behave, "hang")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Start(ctx, nil, nil); !errors.Is(err, ctx.Err()) || ctx.Err() == nil {
		t.Errorf("%v; want that of the context", err)
	}
}

// A name that leads nowhere is told, rather than run what this process was made of.
func TestProgram(t *testing.T) {
	dir, old := t.TempDir(), os.Args[0]
	defer func() { os.Args[0] = old }()
	name := filepath.Join(dir, "lbd")
	if err := os.Symlink(old, name); err != nil {
		t.Fatal(err)
	}
	os.Args[0] = name
	if got, err := program(); got != name || err != nil {
		t.Errorf("%s, %v; want the link itself", got, err)
	}
	os.Remove(name)
	if got, err := program(); err == nil {
		t.Errorf("%s; want an error", got)
	}
	os.Args[0] = "a name that a supervisor has made up"
	if got, err := program(); err != nil || got == "" {
		t.Errorf("%s, %v; want this program", got, err)
	}
}

func given(t *testing.T, ln net.Listener) *os.File {
	t.Helper()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func named(f *os.File, name string) *os.File {
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		panic(err)
	}
	f.Close()
	return os.NewFile(uintptr(fd), name)
}

func TestActivated(t *testing.T) {
	for _, c := range []struct{ names, has, lacks, want string }{
		{"listen", Main, Admin, ""},
		{"lbd.socket", Main, Admin, ""},
		{"LISTEN_FD_3", Main, Admin, ""},
		{"admin_listen", Admin, Main, ""},
		{"admin_listen listen", Main, "", ""},
		{"listen listen", Main, "", "came twice"},
		{"lbd.socket admin_listen", Admin, Main, "FileDescriptorName=listen or admin_listen"},
	} {
		in := &Inherited{sockets: map[string]*socket{}}
		var files []*os.File
		for name := range strings.FieldsSeq(c.names) {
			files = append(files, named(given(t, listening(t)), name))
		}
		err := in.takeActivated(files)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.names, err, c.want)
		}
		if ln, fixed := in.Take(c.has, "127.0.0.1:1"); ln == nil || !fixed {
			t.Errorf("%s: no %s", c.names, c.has)
		} else {
			ln.Close()
		}
		if ln, _ := in.Take(c.lacks, "127.0.0.1:1"); ln != nil {
			t.Errorf("%s: there is a %s", c.names, c.lacks)
		}
		in.Ready()
	}
}

func TestNoSocket(t *testing.T) {
	dir := t.TempDir()
	file, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	unix, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	u, err := unix.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	ln := listening(t)
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	conn, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	for what, f := range map[string]*os.File{"want a listening TCP socket": file, "want TCP": u, "Accept=no": conn} {
		in := &Inherited{sockets: map[string]*socket{}}
		if err := in.add(Main, "", f); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v; want %q", err, what)
		}
		in.Ready()
	}
}

// A socket that was opened for another address is not what the configuration wants.
func TestTake(t *testing.T) {
	in := &Inherited{sockets: map[string]*socket{Main: {listening(t), ":8080"}}}
	if ln, _ := in.Take(Main, ":8081"); ln != nil {
		t.Error("it is given out for another address")
	}
	if ln, fixed := in.Take(Main, ":8080"); ln == nil || fixed {
		t.Error("it is not given out for its own")
	}
	if ln, _ := in.Take(Main, ":8080"); ln != nil {
		t.Error("it is given out twice")
	}
	var none *Inherited
	if ln, _ := none.Take(Main, ":8080"); ln != nil || none.Any() || none.Follows() || none.Drained() != nil {
		t.Error("nothing was given, and there is something")
	}
	none.Ready()
	none.Failed(errors.New("x"))
}

func TestListenShared(t *testing.T) {
	a, err := Listen("127.0.0.1:0", true)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := Listen(a.Addr().String(), true)
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	if c, err := Listen(a.Addr().String(), false); err == nil {
		c.Close()
		t.Error("shared with one that does not share")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`{"sockets":[{"name":"listen","address":":8080","fd":4},{"name":"admin_listen","address":"","fd":5}],"ready":3,"drained":["a:1"]}`,
		`{"sockets":[],"ready":3}`, `{"sockets":[{"fd":3}],"ready":3}`, `{"ready":0}`, `{}`, `null`, `[]`, ``, `{"ready":1e99}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parse(text)
		if err != nil {
			return
		}
		seen := map[int]bool{m.Ready: true}
		for _, fd := range m.fds() {
			if seen[fd] || fd < firstFD {
				t.Fatalf("descriptor %d of %q", fd, text)
			}
			seen[fd] = true
		}
		if m.Ready < firstFD {
			t.Fatalf("descriptor %d of %q", m.Ready, text)
		}
	})
}

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Skipf("no such path for a socket: %v", err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	for _, step := range []struct {
		say  func() error
		want string
	}{
		{NotifyReady, "READY=1"}, {NotifyStopping, "STOPPING=1"}, {NotifyReloading, "RELOADING=1\nMONOTONIC_USEC="},
		{func() error { return NotifyMain(77) }, "MAINPID=77\nREADY=1"},
	} {
		if err := step.say(); err != nil {
			t.Error(err)
		}
		b := make([]byte, 100)
		n, err := c.Read(b)
		if err != nil || !strings.HasPrefix(string(b[:n]), step.want) {
			t.Errorf("%q, %v; want %q", b[:n], err, step.want)
		}
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if err := NotifyReady(); err != nil {
		t.Error(err)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	if err := NotifyReady(); err == nil {
		t.Error("nobody listens, and no error")
	}
}
