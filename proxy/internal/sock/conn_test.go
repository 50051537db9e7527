package sock

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestReadWrite(t *testing.T) {
	c, peer := accepted(t, newWatch(t), 0)
	send(t, peer, "ping")
	buf := make([]byte, 3)
	if n, err := c.Read(nil); n != 0 || err != nil {
		t.Errorf("Read(nil) = %d, %v", n, err)
	}
	if n, err := c.Read(buf); n != 3 || err != nil || string(buf) != "pin" {
		t.Errorf("Read = %d, %v, %q", n, err, buf)
	}
	b, n, err := c.ReadBuf()
	if n != 1 || err != nil || b.B[0] != 'g' {
		t.Errorf("ReadBuf = %d, %v", n, err)
	}
	PutBuf(b)
	send(t, c, "pong")
	recv(t, peer, "pong")
	if n, err := c.Write(nil); n != 0 || err != nil {
		t.Errorf("Write(nil) = %d, %v", n, err)
	}
	peer.Close()
	for range 2 {
		if b, n, err := c.ReadBuf(); b != nil || n != 0 || err != io.EOF {
			t.Errorf("ReadBuf at the end = %v, %d, %v; want EOF", b, n, err)
		}
		if n, err := c.Read(buf); n != 0 || err != io.EOF {
			t.Errorf("Read at the end = %d, %v; want EOF", n, err)
		}
	}
}

func TestReadDeadline(t *testing.T) {
	c, peer := accepted(t, nil, 0)
	for range 2 {
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		if b, n, err := c.ReadBuf(); b != nil || n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("ReadBuf = %v, %d, %v; want a deadline error", b, n, err)
		}
		var timeout net.Error
		if _, err := c.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Fatalf("Read error %v; want one that is a timeout, as fasthttp asks", err)
		}
	}
	c.SetReadDeadline(time.Time{})
	send(t, peer, "x")
	recv(t, c, "x")
}

func TestCloseEndsReadAndWrite(t *testing.T) {
	c, peer := accepted(t, newWatch(t), 0)
	peer.SetReadBuffer(4096)
	ended := make(chan struct{}, 2)
	go func() {
		if _, _, err := c.ReadBuf(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read error %v; want ErrClosed", err)
		}
		ended <- struct{}{}
	}()
	go func() {
		if _, err := c.Write(make([]byte, 64<<20)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write error %v; want ErrClosed", err)
		}
		ended <- struct{}{}
	}()
	time.Sleep(10 * time.Millisecond) // let them wait, most likely
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	within(t, "the end of the read or write", ended)
	within(t, "the end of the read or write", ended)
}

// slowReader reads all of it with pauses and says what it read.
func slowReader(peer net.Conn, pause time.Duration) <-chan [32]byte {
	sum := make(chan [32]byte, 1)
	go func() {
		h, buf := sha256.New(), make([]byte, 64<<10)
		for {
			n, err := peer.Read(buf)
			h.Write(buf[:n])
			if err != nil {
				break
			}
			time.Sleep(pause)
		}
		sum <- [32]byte(h.Sum(nil))
	}()
	return sum
}

// Everything arrives, in order, though the stall limit is short: the reader is
// slow but never stops.
func TestPartialWrites(t *testing.T) {
	for _, stall := range []time.Duration{0, 5 * time.Second} {
		c, peer := accepted(t, newWatch(t), stall)
		peer.SetReadBuffer(16 << 10)
		c.SetWriteBuffer(16 << 10)
		got := slowReader(peer, time.Millisecond)
		var all bytes.Buffer
		rng := rand.New(rand.NewPCG(1, 2))
		for all.Len() < 3<<20 {
			p := make([]byte, rng.IntN(1<<20))
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
			all.Write(p)
			if n, err := c.Write(p); n != len(p) || err != nil {
				t.Fatalf("stall limit %v: Write = %d, %v; want %d", stall, n, err, len(p))
			}
		}
		c.Close()
		if <-got != sha256.Sum256(all.Bytes()) {
			t.Errorf("stall limit %v: other bytes arrived", stall)
		}
	}
}

