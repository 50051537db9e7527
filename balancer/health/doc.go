// Package health decides which replicas are in service.
//
// It asks each replica itself (active probes) and listens to what the proxy meets
// (passive reports), and tells the fleet. Being slow is not being broken: a
// replica whose event loop is too busy to answer a probe in time but that answers
// requests stays in (vLLM behind llm-d-benchmark #1734: a one-second probe ejected
// busy replicas and herded their load onto the others). A 4xx says nothing about a
// replica, a slow poll of /metrics neither.
//
// Invariants: own load is never touched; only a successful probe puts a replica
// into service; nothing but a refused or timed-out connect takes the last
// available replica of a model: everything else may be the requests' fault. Where
// that happens, nobody who answers probes waits for the end of a back-off.
//
// A request that nobody in service can take may still be answered by a replica that
// is out ([Checker.LastResort]): health only says which ones are worth asking.
//
// One goroutine owns every decision, so two replicas of a model cannot be ejected
// at the same instant each in the belief that the other one stays. Probes run in
// goroutines of their own, one per replica at most, which bounds them by the size
// of the fleet and keeps a replica that hangs from delaying the probe of another.
//
//	c := health.New(cfg, fleet, health.Options{OnEvent: log})
//	c.Start()
//	defer c.Stop()
//	c.Report(replica, balancer.Answered) // after every attempt
package health
