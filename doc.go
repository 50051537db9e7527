// Package lbd is the root of the module of lbd, a load balancer for LLM inference.
// It holds no code, only the test of how the packages below may depend on each
// other:
//
//	cmd/lbd     the binary and everything that knows the whole
//	proxy       the data plane
//	admin       the second listener, for operators
//	balancer    replicas, load and strategies; standard library only
//	metrics     the lbd_ instruments, and the poller of vLLM's
//	bench       how lbd is proved: simulated replicas, load, traces, replay
//
// Invariant: arrows point one way, from cmd down to balancer; see arrows_test.go.
//
//	go test .
package lbd
