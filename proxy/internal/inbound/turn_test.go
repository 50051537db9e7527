package inbound

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lbd/internal/loopback"
	"lbd/proxy/internal/sock"
)

// turner is an answerer that takes requests in turns: one is left to Serve, one ends in
// a goroutine, the others within the turn.
type turner struct {
	*answerer
	n     atomic.Int64
	asked atomic.Int64 // to admit
	stays atomic.Bool
}

func (h *turner) Admit(c *Conn) error {
	h.asked.Add(1)
	return h.answerer.Admit(c)
}

func (h *turner) Turns() bool { return !h.stays.Load() }

func (h *turner) Begin(c *Conn, t *sock.Turn) bool {
	target := string(c.Request().Target)
	switch n := h.n.Add(1); {
	case n%5 == 0:
		return false
	case n%5 == 1, target == "/hold", target == "/now":
		c.GoOn(t, func() bool { return h.Serve(c) })
	default:
		keep := h.Serve(c)
		c.Answered(t, keep)
	}
	return true
}

// inTurns makes every answerer of a test a turner.
var inTurns bool

func turning(h Handler) Handler {
	if a, ok := h.(*answerer); ok && inTurns {
		return &turner{answerer: a}
	}
	return h
}

// What holds for connections with a goroutine holds for those without.
func TestInTurns(t *testing.T) {
	inTurns = true
	defer func() { inTurns = false }()
	for name, test := range map[string]func(*testing.T){
		"KeepAlive":               TestKeepAlive,
		"Pipelining":              TestPipelining,
		"RequestThatCameEarly":    TestRequestThatCameEarly,
		"WaitingHoldsNothing":     TestWaitingHoldsNothing,
		"ParkedWakes":             TestParkedWakes,
		"CutWhileParked":          TestCutWhileParked,
		"KickRaces":               TestKickRaces,
		"IdleLimit":               TestIdleLimit,
		"FirstRequestLimit":       TestFirstRequestLimit,
		"IdleLimitComesLate":      TestIdleLimitComesLate,
		"ReadLimit":               TestReadLimit,
		"Shutdown":                TestShutdown,
		"ShutdownThatIsCut":       TestShutdownThatIsCut,
		"ShutdownRaces":           TestShutdownRaces,
		"AcceptDuringShutdown":    TestAcceptDuringShutdown,
		"ServeAfterShutdown":      TestServeAfterShutdown,
		"ThousandConnections":     TestThousandConnections,
		"Expect":                  TestExpect,
		"TooLarge":                TestTooLarge,
		"ReadLimitIsOver":         TestReadLimitIsOver,
		"GraceTakesOneMore":       TestGraceTakesOneMore,
		"GraceAfterAnAnswer":      TestGraceAfterAnAnswer,
		"GraceEnds":               TestGraceEnds,
		"GraceIsCut":              TestGraceIsCut,
		"ShutdownTakesInTheQueue": TestShutdownTakesInTheQueue,
		"RoomIsFull":              TestRoomIsFull,
		"RoomOfEach":              TestRoomOfEach,
		"RoomExemptAndReload":     TestRoomExemptAndReload,
		"RoomRaces":               TestRoomRaces,
		"Flood":                   TestFlood,
		"Trickle":                 TestTrickle,
		"BodyThatKeepsPace":       TestBodyThatKeepsPace,
		"EmptyLinesAreBounded":    TestEmptyLinesAreBounded,
		"BodiesShareTheMemory":    TestBodiesShareTheMemory,
	} {
		t.Run(name, test)
	}
}

