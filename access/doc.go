// Package access says who may do what, and how lbd proves who it is. It holds no
// code; its parts know nothing of HTTP servers, replicas' load or configuration
// files, and are wired by cmd:
//
//	access/keys       clients' API keys: hashes at rest, models and limits per key
//	access/certs      certificates of listeners and of lbd itself, read again when they change
//	access/outward    what lbd shows to replicas: their API keys and TLS
//	access/forwarded  X-Forwarded-*: whom to believe, what to pass on
//	access/cors       which web pages may call
//
// Invariants: a secret is held no longer than it is needed, is compared in constant
// time and is in no error, log line or metric; what cannot be read keeps nobody in
// that was out: a reload that fails changes nothing.
package access