func TestStalled(t *testing.T) {
	c, peer := accepted(t, newWatch(t), 50*time.Millisecond)
	peer.SetReadBuffer(16 << 10)
	c.SetWriteBuffer(16 << 10)
	n, err := c.Write(make([]byte, 32<<20))
	if !errors.Is(err, ErrStalled) || n >= 32<<20 {
		t.Fatalf("Write = %d, %v; want ErrStalled", n, err)
	}
	// It stays so, until the peer reads again.
	if m, err := c.Write([]byte("x")); m != 0 || !errors.Is(err, ErrStalled) {
		t.Errorf("second Write = %d, %v; want ErrStalled", m, err)
	}
	buf := make([]byte, n)
	if _, err := io.ReadFull(peer, buf); err != nil {
		t.Fatal(err)
	}
	send(t, c, "again")
	recv(t, peer, "again")
}

// A deadline that an earlier write left behind does not fail a later one.
func TestStallDeadlineLeftBehind(t *testing.T) {
	const stall = 30 * time.Millisecond
	c, peer := accepted(t, nil, stall)
	for range 3 {
		c.armStall()
		c.wr = ioState{}
		time.Sleep(2 * stall)
		send(t, c, "late")
		recv(t, peer, "late")
	}
}

// Progress since the deadline was set earns a new one.
func TestStalledOnlyWithoutProgress(t *testing.T) {
	c, _ := accepted(t, nil, time.Hour)
	c.wr = ioState{n: 3}
	c.armStall()
	c.wr.n = 5
	if err := c.stalled(); err != nil {
		t.Errorf("after progress: %v", err)
	}
	if err := c.stalled(); !errors.Is(err, ErrStalled) {
		t.Errorf("without progress: %v; want ErrStalled", err)
	}
	c.wr = ioState{}
}

// A deadline set by others is theirs when there is no stall limit.
func TestWriteDeadlineWithoutStall(t *testing.T) {
	c, _ := accepted(t, nil, 0)
	c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write error %v; want a deadline error", err)
	}
}

// LingerOnClose: the client is still sending a large body when the answer comes.
// Without it the unread bytes would make the kernel reset and drop the answer.
func TestLingerDeliversAnswer(t *testing.T) {
	setLingerTime(t, time.Minute) // the upload is as slow as the machine
	const answer = "HTTP/1.1 413 Content Too Large\r\n\r\n"
	c, peer := accepted(t, newWatch(t), 0)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for range 256 { // far more than the socket buffers hold
			if _, err := peer.Write(make([]byte, 64<<10)); err != nil {
				t.Errorf("client cannot send on: %v", err)
				return
			}
		}
		peer.CloseWrite()
	}()
	recv(t, c, "\x00")
	send(t, c, answer)
	c.LingerOnClose()
	closed := make(chan struct{})
	go func() { c.Close(); close(closed) }()
	within(t, "the end of the upload", sent)
	if got, err := io.ReadAll(peer); err != nil || string(got) != answer {
		t.Errorf("client got %q, %v; want %q", got, err, answer)
	}
	within(t, "the close", closed)
}

func setLingerTime(t *testing.T, d time.Duration) {
	old := lingerTime
	lingerTime = d
	t.Cleanup(func() { lingerTime = old })
}

// A client that neither reads nor closes cannot hold a lingering connection.
func TestLingerEnds(t *testing.T) {
	setLingerTime(t, 50*time.Millisecond)
	c, _ := accepted(t, newWatch(t), 0)
	c.LingerOnClose()
	closed := make(chan struct{})
	go func() { c.Close(); close(closed) }()
	within(t, "the close", closed)
}

// What is not whole ends with a reset, lingering or not: a FIN would make it look whole.
func TestNoLingerBehindWhatIsCut(t *testing.T) {
	c, peer := accepted(t, newWatch(t), 0)
	c.LingerOnClose()
	c.SetLinger(0)
	c.Close()
	if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v; want %v", err, syscall.ECONNRESET)
	}
}

// A client that takes nothing of its answer sends on in vain, lingering or not.
func TestNoLingerForWhoTakesNothing(t *testing.T) {
	setLingerTime(t, time.Hour)
	c, _ := accepted(t, newWatch(t), 50*time.Millisecond)
	if _, err := c.Write(make([]byte, 64<<20)); !errors.Is(err, ErrStalled) {
		t.Fatalf("%v; want %v", err, ErrStalled)
	}
	c.LingerOnClose()
	closed := make(chan struct{})
	go func() { c.Close(); close(closed) }()
	within(t, "the close", closed)
}

func TestReadAndWriteAtOnce(t *testing.T) {
	c, peer := accepted(t, newWatch(t), time.Minute)
	const size = 4 << 20
	var wg sync.WaitGroup
	for _, p := range []net.Conn{c, peer} {
		wg.Go(func() {
			if _, err := p.Write(make([]byte, size)); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := io.ReadFull(p, make([]byte, size)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
