// Package zone is a DNS server for tests: over UDP, and over TCP for answers that UDP does
// not carry, it says what a test has told it to.
//
// Invariant: only tests import it.
//
//	z := zone.Start(t)
//	z.Set("vllm.example.org", "127.0.0.1", "127.0.0.2")
//	ips, err := z.Resolver().LookupNetIP(ctx, "ip", "vllm.example.org")
package zone
