// Package faults is the fault matrix: what lbd does for its clients while
// replicas, names and lbd itself fail.
//
// Each row of the matrix is a test under load: clients ask an lbd in a process of
// its own, over sockets, for answers of simulated replicas, or of servers that
// misbehave as the simulated ones cannot, while one thing goes wrong again and
// again. All is drawn from one seed, which a failure prints. README.md lists the
// rows.
//
// Invariant, held after every row: no client saw an error that another replica
// could have prevented; no request was executed twice, by the count of request ids
// at the replicas; own load is zero in lbd's gauges, on its fleet page and in the
// strategy's terms; goroutines, descriptors and heap of lbd are where they were.
//
//	go test -race ./cmd/lbd/internal/faults
//	FAULTS_SEED=7 FAULTS_ROUNDS=20 FAULTS_ALL=1 go test -race -timeout 1h ./cmd/lbd/internal/faults -run 'Matrix/killed' -v
package faults
