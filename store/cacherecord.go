package store

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"time"
	"unsafe"

	"patd/tokens"
)

// A record is what the cache keeps of a token or a user: bytes without pointers, which the garbage collector does not look
// into, and which but for the use are never written again. The strings of a reading are parts of it: reading one copies
// nothing, and keeps the bytes alive for as long as somebody holds a string.
//
//	 0  size of the whole, 4 bytes, a multiple of recordAlign
//	 4  of a token: number of the current secret's key, 2 bytes; which of the optional parts are there, 1 byte; number
//	    of secrets that were rotated away, 1 byte. Of a user: its state, 1 byte
//	 8  id of the token, or key of the user
//	16  use: time of the last one and flags, an integer that is changed under the lock of the shard but for useRead; 24 its
//	    address, which is read and written under that lock
//
// Then, of a token:
//
//	40  key of the user; 48 issue and 56 expire time; 64 digest of the current secret
//	96  name, scopes, and the optional parts in the order of their bits; counts and lengths are uvarints
//
// and of a user: see userRecord.
const (
	recordID    = 8
	recordUse   = 16
	recordUseIP = 24

	recordKey    = 4
	recordParts  = 6
	recordOld    = 7
	recordUser   = 40
	recordIssue  = 48
	recordExpire = 56
	recordDigest = 64
	recordText   = 96

	recordAlign = 8
)

// Flags of a use, below its time. The lowest five bits are how many bytes its address has.
const (
	useIP    = 1<<5 - 1
	useNoted = 1 << 5 // it is to be written
	useRead  = 1 << 6 // the record was read since it was written
	useBits  = 8
)

// The optional parts of a record.
const (
	partDescription = 1 << iota
	partLabels
	partAudiences
	partCIDRs
	partRevocation
	partBlocked
	partRotated // the serial of the current secret; those of the older ones count down from it
)

const oldSecretSize = 2 + 8 + 32

// packed appends the record of a token to b. keyNumber numbers the names of keys. False: it cannot be told in a record.
func packed(b []byte, c *tokens.Credential, keyNumber func(string) (uint16, bool)) ([]byte, bool) {
	t := &c.Token
	if len(c.Secrets) == 0 || len(c.Secrets) > 256 || !c.Secrets[0].ExpireTime.IsZero() {
		return nil, false
	}
	from := len(b)
	b = append(b, make([]byte, recordText)...)
	head := b[from:]
	current, ok := keyNumber(c.Secrets[0].Hash.Key)
	if !ok {
		return nil, false
	}
	binary.LittleEndian.PutUint16(head[recordKey:], current)
	head[recordOld] = byte(len(c.Secrets) - 1)
	binary.LittleEndian.PutUint64(head[recordID:], uint64(t.ID))
	binary.LittleEndian.PutUint64(head[recordUser:], uint64(t.UserKey))
	binary.LittleEndian.PutUint64(head[recordIssue:], uint64(micros(t.IssueTime)))
	binary.LittleEndian.PutUint64(head[recordExpire:], uint64(expiry(t.ExpireTime)))
	copy(head[recordDigest:], c.Secrets[0].Hash.Sum[:])
	b = packText(b, t.Name)
	b = packTexts(b, t.Scopes)
	b, parts := packParts(b, t)
	serial := c.Secrets[0].Serial
	if serial > 0 {
		parts |= partRotated
		b = binary.AppendUvarint(b, uint64(serial))
	}
	for i, s := range c.Secrets[1:] {
		n, ok := keyNumber(s.Hash.Key)
		if !ok || s.Serial != serial-int64(i)-1 {
			return nil, false
		}
		b = binary.LittleEndian.AppendUint16(b, n)
		b = binary.LittleEndian.AppendUint64(b, uint64(expiry(s.ExpireTime)))
		b = append(b, s.Hash.Sum[:]...)
	}
	b[from+recordParts] = parts
	return sized(b, from), true
}

