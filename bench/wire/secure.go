//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"
)

// prepareFeatures writes what variants of lbd are configured with: a certificate for
// 127.0.0.1 with its key, and the file of API keys that knows clientKey.
func prepareFeatures(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	hash := sha256.Sum256([]byte(clientKey))
	for name, text := range map[string][]byte{
		certFile:   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		"key.pem":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		"keys.txt": []byte("wire sha256:" + hex.EncodeToString(hash[:]) + "\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

const certFile = "cert.pem"

// wrap takes plain connections on a port and carries each in TLS to another one, so that
// the load's loop need not speak it. It works in goroutines beside the loop, in the same
// process and on the same core, and so counts as load. The hop that it adds is the
// reason why only the proxy's CPU means anything in TLS.
func wrap(port, to int) error {
	pool, err := x509Pool(certFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil // nobody prepared features
	}
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	// The loop's thread sits in raw system calls; goroutines need another one.
	runtime.GOMAXPROCS(2)
	config := &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13, ClientSessionCache: tls.NewLRUClientSessionCache(16)}
	go func() {
		for {
			plain, err := l.Accept()
			if err != nil {
				return
			}
			go carry(plain, config, to)
		}
	}()
	return nil
}

func x509Pool(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return pool, nil
}

// buffers are for carrying: the load collects no garbage while it measures.
var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// carry ends with either side.
func carry(plain net.Conn, config *tls.Config, to int) {
	defer func() { _ = plain.Close() }()
	secure, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", to), config)
	if err != nil {
		return
	}
	defer func() { _ = secure.Close() }()
	back := make(chan struct{})
	go func() {
		defer close(back)
		pass(plain, secure)
		_ = plain.Close()
	}()
	pass(secure, plain)
	_ = secure.Close()
	<-back
}

func pass(to io.Writer, from io.Reader) {
	buf := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buf)
	for {
		n, err := from.Read(buf[:])
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