// Many clients at once, in pieces and pipelined, and none waits for anything but its answer.
func TestTurnsUnderLoad(t *testing.T) {
	inTurns = true
	defer func() { inTurns = false }()
	r := start(t, newAnswerer(), plentiful)
	done := make(chan error, 16)
	for i := range cap(done) {
		c := r.dial(t)
		go func() {
			var err error
			for j := range 200 {
				in, want := "", ""
				for k := range 1 + j%3 {
					target := fmt.Sprintf("/%d.%d.%d", i, j, k)
					in += put(target, strings.Repeat("b", j))
					want += answerTo(target) + strings.Repeat("b", j)
				}
				pieces := [][]byte{[]byte(in)}
				if j%4 == 0 {
					pieces = cuts(in, uint64(j))
				}
				if err = converse(c, pieces, want); err != nil {
					break
				}
			}
			done <- err
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func converse(c net.Conn, pieces [][]byte, want string) error {
	for _, p := range pieces {
		if _, err := c.Write(p); err != nil {
			return err
		}
	}
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		return fmt.Errorf("got %q, %v; want %q", got[:n], err, want)
	}
	return nil
}

// While nothing is taken in turns a connection at work keeps its goroutine.
func TestNoTurnsAtPresent(t *testing.T) {
	h := &turner{answerer: newAnswerer()}
	h.stays.Store(true)
	r := start(t, h, plentiful)
	r.stopClock()
	c := r.dial(t)
	r.settle(t, waiting, 1)
	for range 3 {
		send(t, c, get("/1"))
		recv(t, c, answerTo("/1"))
		r.settle(t, waiting, 1)
	}
	h.stays.Store(false)
	send(t, c, get("/2"))
	recv(t, c, answerTo("/2"))
	r.settle(t, parked, 1)
	if n := h.n.Load(); n != 0 {
		t.Errorf("%d requests begun in turns; want none", n)
	}
}

// A request that is refused is looked at once, whoever refuses it.
func TestRefusedOnce(t *testing.T) {
	for in, want := range map[string]string{
		get("/no"):                              "refused: not admitted",
		"GET / HTTP/1.1\r\nHost: a b\r\n\r\n":   "",
		put("/no", strings.Repeat("b", 100)):    "refused: not admitted",
		"\r\n\r\n" + get("/no"):                 "refused: not admitted",
		strings.Replace(get("/no"), "a", "", 1): "refused: not admitted",
	} {
		h := &turner{answerer: newAnswerer()}
		r := start(t, h, plentiful)
		c := r.dial(t)
		r.settle(t, parked, 1)
		send(t, c, in)
		b, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(b), "refused: ") || want != "" && string(b) != want {
			t.Errorf("%q: %q, %v; want %q", in, b, err, want)
		}
		if n := h.asked.Load(); n != 1 && want != "" {
			t.Errorf("%q: asked %d times; want once", in, n)
		}
	}
}

// A client that took nothing for too long gets nothing more, not even the rest of what
// it was sent: it could not tell it from the next answer.
func TestNothingFollowsACutAnswer(t *testing.T) {
	for _, turns := range []bool{true, false} {
		h := &turner{answerer: newAnswerer()}
		h.stays.Store(!turns)
		w := newWatch(t)
		ln, err := sock.Listen(loopback.Address(), w, 50*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		sc, err := ln.AcceptConn()
		if err != nil {
			t.Fatal(err)
		}
		sc.SetWriteBuffer(4 << 10)
		s := still(h, plentiful)
		s.begin(sc)
		c.(*net.TCPConn).SetReadBuffer(4 << 10)
		body := strings.Repeat("b", 900<<10)
		go func() {
			io.WriteString(c, put("/1", body))
			io.WriteString(c, get("/2"))
		}()
		eventually(t, "the end", func() bool { return s.Open() == 0 && h.asked.Load() > 0 })
		b, _ := io.ReadAll(c) // ends in a reset if anything was left unread
		if strings.Contains(string(b), answerTo("/2")) || len(b) >= len(body) {
			t.Errorf("turns %t: %d bytes, of which the last are %q", turns, len(b), b[max(0, len(b)-30):])
		}
		c.Close()
		if err := s.Shutdown(soon(t)); err != nil {
			t.Error(err)
		}
		ln.Close()
	}
}