func packParts(b []byte, t *tokens.Token) (_ []byte, parts byte) {
	if t.Description != "" {
		parts |= partDescription
		b = packText(b, t.Description)
	}
	if len(t.Labels) > 0 {
		parts |= partLabels
		b = binary.AppendUvarint(b, uint64(len(t.Labels)))
		for k, v := range t.Labels {
			b = packText(packText(b, k), v)
		}
	}
	if len(t.Audiences) > 0 {
		parts |= partAudiences
		b = packTexts(b, t.Audiences)
	}
	if len(t.CIDRs) > 0 {
		parts |= partCIDRs
		b = binary.AppendUvarint(b, uint64(len(t.CIDRs)))
		for _, p := range t.CIDRs {
			b = packAddr(append(b, byte(p.Bits())), p.Addr())
		}
	}
	if r := t.Revocation; r != nil {
		parts |= partRevocation
		b = binary.LittleEndian.AppendUint64(b, uint64(micros(r.Time)))
		b = packText(packText(b, r.By), r.Reason)
	}
	if t.BlockedBy != "" {
		parts |= partBlocked
		b = packText(b, t.BlockedBy)
	}
	return b, parts
}

func packText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func packTexts(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = packText(b, s)
	}
	return b
}

func packAddr(b []byte, a netip.Addr) []byte {
	raw := a.AsSlice()
	return append(append(b, byte(len(raw))), raw...)
}

// sized ends the record that begins at from: it fills it up, and writes its size.
func sized(b []byte, from int) []byte {
	for (len(b)-from)%recordAlign != 0 {
		b = append(b, 0)
	}
	binary.LittleEndian.PutUint32(b[from:], uint32(len(b)-from))
	return b
}

// record is a packed token or user.
type record []byte

func (r record) id() uint64     { return binary.LittleEndian.Uint64(r[recordID:]) }
func (r record) userKey() int64 { return int64(binary.LittleEndian.Uint64(r[recordUser:])) }

// useWord is where the use stands: records begin at multiples of eight bytes.
func (r record) useWord() *uint64 { return (*uint64)(unsafe.Pointer(&r[recordUse])) } //nolint:gosec // see above
func (r record) use() uint64      { return atomic.LoadUint64(r.useWord()) }
func (r record) setUse(to uint64) { atomic.StoreUint64(r.useWord(), to) }

// markRead notes that the record was read. It needs no lock: to lose the mark to somebody else's change does no harm.
func (r record) markRead() {
	if use := r.use(); use&useRead == 0 {
		atomic.CompareAndSwapUint64(r.useWord(), use, use|useRead)
	}
}

// usage is the last use of a token.
func (r record) usage() usage {
	use := r.use()
	return usage{us: int64(use >> useBits), ip: [16]byte(r[recordUseIP:]), n: uint8(use & useIP)}
}

// setUsage writes the last use. Times before 1970, which no clock of today's tells, count as that.
func (r record) setUsage(u usage, flags uint64) {
	r.setUse(uint64(max(u.us, 0))<<useBits | uint64(u.n) | flags)
	copy(r[recordUseIP:], u.ip[:])
}

// whole is the record that begins b; nil: none does. A reader without the lock that rests for so long that numbers of segments
// are given again looks where none begins.
func whole(b []byte) record {
	if len(b) < userText {
		return nil
	}
	n := int(binary.LittleEndian.Uint32(b))
	if n < userText || n > len(b) {
		return nil
	}
	return record(b[:n:n])
}

// lists is the memory of what nearly every token has: one piece instead of one for each list.
type lists struct {
	scopes  [6]string
	secrets [1]tokens.StoredSecret
}

