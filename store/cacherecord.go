package store

import (
	"encoding/binary"
	"net/netip"
	"time"
	"unsafe"

	"patd/tokens"
)

// A record is what the cache keeps of a token: bytes without pointers, which the garbage collector does not look into,
// and which are never written again. The strings of a reading are parts of it: reading one copies nothing, and keeps
// the bytes alive for as long as somebody holds a string.
//
//	 0  size of the whole, 4 bytes, a multiple of recordAlign
//	 4  number of the current secret's key, 2 bytes
//	 6  which of the optional parts are there, 1 byte
//	 7  number of secrets that were rotated away, 1 byte
//	 8  token id; 16 key of the user; 24 issue and 32 expire time; 40 digest of the current secret
//	72  name, scopes, and the optional parts in the order of their bits; counts and lengths are uvarints
const (
	recordKey    = 4
	recordParts  = 6
	recordOld    = 7
	recordID     = 8
	recordUser   = 16
	recordIssue  = 24
	recordExpire = 32
	recordDigest = 40
	recordText   = 72

	recordAlign = 8
)

// The optional parts of a record.
const (
	partDescription = 1 << iota
	partLabels
	partAudiences
	partCIDRs
	partRevocation
	partLastUsed
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
	for len(b)%recordAlign != from%recordAlign {
		b = append(b, 0)
	}
	b[from+recordParts] = parts
	binary.LittleEndian.PutUint32(b[from:], uint32(len(b)-from))
	return b, true
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
	if !t.LastUsed.Time.IsZero() {
		parts |= partLastUsed
		b = binary.LittleEndian.AppendUint64(b, uint64(micros(t.LastUsed.Time)))
		b = packAddr(b, t.LastUsed.IP)
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

// record is a packed token.
type record []byte

func (r record) id() tokens.ID  { return tokens.ID(binary.LittleEndian.Uint64(r[recordID:])) }
func (r record) userKey() int64 { return int64(binary.LittleEndian.Uint64(r[recordUser:])) }

// recordSize reads the size of the record that begins b.
func recordSize(b []byte) int { return int(binary.LittleEndian.Uint32(b)) }

// lists is the memory of what nearly every token has: one piece instead of one for each list.
type lists struct {
	scopes  [6]string
	secrets [1]tokens.StoredSecret
}

// read fills c with the token, and the user that it belongs to. keys are the names of keys by number.
func (r record) read(c *tokens.Credential, u *tokens.User, keys []string) {
	own := new(lists)
	t := &c.Token
	p := parser{b: r[recordText:]}
	t.ID, t.UserKey, t.User = r.id(), u.Key, u.ID
	t.IssueTime = instant(int64(binary.LittleEndian.Uint64(r[recordIssue:])))
	t.ExpireTime = expiryTime(int64(binary.LittleEndian.Uint64(r[recordExpire:])))
	t.Name = p.text()
	t.Scopes = p.texts(own.scopes[:0])
	var serial int64
	if parts := r[recordParts]; parts != 0 {
		serial = p.parts(parts, t)
	}
	c.User = *u
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
func (p *parser) text() string {
	n := p.count()
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
	if parts&partLastUsed != 0 {
		t.LastUsed = tokens.Use{Time: p.time(), IP: p.addr()}
	}
	if parts&partBlocked != 0 {
		t.BlockedBy = p.text()
	}
	if parts&partRotated != 0 {
		serial = int64(p.count())
	}
	return serial
}
