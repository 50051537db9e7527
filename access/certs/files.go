package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Files are the paths of PEM files. Cert and Key belong together; CA is whom to
// believe: the client CA of a listener, the CA of replicas. Empty ones are not
// there.
type Files struct{ Cert, Key, CA string }

// Empty says that no file is named.
func (f Files) Empty() bool { return f == Files{} }

// loaded is what was in the files at one time. It is immutable.
type loaded struct {
	stamps [3]stamp
	sums   [3]sum
	cert   *tls.Certificate // nil without a certificate
	pool   *x509.CertPool   // nil without a CA
}

// sum is of what was read of a file; the zero value is of none.
type sum [sha256.Size]byte

// stamp tells one content of a file from another without reading it.
type stamp struct {
	info fs.FileInfo
	err  bool
}

func stampOf(path string) stamp {
	if path == "" {
		return stamp{}
	}
	info, err := os.Stat(path)
	return stamp{info, err != nil}
}

func (s stamp) same(o stamp) bool {
	if s.info == nil || o.info == nil {
		return s.info == nil && o.info == nil && s.err == o.err
	}
	return os.SameFile(s.info, o.info) && s.info.Size() == o.info.Size() && s.info.ModTime().Equal(o.info.ModTime())
}

func (f Files) stamps() [3]stamp { return [3]stamp{stampOf(f.Cert), stampOf(f.Key), stampOf(f.CA)} }

// load reads the files. The stamps are taken first: what is written meanwhile
// counts as a change and is read the next time.
func (f Files) load() (*loaded, error) {
	l := &loaded{stamps: f.stamps()}
	if (f.Cert == "") != (f.Key == "") {
		return nil, errors.New("a certificate without a key, or a key without a certificate; want both")
	}
	if f.Cert != "" {
		if err := l.readPair(f.Cert, f.Key); err != nil {
			return nil, err
		}
	}
	if f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, err
		}
		l.sums[2], l.pool = sha256.Sum256(pem), x509.NewCertPool()
		if !l.pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate; want one or more in PEM", f.CA)
		}
	}
	return l, nil
}

// readPair reads a certificate and its key. crypto/tls quotes neither in its
// errors.
func (l *loaded) readPair(certFile, keyFile string) error {
	cert, err := os.ReadFile(certFile)
	if err != nil {
		return err
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	c, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("%s with key %s: %w", certFile, keyFile, err)
	}
	l.sums[0], l.sums[1], l.cert = sha256.Sum256(cert), sha256.Sum256(key), &c
	return nil
}

// changed says whether the files differ from what was loaded, or cannot be read
// any more.
func (f Files) changed(l *loaded) bool {
	now := f.stamps()
	for i := range now {
		if !now[i].same(l.stamps[i]) {
			return true
		}
	}
	return false
}

// expiry returns when the certificate ends, false without one.
func (l *loaded) expiry() (time.Time, bool) {
	if l.cert == nil || l.cert.Leaf == nil {
		return time.Time{}, false
	}
	return l.cert.Leaf.NotAfter, true
}
