// Package names knows which addresses the host names of replicas stand for.
//
// A name is looked up when it is first dialled, again every refresh, and at once
// when none of its addresses takes a connection: a container that was started again
// has another address under the same name. Envoy does the first by default every
// 5 s (dns_refresh_rate of a strict or logical DNS cluster), nginx when it is given
// a resolver; neither asks because a connection has failed.
//
//   - All addresses are tried, the one that answered last first: a name with several
//     is one replica, and requests, probes and polls should see the same server.
//   - A look-up that fails changes nothing: what was known stays in use, so that a
//     DNS server that is down takes nobody out. Only two in a row that say that there
//     is no such name make it forgotten.
//   - Connections to an address that the name does not have any more end when they
//     are not in use: polls at once, relayed requests when they have their answer.
//
// A name of which every address is a server of its own ([Names.Follow]) is looked up as
// often, and whenever one of the addresses is in doubt ([Names.Doubt]). There an answer
// counts as it is, except that one without any address changes nothing, and that of two
// families of addresses the one that could not be had stays as it was.
//
// Invariant: no dial waits for a look-up while addresses are known that take
// connections.
//
//	n := names.New(names.Options{})
//	n.Start()
//	defer n.Stop()
//	c, err := n.DialContext(ctx, "tcp", "vllm-llama-1:8000")
package names
