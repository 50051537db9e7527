package certs

import (
	"crypto/tls"
	"errors"
)

// Listener is the TLS of a listening side.
type Listener struct{ *state }

// NewListener reads the files. With a CA, clients must show a certificate of it.
func NewListener(f Files) (*Listener, error) {
	if f.Cert == "" {
		return nil, errors.New("no certificate; want one, with its key")
	}
	s, err := newState(f)
	if err != nil {
		return nil, err
	}
	return &Listener{s}, nil
}

// Config is the configuration to listen with. It stays valid for the life of the
// process: each handshake asks for the certificates of its own time.
func (l *Listener) Config() *tls.Config {
	c := l.config(l.loaded.Load())
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return l.config(l.loaded.Load()), nil }
	return c
}

func (l *Listener) config(now *loaded) *tls.Config {
	c := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"http/1.1"},
		Certificates: []tls.Certificate{*now.cert},
	}
	if now.pool != nil {
		c.ClientCAs, c.ClientAuth = now.pool, tls.RequireAndVerifyClientCert
		// A ticket would let its owner in again after the CA that let him in was
		// taken away.
		c.SessionTicketsDisabled = true
	}
	return c
}

// Refresh reads the files if they have changed. On an error the old certificates
// stay, and the same files are not tried again.
func (l *Listener) Refresh() (changed bool, err error) { return l.refresh() }
