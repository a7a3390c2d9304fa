package client

import "hash/maphash"

// rememberedChanges is how many tokens and users each of two generations holds.
const rememberedChanges = 1 << 15

// changes records which tokens and users the watch reported, and at which position, so that older answers are
// recognized. Names are kept as hashes: two that share one cost a request, never a wrong answer. Old changes are
// dropped, and floor rises instead: an answer older than the floor cannot be judged, and is not kept.
type changes struct {
	seed       maphash.Seed
	young, old map[uint64]uint64
	floor      uint64
	youngest   uint64 // position of the newest change in young
	oldest     uint64 // the same in old
}

type changeKind byte

const (
	tokenChange changeKind = 't'
	userChange  changeKind = 'u'
)

func newChanges() *changes {
	return &changes{seed: maphash.MakeSeed(), young: map[uint64]uint64{}, old: map[uint64]uint64{}}
}

func (c *changes) hash(kind changeKind, name string) uint64 {
	var h maphash.Hash
	h.SetSeed(c.seed)
	_ = h.WriteByte(byte(kind))
	_, _ = h.WriteString(name)
	return h.Sum64()
}

// note records a change at a position.
func (c *changes) note(kind changeKind, name string, sequence uint64) {
	if len(c.young) >= rememberedChanges {
		c.floor = max(c.floor, c.oldest)
		c.old, c.oldest = c.young, c.youngest
		c.young, c.youngest = map[uint64]uint64{}, 0
	}
	h := c.hash(kind, name)
	c.young[h] = max(c.young[h], sequence)
	c.youngest = max(c.youngest, sequence)
}

// after reports whether a token or its user changed after a position.
func (c *changes) after(sequence uint64, token, user string) bool {
	for _, h := range [...]uint64{c.hash(tokenChange, token), c.hash(userChange, user)} {
		if c.young[h] > sequence || c.old[h] > sequence {
			return true
		}
	}
	return false
}
