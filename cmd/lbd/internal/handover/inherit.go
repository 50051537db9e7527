package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// The names of the sockets: the keys of the configuration that would open them.
const (
	Main  = "listen"
	Admin = "admin_listen"
)

// variable is how one lbd tells the next what it passes on. LISTEN_FDS cannot be used
// for it: LISTEN_PID must be known before there is a process.
const variable = "LBD_HANDOVER"

// message is the value of the variable.
type message struct {
	Sockets []passed `json:"sockets"`
	Ready   int      `json:"ready"`   // descriptor to answer on
	Drained []string `json:"drained"` // replicas that an operator has taken out
}

type passed struct {
	Name string `json:"name"`
	// Address is what the configuration said when the socket was opened; empty where
	// systemd has opened it.
	Address string `json:"address"`
	FD      int    `json:"fd"`
}

// firstFD is the first descriptor behind standard input, output and error.
const firstFD = 3

func parse(text string) (*message, error) {
	var m message
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return nil, err
	}
	seen := map[int]bool{}
	for _, fd := range append([]int{m.Ready}, m.fds()...) {
		if fd < firstFD || seen[fd] {
			return nil, fmt.Errorf("descriptor %d is named; want each from %d on, and once", fd, firstFD)
		}
		seen[fd] = true
	}
	return &m, nil
}

func (m *message) fds() (all []int) {
	for _, p := range m.Sockets {
		all = append(all, p.FD)
	}
	return all
}

// Inherited is what this process was given. The zero value was given nothing.
type Inherited struct {
	sockets map[string]*socket
	drained []string
	ready   *os.File // nil: nobody waits for an answer
	follows bool     // another lbd
}

type socket struct {
	ln      *net.TCPListener
	address string // see passed
}

// Inherit takes what systemd (sd_listen_fds(3)) or another lbd has passed. It may be
// called once, before anything opens a file, and takes the variables out of the
// environment.
func Inherit() (*Inherited, error) {
	in := &Inherited{sockets: map[string]*socket{}}
	text, ok := os.LookupEnv(variable)
	if !ok {
		return in, in.takeActivated(activation.Files(true))
	}
	os.Unsetenv(variable)
	m, err := parse(text)
	if err != nil {
		return in, fmt.Errorf("%s %q: %w", variable, text, err)
	}
	in.drained, in.follows = m.Drained, true
	syscall.CloseOnExec(m.Ready)
	in.ready = os.NewFile(uintptr(m.Ready), "answer to the lbd before")
	for _, p := range m.Sockets {
		syscall.CloseOnExec(p.FD)
		if err := in.add(p.Name, p.Address, os.NewFile(uintptr(p.FD), p.Name)); err != nil {
			return in, err
		}
	}
	return in, nil
}

// takeActivated names systemd's sockets. One alone needs no name.
func (in *Inherited) takeActivated(files []*os.File) error {
	var faults []error
	for _, f := range files {
		name := f.Name()
		if len(files) == 1 && name != Admin {
			name = Main
		}
		faults = append(faults, in.add(name, "", f))
	}
	return errors.Join(faults...)
}

func (in *Inherited) add(name, address string, f *os.File) error {
	defer f.Close() // FileListener has one of its own
	switch {
	case name != Main && name != Admin:
		return fmt.Errorf("inherited socket %q has no use; want FileDescriptorName=%s or %s", name, Main, Admin)
	case in.sockets[name] != nil:
		return fmt.Errorf("inherited socket %q came twice; want one of each name", name)
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("inherited socket %q: %w; want a listening TCP socket, Accept=no", name, err)
	}
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		ln.Close()
		return fmt.Errorf("inherited socket %q listens on %q; want TCP", name, ln.Addr())
	}
	if !listens(tcp) {
		ln.Close()
		return fmt.Errorf("inherited socket %q is a connection; want a listening TCP socket, Accept=no", name)
	}
	in.sockets[name] = &socket{tcp, address}
	return nil
}

func listens(ln *net.TCPListener) bool {
	raw, err := ln.SyscallConn()
	if err != nil {
		return false
	}
	on := 0
	err = raw.Control(func(fd uintptr) { on, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN) })
	return err == nil && on != 0
}

// Any says that there is something to take.
func (in *Inherited) Any() bool { return in != nil && len(in.sockets) > 0 }

// Follows says that another lbd has passed the sockets on, and not systemd.
func (in *Inherited) Follows() bool { return in != nil && in.follows }

// Drained are the replicas that the lbd before was told to send nothing to.
func (in *Inherited) Drained() []string {
	if in == nil {
		return nil
	}
	return in.drained
}

// Take returns the socket of that name, which is the caller's from then on, or nil. A
// socket that another lbd has opened for another address than the configuration names
// now is not given out; where systemd has opened it, its unit has the say. fixed tells
// that case.
func (in *Inherited) Take(name, address string) (ln *net.TCPListener, fixed bool) {
	if in == nil {
		return nil, false
	}
	s := in.sockets[name]
	if s == nil || s.address != "" && s.address != address {
		return nil, false
	}
	delete(in.sockets, name)
	return s.ln, s.address == ""
}

// Ready tells the lbd before that this one serves, and closes what was not taken.
func (in *Inherited) Ready() { in.answer(readyWord) }

// Failed tells it that this one will not; it goes on. It does nothing after Ready.
func (in *Inherited) Failed(err error) {
	if err != nil {
		in.answer(failedWord + " " + strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

// Words of an answer, which is one line.
const (
	readyWord  = "ready"
	failedWord = "failed:"
)

func (in *Inherited) answer(line string) {
	if in == nil {
		return
	}
	for name, s := range in.sockets {
		s.ln.Close()
		delete(in.sockets, name)
	}
	if in.ready == nil {
		return
	}
	fmt.Fprintln(in.ready, line) // there is nobody else to tell if it fails
	in.ready.Close()
	in.ready = nil
}
