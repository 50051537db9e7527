package main

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	responseHead = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
	eventHead    = `data: {"id":"chatcmpl-5f2c7e0b1d6a4b7f8e9d0c1b2a3f4e5d","object":"chat.completion.chunk","created":1731628800,"model":"m",` +
		`"choices":[{"index":0,"delta":{"content":"`
	eventTail = "\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n"
)

// stream is a client to write to: phase is when in a period its event is due.
type stream struct {
	fd    int
	phase time.Duration
}

// answer writes events of vLLM's size on every stream, in one goroutine.
func (o *options) answer() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	var mu sync.Mutex
	var fresh []stream
	period := time.Duration(float64(time.Second) / o.rate)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				if _, err := http.ReadRequest(bufio.NewReaderSize(c, 1024)); err != nil {
					return
				}
				c.Write([]byte(responseHead))
				fd, err := duplicate(c.(*net.TCPConn))
				if err != nil {
					panic(err)
				}
				c.Close()
				mu.Lock()
				fresh = append(fresh, stream{fd, rand.N(period)})
				mu.Unlock()
			}()
		}
	}()
	return write(period, func() []stream {
		mu.Lock()
		defer mu.Unlock()
		taken := fresh
		fresh = nil
		return taken
	})
}

// write goes round: in each period each stream gets one event at its phase.
func write(period time.Duration, fresh func() []stream) error {
	var all []stream
	var buf []byte
	for start := time.Now(); ; start = start.Add(period) {
		if added := fresh(); len(added) > 0 {
			all = append(all, added...)
			slices.SortFunc(all, func(a, b stream) int { return int(a.phase - b.phase) })
		}
		for _, s := range all {
			until := start.Add(s.phase)
			for wait := time.Until(until); wait > 0; wait = time.Until(until) {
				if wait > 200*time.Microsecond {
					time.Sleep(wait - 150*time.Microsecond)
				}
			}
			buf = appendEvent(buf[:0], time.Now().UnixNano())
			syscall.Write(s.fd, buf)
		}
		time.Sleep(time.Until(start.Add(period)))
	}
}

func appendEvent(dst []byte, stamp int64) []byte {
	dst = strconv.AppendInt(dst, int64(len(eventHead)+len(eventTail)+19), 16)
	dst = append(dst, "\r\n"...)
	dst = append(dst, eventHead...)
	dst = strconv.AppendInt(dst, stamp, 10) // 19 digits until the year 2286
	dst = append(dst, eventTail...)
	return append(dst, "\r\n"...)
}

// duplicate makes a descriptor of its own, without the runtime's poller, so that
// nothing is spent on a connection between its events.
func duplicate(c *net.TCPConn) (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	outer := raw.Control(func(from uintptr) {
		if fd, err = syscall.Dup(int(from)); err == nil {
			err = syscall.SetNonblock(fd, true)
		}
	})
	return fd, errors.Join(outer, err)
}
