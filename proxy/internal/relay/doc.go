// Package relay carries one response from a replica to a client.
//
// It reads the response head strictly ([Head.Parse]), then passes the body on as
// it comes, from the replica's socket to the client's in one pooled buffer,
// without decoding and re-encoding it ([Stream.Run]). From that same buffer a
// [Sniffer] reads what lbd wants to know: the first token, the gaps between
// tokens, the usage.
//
// Invariant: a body that did not arrive whole is never finished towards the
// client. Run returns an error and the client's connection must be closed, so
// that a truncated answer is seen to be truncated.
//
//	n, err := head.Parse(buf) // 0, nil: more bytes are needed
//	st.Body.Reset(head.Framing(isHEAD), head.Length)
//	st.Up, st.Rest, st.Sniff = up, buf[n:], &sniffer
//	err = st.Run(client) // then the last chunk, unless err
package relay
