// Package lines writes a log's lines, in the order they were handed in: those that are
// waited for, as any io.Writer does, and those that a loop hands in, which must not wait.
//
//	w := lines.New(os.Stderr, nil)
//	defer w.Close()                  // writes what is left
//	fmt.Fprintln(w, "started")       // is written when this returns
//	if w.Try() {                     // there is room
//		w.Put([]byte("request\n"))   // will be written, soon
//	}
//
// Invariants: a line that was handed in is written whole, or counted as lost with the
// error of the write; nobody waits in Try, Give and Put; what was put and is not written
// yet takes bounded memory; nothing is held back to save writes, so a line waits for
// those before it and for no clock. A process that is killed, or crashes, or ends while its
// log takes nothing, loses what was put and is not written: some 256 KiB when the log's
// reader is slow, more where lines are long, else what came within the last moment.
package lines
