// Package outward is what lbd shows to replicas: the API key it sends and the TLS it
// speaks, for all of them or for one. Clients' keys have no part in it.
//
// What is shown may change while lbd runs; it is asked for at each request (one
// atomic load, no allocation) and at each connection.
//
// Invariants: a key goes to the replica it was set for and nowhere else; it is in
// no error and in no log line. A replica that is spoken to in TLS is never spoken
// to in plain text instead.
//
//	o, err := outward.New(outward.Config{Default: outward.Replica{APIKey: key}})
//	value := o.Authorization(replica.Listed)                       // "Bearer ...", "" for none
//	c := o.TLS(replica.Listed, replica.Endpoint.ServerAddr())      // to dial with
package outward
