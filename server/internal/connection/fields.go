package connection

// fieldCounter counts the fields of an HPACK block (RFC 7541 section 6) as it arrives, without decoding them: one byte
// may stand for a field that takes more than a hundred in memory.
type fieldCounter struct {
	n       int
	form    fieldForm // of the number that is being read
	strings int       // literal strings of the field that are still to come
	skip    uint64    // bytes of a string that are still to come
	number  uint64
	shift   uint // 0: no number is being continued
}

type fieldForm byte

const (
	formIndexed fieldForm = iota
	formLiteral
	formTableSize
	formLength // of a literal string
)

func (c *fieldCounter) add(p []byte) {
	for len(p) > 0 {
		if c.skip > 0 {
			n := min(c.skip, uint64(len(p)))
			c.skip -= n
			p = p[n:]
			continue
		}
		b := p[0]
		p = p[1:]
		if c.shift == 0 {
			c.first(b)
			continue
		}
		c.number += uint64(b&0x7f) << (c.shift - 1)
		if c.shift += 7; b&0x80 == 0 || c.shift > 57 { // a longer number is an error to the decoder
			c.read(c.number)
		}
	}
}

// first reads the first byte of a number, whose highest bits say what it is.
func (c *fieldCounter) first(b byte) {
	prefix := byte(0x7f)
	switch {
	case c.strings > 0:
		c.form = formLength
	case b&0x80 != 0:
		c.form = formIndexed
	case b&0x40 != 0:
		c.form, prefix = formLiteral, 0x3f
	case b&0x20 != 0:
		c.form, prefix = formTableSize, 0x1f
	default:
		c.form, prefix = formLiteral, 0x0f
	}
	if b&prefix == prefix {
		c.number, c.shift = uint64(prefix), 1
		return
	}
	c.read(uint64(b & prefix))
}

// read takes a whole number.
func (c *fieldCounter) read(v uint64) {
	c.shift = 0
	switch c.form {
	case formIndexed:
		c.n++
	case formLiteral:
		c.n++
		if c.strings = 1; v == 0 { // the name is a literal too
			c.strings = 2
		}
	case formLength:
		c.strings--
		c.skip = v
	case formTableSize:
	}
}