// read fills c, whose user it belongs to, with the token. keys are the names of keys by number.
func (r record) read(c *tokens.Credential, keys []string) {
	own := new(lists)
	t := &c.Token
	p := parser{b: r[recordText:]}
	t.ID, t.UserKey, t.User = tokens.ID(r.id()), c.User.Key, c.User.ID
	t.IssueTime = instant(int64(binary.LittleEndian.Uint64(r[recordIssue:])))
	t.ExpireTime = expiryTime(int64(binary.LittleEndian.Uint64(r[recordExpire:])))
	t.Name = p.text()
	t.Scopes = p.texts(own.scopes[:0])
	var serial int64
	if parts := r[recordParts]; parts != 0 {
		serial = p.parts(parts, t)
	}
	c.Secrets = own.secrets[:0]
	if n := int(r[recordOld]); n > 0 {
		c.Secrets = make([]tokens.StoredSecret, 0, n+1)
	}
	c.Secrets = append(c.Secrets, tokens.StoredSecret{Hash: tokens.Hash{
		Key: keys[binary.LittleEndian.Uint16(r[recordKey:])], Sum: [32]byte(r[recordDigest:]),
	}, Serial: serial})
	for range r[recordOld] {
		serial--
		s := p.take(oldSecretSize)
		c.Secrets = append(c.Secrets, tokens.StoredSecret{
			Hash:       tokens.Hash{Key: keys[binary.LittleEndian.Uint16(s)], Sum: [32]byte(s[10:])},
			ExpireTime: expiryTime(int64(binary.LittleEndian.Uint64(s[2:]))),
			Serial:     serial,
		})
	}
	c.Secrets = c.Secrets[:len(c.Secrets):len(c.Secrets)]
}

// parser reads the part of a record whose places depend on what comes before.
type parser struct{ b []byte }

func (p *parser) take(n int) []byte {
	taken := p.b[:n:n]
	p.b = p.b[n:]
	return taken
}

func (p *parser) count() int {
	if n := p.b[0]; n < 0x80 {
		p.b = p.b[1:]
		return int(n)
	}
	v, n := binary.Uvarint(p.b)
	p.b = p.b[n:]
	return int(v)
}

func (p *parser) time() time.Time { return instant(int64(binary.LittleEndian.Uint64(p.take(8)))) }

// text answers a string that is part of the record itself, which is safe because nobody writes there again.
func (p *parser) text() string { return p.string(p.count()) }

func (p *parser) string(n int) string {
	if n == 0 {
		return ""
	}
	return unsafe.String(&p.take(n)[0], n) //nolint:gosec // see above
}

// texts reads a list into the room that is given, if it fits.
func (p *parser) texts(room []string) []string {
	n := p.count()
	if n > cap(room) {
		room = make([]string, 0, n)
	}
	for range n {
		room = append(room, p.text())
	}
	return room[:n:n]
}

func (p *parser) addr() netip.Addr {
	a, _ := netip.AddrFromSlice(p.take(int(p.take(1)[0])))
	return a
}

// parts reads the optional parts, and answers the serial of the current secret.
func (p *parser) parts(parts byte, t *tokens.Token) (serial int64) {
	if parts&partDescription != 0 {
		t.Description = p.text()
	}
	if parts&partLabels != 0 {
		n := p.count()
		t.Labels = make(map[string]string, n)
		for range n {
			k := p.text()
			t.Labels[k] = p.text()
		}
	}
	if parts&partAudiences != 0 {
		t.Audiences = p.texts(nil)
	}
	if parts&partCIDRs != 0 {
		t.CIDRs = make([]netip.Prefix, p.count())
		for i := range t.CIDRs {
			bits := int(p.take(1)[0])
			t.CIDRs[i] = netip.PrefixFrom(p.addr(), bits)
		}
	}
	if parts&partRevocation != 0 {
		t.Revocation = &tokens.Revocation{Time: p.time(), By: p.text(), Reason: p.text()}
	}
	if parts&partBlocked != 0 {
		t.BlockedBy = p.text()
	}
	if parts&partRotated != 0 {
		serial = int64(p.count())
	}
	return serial
}
