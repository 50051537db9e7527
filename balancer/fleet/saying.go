package fleet

import (
	"encoding/json"
	"hash/maphash"

	"lbd/balancer"
)

var seed = maphash.MakeSeed()

// saying hashes what each entry of a list says of its model. vLLM makes up created and the
// ids of permission for each answer (ModelCard in vllm/entrypoints), so that entries taken
// whole would have every poll publish a snapshot.
func saying(models []balancer.ModelInfo) []uint64 {
	says := make([]uint64, len(models))
	for i, m := range models {
		says[i] = maphash.String(seed, m.ID) + sayingOf(m.Raw)
	}
	return says
}

// sayingOf is a sum over the members, whose order means nothing.
func sayingOf(raw []byte) (sum uint64) {
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil {
		return maphash.Bytes(seed, raw)
	}
	for name, value := range members {
		if name != "created" && name != "permission" {
			sum += maphash.Comparable(seed, [2]string{name, string(value)})
		}
	}
	return sum
}
