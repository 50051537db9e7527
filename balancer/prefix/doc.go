// Package prefix guesses which replica has which prompt prefix in its KV cache,
// from nothing but the requests that were sent there.
//
// A prompt is cut into blocks, 256 bytes each up to 4 KiB and 1 KiB each beyond;
// each block's hash is chained with all before it, so one hash stands for the
// whole prefix up to its end ([Hasher]). An [Index] notes under each hash which
// replicas computed it and when, on a clock that counts the tokens the replica
// had to compute since ([Owner]). An entry is alive while the clock has advanced by
// less than the replica can hold: tokens computed since are what pushes old blocks
// out of an LRU cache, so no list of blocks is kept.
//
// Invariant: a wrong entry is a wrong guess, never a wrong result. So slots are
// single atomic words that anybody may overwrite, nothing is locked, and memory is
// fixed by [Config].
//
// # How a prompt is looked up
//
// Every insert notes a whole prefix at one instant of the owner's clock, so an owner
// that has a block has all before it, as in vLLM, which frees the end of a sequence
// first. [Index.Match] relies on that: it reads the first and the last block, and
// halves what lies between as long as fewer owners have the later one. An entry that
// others have overwritten before its time does not matter when one behind it is
// found; the prefix was there as a whole. When the last of what an owner has is
// overwritten, that much counts as missing, and a first block that nobody has any
// more may be missed once. Reading every block, until two in a row are missing, took
// two to four times as long and knew 5 to 13 % less where the table was too small
// (TestHalvingWithHoles).
//
// In a table of 64 MiB every line is a miss of all caches, so those that will be read
// are fetched at once: every eighth of a prompt, what lies between when that is near,
// the further lines of a block with many owners, all lines of an insert. Medians of 6
// interleaved runs before and after, on a busy machine, and in brackets the least of
// them (go test -bench 'Million|Nothing'), with a million blocks, for a prompt of 44:
// match 5.2 and 4.1 µs (4.8 and 3.1) where 64 owners have its start, 3.0 and 2.2 (2.5 and
// 1.9) with 16, 2.0 and 1.8 (1.7 and 1.7) with 4; insert 4.5 and 3.0 µs (3.8 and 2.2).
// Fetching them had made inserts slower by half as long as the place of a block
// was a struct, see place.
//
// # What is seen as the same prefix
//
// The raw bytes of the value of messages, prompt or input, as the client sent
// them, without the closing bracket or quote: a conversation that grows by
// appended messages keeps all its blocks. Not seen: the same conversation with
// other white space, other order of keys or other escapes; the answer of the last
// turn, which the replica has cached too and lbd has not read; what a chat
// template puts in front that is not in the Preamble.
//
//	x := prefix.New(prefix.Config{})
//	replica := x.Owner("10.0.0.1:8000")
//	hashes := x.Hasher("llama-8b").Prompt(nil, preamble, prompt)
//	x.Match(hashes, &depths)         // depths[replica.ID()] blocks are likely there
//	replica.Advance(uncached)        // what the replica computes pushes others out
//	x.Insert(replica, hashes)        // once its first token shows that they exist
package prefix
