// Command selfcost measures what the load client adds to the times it reports.
//
//	go build -o selfcost ./bench/load/selfcost
//	./selfcost --streams 10000 --rate 1 --seconds 20
//
// It starts itself again as a server on another processor (taskset), which writes
// events of vLLM's size on that many streams at random phases, each with the time
// at which it is about to be written. It loads that server with package load on
// one processor, as lbd bench does, and compares that time with the one the client
// recorded. The server's write and the kernel's way are in the difference, so it
// is an upper bound of what the client adds.
//
// With --clock client the connections are such that package load cannot have the
// kernel's stamps: the difference between the two is what a client without them
// adds. A machine that is itself taken away now and then (a virtual one) shows
// that in the tail of both; the share of the run that was taken is measured
// beforehand, by a loop that does nothing but look at the clock.
//
// Invariant: the client runs the code of every other user of package load.
package main
