package usage

// Held is how many last uses wait in the buffer itself.
func (b *Buffer) Held() int64 { return b.uses.size.Load() }

// Wrap replaces every keeper, the buffer's own included.
func (b *Buffer) Wrap(with func(Keeper) Keeper) {
	for i, k := range b.keepers {
		b.keepers[i] = with(k)
	}
}
