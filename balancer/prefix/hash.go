package prefix

import (
	"bytes"
	"hash/maphash"
)

// The blocks of a prompt: short ones at the start, where system prompts and
// tools branch, longer ones behind.
const (
	shortBlock  = 256
	longBlock   = 1024
	shortBlocks = 16 // so that short ones cover 4 KiB
)

// MaxBlocks bounds the blocks of one prompt: 1 MB of text, over 200,000 tokens.
// What is longer is known by its first MaxBlocks.
const MaxBlocks = 1024

// BlockBytes returns how many bytes of a prompt its first n blocks cover.
func BlockBytes(n int) int {
	if n <= shortBlocks {
		return n * shortBlock
	}
	return shortBlocks*shortBlock + (n-shortBlocks)*longBlock
}

// Hasher hashes the prompts of one model. Its seed is random per process: clients
// cannot make blocks collide, and hashes mean nothing elsewhere.
type Hasher struct {
	seed maphash.Seed
	base uint64
}

// Prompt appends the chained hashes of the full blocks of a prompt to dst.
func (h Hasher) Prompt(dst []uint64, preamble, prompt []byte) []uint64 {
	chain := h.base
	if len(preamble) > 0 {
		chain = mix(chain, maphash.Bytes(h.seed, preamble))
	}
	room := len(dst) + MaxBlocks
	size := shortBlock
	for prompt = open(prompt); len(prompt) >= size && len(dst) < room; prompt = prompt[size:] {
		if len(dst) == room-MaxBlocks+shortBlocks {
			if size = longBlock; len(prompt) < size {
				break
			}
		}
		chain = mix(chain, maphash.Bytes(h.seed, prompt[:size]))
		dst = append(dst, chain)
	}
	return dst
}

// Blocks appends hashes that the caller has chained already.
func (h Hasher) Blocks(dst []uint64, blocks []uint64) []uint64 {
	for _, b := range blocks[:min(len(blocks), MaxBlocks)] {
		dst = append(dst, mix(h.base, b))
	}
	return dst
}

// open drops what closes a JSON value: the next turn of a conversation goes on
// where the bracket of this one was.
func open(prompt []byte) []byte {
	prompt = bytes.TrimRight(prompt, " \t\r\n")
	if n := len(prompt); n > 0 && (prompt[n-1] == ']' || prompt[n-1] == '"') {
		prompt = bytes.TrimRight(prompt[:n-1], " \t\r\n")
	}
	return prompt
}

// mix is the finaliser of splitmix64 (Steele, Lea, Flood 2014) over both.
func mix(a, b uint64) uint64 {
	z := a*0x9e3779b97f4a7c15 ^ b
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
