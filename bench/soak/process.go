//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// process is a program that was started, with all it writes in a file.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error // of its end; read after done
}

// start runs a program. Should the rig be killed, the kernel kills it too.
func start(log string, path string, args ...string) (*process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	p := &process{cmd: exec.Command(path, args...), log: log, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.Env = environment()
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// environment is the caller's without what would configure lbd.
func environment() (env []string) {
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "LBD_") && !strings.HasPrefix(e, "VLLM_") && !strings.HasPrefix(e, "METRICS_") {
			env = append(env, e)
		}
	}
	return env
}

// kill ends the process at once and waits.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// build makes lbd from the tree this command runs in.
func build(ctx context.Context, path string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, "lbd/cmd/lbd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build of lbd: %w\n%s", err, out)
	}
	return nil
}

// block returns the first of n ports in a row that nobody listens on.
func block(first, n int) (int, error) {
	for base := first; base < first+20*n; base += n {
		if free(base, n) {
			return base, nil
		}
	}
	return 0, fmt.Errorf("no %d free ports from %d on", n, first)
}

func free(base, n int) bool {
	for port := base; port < base+n; port++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

// commit is the tree lbd is built from, with a mark when it has changes.
func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// sleep waits, and tells whether it was for the whole time.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// descriptors counts what a process has open.
func descriptors(pid int) int {
	entries, err := os.ReadDir(filepath.Join("/proc", fmt.Sprint(pid), "fd"))
	if err != nil {
		return 0
	}
	return len(entries)
}
