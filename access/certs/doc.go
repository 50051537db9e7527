// Package certs holds the certificates that lbd shows and the authorities it
// believes, and reads their files again when they change.
//
// A [Listener] is for a listening side: a certificate, and a client CA where
// clients must show one as well (mTLS). Its configuration is given to crypto/tls
// once and swaps what is behind it. An [Identity] is for the dialling side: a CA and
// a client certificate, each where there is one; its configuration is asked for
// anew after a change. Either way a renewed certificate is used by the next
// handshake, and open connections go on.
//
// Defaults are those of crypto/tls, TLS 1.2 and later. Only HTTP/1.1 is offered.
//
// A file has changed when its time, its size or the file behind its name has: that
// covers renewal in place, renaming over it, and the symbolic links of Kubernetes
// secrets. What cannot be read changes nothing: the last good certificate stays.
//
// Invariants: no error quotes the content of a file; a handshake sees one complete
// state, never half of an old and half of a new one.
//
//	l, err := certs.NewListener(certs.Files{Cert: "tls.crt", Key: "tls.key"})
//	ln = tls.NewListener(ln, l.Config())
//	changed, err := l.Refresh() // now and then
package certs
