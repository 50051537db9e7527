package handover

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Socket is a listening socket to be passed on.
type Socket struct {
	Name     string
	Address  string // what the configuration says; "" where systemd has opened it
	Listener *net.TCPListener
}

// errInit refuses what would end a container: the process that its runtime waits for
// is this one, whoever else runs.
var errInit = errors.New("this lbd is process 1, whose end is the end of its container; want a new container, or an init in front of lbd (docker run --init)")

// Start runs this program anew, with its present path, arguments and environment, and
// returns when the new process serves. An error means that there is no new process,
// and why; so does the end of ctx.
func Start(ctx context.Context, sockets []Socket, drained []string) (pid int, err error) {
	if os.Getpid() == 1 {
		return 0, errInit
	}
	path, err := program()
	if err != nil {
		return 0, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	child, err := spawn(path, sockets, drained, w)
	w.Close()
	if err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { r.SetReadDeadline(longAgo) })
	defer stop()
	if err := await(r); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return 0, errors.Join(err, reap(ctx, child))
	}
	pid = child.Pid
	child.Release() // it outlives this process, and then init waits for it
	return pid, nil
}

// program is where this program is to be found now: under the name it was started by,
// so that a symbolic link that was turned to a new release is followed, as nginx does.
// Only where that name says nothing, as with some supervisors, is it the file this
// process was made of.
func program() (string, error) {
	path, err := exec.LookPath(os.Args[0])
	if errors.Is(err, exec.ErrNotFound) && !strings.Contains(os.Args[0], "/") {
		return os.Executable()
	}
	return path, err
}

var longAgo = time.Unix(1, 0)

// spawn uses raw descriptors: those of an os.File would be made blocking to be passed
// on (os.File.Fd), and with them the listening socket, which is one for both
// processes.
func spawn(path string, sockets []Socket, drained []string, w *os.File) (*os.Process, error) {
	m := message{Drained: drained, Ready: firstFD}
	fds := []uintptr{0, 1, 2}
	defer func() {
		for _, fd := range fds[min(len(fds), firstFD):] {
			unix.Close(int(fd))
		}
	}()
	pass := func(c syscall.Conn) error {
		fd, err := duplicate(c)
		if err == nil {
			fds = append(fds, uintptr(fd))
		}
		return err
	}
	if err := pass(w); err != nil {
		return nil, err
	}
	for _, s := range sockets {
		m.Sockets = append(m.Sockets, passed{Name: s.Name, Address: s.Address, FD: len(fds)})
		if err := pass(s.Listener); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	text, err := json.Marshal(m)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	pid, err := syscall.ForkExec(path, os.Args, &syscall.ProcAttr{Env: environ(string(text)), Files: fds})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return os.FindProcess(pid)
}

func duplicate(c syscall.Conn) (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var dupErr error
	err = raw.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, firstFD) })
	return fd, errors.Join(err, dupErr)
}

func environ(handover string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, variable+"=") || strings.HasPrefix(v, "LISTEN_")
	})
	return append(env, variable+"="+handover)
}

// maxAnswer bounds what is read of a new process's reasons, in bytes.
const maxAnswer = 8 << 10

// await reads the answer of the new process. Whatever ends it without one closes the
// pipe.
func await(r *os.File) error {
	line, err := bufio.NewReader(io.LimitReader(r, maxAnswer)).ReadString('\n')
	line = strings.TrimSpace(line)
	if why, ok := strings.CutPrefix(line, failedWord); ok {
		return errors.New(strings.TrimSpace(why))
	}
	switch {
	case line == readyWord && err == nil:
		return nil
	case err == io.EOF:
		return errors.New("it ended before it was ready")
	case err != nil:
		return err
	}
	return fmt.Errorf("it answered %q; want %q", line, readyWord)
}

// reapTime is how long a process that has given up may take to end by itself, and to
// write why.
const reapTime = 5 * time.Second

// reap waits for a process that did not become ready, and tells how it ended if that
// says more than its answer did: 1 and 2 are lbd's own exit codes.
func reap(ctx context.Context, p *os.Process) error {
	ctx, cancel := context.WithTimeout(ctx, reapTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { p.Kill() }) // fails if it has ended
	defer stop()
	state, err := p.Wait()
	if err != nil || state.ExitCode() == 1 || state.ExitCode() == 2 {
		return err
	}
	return fmt.Errorf("the new process: %s", state)
}
