//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// files is the descriptor limit everything should have: 10,000 streams are 20,000
// connections of a proxy, and as many of the load.
const files = 65536

// pinMain becomes another program on some CPUs only: what a process inherits at
// exec is what it sees from its first instruction, so Go sets GOMAXPROCS by it.
//
//	wire pin 1 /usr/sbin/nginx -c nginx.conf
func pinMain(args []string) error {
	if len(args) < 2 {
		return errors.New("pin wants CPUs and a command")
	}
	var set unix.CPUSet
	for _, f := range strings.Split(args[0], ",") {
		cpu, err := strconv.Atoi(f)
		if err != nil {
			return fmt.Errorf("pin to cpu %q: %w", f, err)
		}
		set.Set(cpu)
	}
	runtime.LockOSThread()
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin to cpu %q: %w", args[0], err)
	}
	return syscall.Exec(args[1], args[1:], os.Environ())
}

// raiseFiles lifts the descriptor limit for this process and its children, up to
// files or as far as it may, and returns it.
func raiseFiles() (int, error) {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return 0, err
	}
	// syscall's Setrlimit, not unix's: Go gives children the limit it found at its
	// own start unless this one was called.
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: files, Max: max(lim.Max, files)}); err == nil {
		return files, nil
	}
	lim.Cur = min(files, lim.Max)
	return int(lim.Cur), syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim)
}

// proc is a program the rig started and ends.
type proc struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error
}

// start runs a program on some CPUs with its output in a file.
func start(name, cpus, dir string, stdin io.Reader, stdout io.Writer, argv ...string) (*proc, error) {
	self, err := self()
	if err != nil {
		return nil, err
	}
	p := &proc{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	p.cmd = exec.Command(self, append([]string{"pin", cpus}, argv...)...)
	p.cmd.Dir = dir
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = stdin, log, log
	if stdout != nil {
		p.cmd.Stdout = stdout
	}
	// A group of its own, so that Ctrl-C reaches the rig first; it dies with the rig.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// stop ends the program and all its children, and waits.
func (p *proc) stop() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

// tail is the end of what the program wrote.
func (p *proc) tail() string {
	b, _ := os.ReadFile(p.log)
	return string(b[max(0, len(b)-1500):])
}

// ready waits until the program answers a request through the replica.
func (p *proc) ready(ctx context.Context, port int, ask []byte) error {
	deadline := time.Now().Add(15 * time.Second)
	var last error
	for time.Now().Before(deadline) {
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %v\n%s", p.name, p.err, p.tail())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if last = try(port, ask); last == nil {
			return nil
		}
	}
	return fmt.Errorf("%s is not ready after 15 s: %w\n%s", p.name, last, p.tail())
}

func try(port int, ask []byte) error {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write(ask); err != nil {
		return err
	}
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		return err
	}
	line, _, _ := bytes.Cut(b[:n], []byte("\r\n"))
	// A proxy that answers for itself is not ready, whatever it says.
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) || !bytes.Contains(b[:n], []byte("chatcmpl-")) {
		return fmt.Errorf("it answers %q, not with a completion", line)
	}
	return nil
}

// freePorts returns the first of a block of ports nobody listens on, from a
// number on: two rigs may run beside each other.
func freePorts(first int) (int, error) {
	const step, blocks = 20, 20
	for base := first; base < first+step*blocks; base += step {
		if free(base, base+1, base+10, base+11, base+12) {
			return base, nil
		}
	}
	return 0, fmt.Errorf("no free ports from %d to %d", first, first+step*blocks)
}

func free(ports ...int) bool {
	for _, port := range ports {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}
