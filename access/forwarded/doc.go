// Package forwarded is about the fields X-Forwarded-For, X-Forwarded-Proto and
// X-Forwarded-Host: whom to believe them, and what replicas are told.
//
// Anybody can send them, so they mean something only from a proxy that is known.
// In the mode set, the default, a replica gets what lbd itself saw: the address the
// client's connection came from, http or https, and the Host that was asked for;
// what the client sent under these names, or as Forwarded (RFC 7239) or X-Real-Ip, is
// dropped. Only from an address in trusted_proxies it is kept, and the address of
// that proxy is added to the end of X-Forwarded-For, as nginx's
// $proxy_add_x_forwarded_for and Envoy do; a replica that counts from the right sees
// what is true. This is what Envoy does at the edge (use_remote_address); nginx does
// it with the two proxy_set_header lines that most configurations have. vLLM's
// uvicorn believes these fields from 127.0.0.1 unless told otherwise, so passing a
// client's own on would let it choose the address in the access log.
//
// In the mode pass they are ordinary fields: what the client sent is passed on,
// nothing is added (nginx without these lines). In the mode drop, replicas get none.
//
// Invariant: deciding costs no allocation for a connection after its first request.
//
//	p, err := forwarded.New(forwarded.Set, []string{"10.0.0.0/8"})
//	peer := p.Peer(conn.RemoteAddr(), tls)   // once per connection
//	keep := peer.Note(&fields, name, value)  // for each field
//	out = peer.Append(out, &fields, host)    // fields to add
package forwarded
