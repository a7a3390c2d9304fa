package cache

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"
	"unsafe"

	"patd/store/cache/internal/reclog"
	"patd/store/usage"
	"patd/tokens"
)

// A tokenRecord is a token as bytes without pointers, which but for the use are never written again. The strings of a
// reading are parts of it: to read one copies nothing, and keeps the bytes alive for as long as anybody holds a string.
//
//	 4  number of the current secret's key, 2 bytes; which of the optional parts are there, 1 byte; number of secrets that
//	    were rotated away, 1 byte
//	16  the marks: time of the last use, flags of it, and reclog.Read
//	24  address of the last use, which is read and written under the lock of the shard
//	40  details of uses: the source, 8 bytes, and the first counts by scope, 8 bytes; see usedetails.go
//	56  key of the user; 64 issue and 72 expire time; 80 digest of the current secret
//	112 name; number of its list of scopes, and the scopes if that is 0; and the optional parts in the order of their
//	    bits; numbers, counts and lengths are uvarints
//	at the end, in words that are written under the lock of the shard: the counts that 48 has no room for
type tokenRecord reclog.Record

const (
	tokenKey    = 4
	tokenParts  = 6
	tokenOld    = 7
	tokenUseIP  = reclog.MarksEnd
	tokenSource = 40
	tokenCounts = 48
	tokenUser   = 56
	tokenIssue  = 64
	tokenExpire = 72
	tokenDigest = 80
	tokenText   = 112
)

// Marks of a token, below the time of its use. The lowest five bits are how many bytes its address has; the seventh is
// reclog.Read.
const (
	useIP    = 1<<5 - 1
	useWaits = 1 << 5 // it is to be written
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
	partPaused
	partRotated // the serial of the current secret; those of the older ones count down from it
)

// A secret that was rotated away: its key, when it expires and when it was ended, whether the next one was used, and
// the digest.
const (
	oldSecretSize   = oldSecretDigest + 32
	oldSecretUsed   = 2 + 8 + 8
	oldSecretDigest = oldSecretUsed + 1
)

// packToken makes the record of a token. keyNumber numbers the names of keys; list is the number of its list of scopes,
// 0 if that has none. False: a record cannot hold it.
func packToken(c *tokens.Credential, keyNumber func(string) (uint16, bool), list uint32) (reclog.Record, bool) {
	t := &c.Token
	if len(c.Secrets) == 0 || len(c.Secrets) > 256 || !c.Secrets[0].ExpireTime.IsZero() {
		return nil, false
	}
	current, ok := keyNumber(c.Secrets[0].Hash.Key)
	if !ok {
		return nil, false
	}
	b := make([]byte, tokenText)
	binary.LittleEndian.PutUint16(b[tokenKey:], current)
	b[tokenOld] = byte(len(c.Secrets) - 1)
	binary.LittleEndian.PutUint64(b[tokenUser:], uint64(t.UserKey))
	binary.LittleEndian.PutUint64(b[tokenIssue:], uint64(t.IssueTime.UnixMicro()))
	binary.LittleEndian.PutUint64(b[tokenExpire:], uint64(expiry(t.ExpireTime)))
	copy(b[tokenDigest:], c.Secrets[0].Hash.Sum[:])
	b = packText(b, t.Name)
	b = binary.AppendUvarint(b, uint64(list))
	if list == 0 {
		b = packTexts(b, t.Scopes)
	}
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
		b = binary.LittleEndian.AppendUint64(b, uint64(expiry(s.EndTime)))
		if s.NextUsed {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
		b = append(b, s.Hash.Sum[:]...)
	}
	b[tokenParts] = parts
	for len(b)%reclog.Align != 0 {
		b = append(b, 0)
	}
	b = append(b, make([]byte, moreCounts(len(t.Scopes)))...)
	return reclog.Make(b, uint64(t.ID)), true
}

// never is the expiry of a token that does not expire.
const never = math.MaxInt64

func expiry(t time.Time) int64 {
	if t.IsZero() {
		return never
	}
	return t.UnixMicro()
}

func expiryTime(us int64) time.Time {
	if us == never {
		return time.Time{}
	}
	return instant(us)
}

func instant(us int64) time.Time { return time.UnixMicro(us).UTC() }

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
		b = binary.LittleEndian.AppendUint64(b, uint64(r.Time.UnixMicro()))
		b = packText(packText(b, r.By), r.Reason)
	}
	if t.BlockedBy != "" {
		parts |= partBlocked
		b = packText(b, t.BlockedBy)
	}
	if len(t.Paused) > 0 {
		parts |= partPaused
		b = binary.AppendUvarint(b, uint64(len(t.Paused)))
		for _, p := range t.Paused {
			b = packText(binary.LittleEndian.AppendUint64(b, uint64(p.Time.UnixMicro())), p.Scope)
		}
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

func (r tokenRecord) userKey() int64 { return int64(binary.LittleEndian.Uint64(r[tokenUser:])) }

// use is the last use of the token.
func (r tokenRecord) use() usage.Use {
	marks := reclog.Record(r).Marks()
	return usage.Use{Micros: int64(marks >> useBits), IP: [16]byte(r[tokenUseIP:]), IPSize: uint8(marks & useIP)}
}

// setUse writes the last use. Times before 1970, which no clock of today shows, count as that.
func (r tokenRecord) setUse(u usage.Use, marks uint64) {
	reclog.Record(r).SetMarks(uint64(max(u.Micros, 0))<<useBits | uint64(u.IPSize) | marks)
	copy(r[tokenUseIP:], u.IP[:])
}

// read fills c, which has the token's user already, with the token. Its lists are in room, which is made if it is nil:
// one piece of memory instead of one for each. keys are the names of keys by number, and lists the lists of scopes. It
// returns the number of the token's.
func (r tokenRecord) read(c *tokens.Credential, room *tokens.Lists, keys []string, lists [][]string) (list uint32) {
	if room == nil {
		room = new(tokens.Lists)
	}
	t := &c.Token
	p := parser{b: r[tokenText:]}
	t.ID, t.UserKey, t.User = tokens.ID(reclog.Record(r).ID()), c.User.Key, c.User.ID
	t.IssueTime = instant(int64(binary.LittleEndian.Uint64(r[tokenIssue:])))
	t.ExpireTime = expiryTime(int64(binary.LittleEndian.Uint64(r[tokenExpire:])))
	t.Name = p.text()
	t.Scopes, list = p.scopes(lists, room.Scopes[:0])
	var serial int64
	if parts := r[tokenParts]; parts != 0 {
		serial = p.parts(parts, t)
	}
	c.Secrets = room.Secrets[:0]
	if n := int(r[tokenOld]); n > 0 {
		c.Secrets = make([]tokens.StoredSecret, 0, n+1)
	}
	c.Secrets = append(c.Secrets, tokens.StoredSecret{Hash: tokens.Hash{
		Key: keys[binary.LittleEndian.Uint16(r[tokenKey:])], Sum: [32]byte(r[tokenDigest:]),
	}, Serial: serial})
	for range r[tokenOld] {
		serial--
		s := p.take(oldSecretSize)
		c.Secrets = append(c.Secrets, tokens.StoredSecret{
			Hash:       tokens.Hash{Key: keys[binary.LittleEndian.Uint16(s)], Sum: [32]byte(s[oldSecretDigest:])},
			ExpireTime: expiryTime(int64(binary.LittleEndian.Uint64(s[2:]))),
			EndTime:    expiryTime(int64(binary.LittleEndian.Uint64(s[10:]))),
			NextUsed:   s[oldSecretUsed] == 1,
			Serial:     serial,
		})
	}
	c.Secrets = c.Secrets[:len(c.Secrets):len(c.Secrets)]
	return list
}

// parser reads the end of a record, where the place of a field depends on those before it.
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

// text reads a string that is part of the record itself, which is safe because it is never written again.
func (p *parser) text() string { return p.string(p.count()) }

func (p *parser) string(n int) string {
	if n == 0 {
		return ""
	}
	return unsafe.String(&p.take(n)[0], n) //nolint:gosec // see above
}

// texts reads a list, into room if it fits.
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

// scopes reads the scopes: a list that others have too, and its number, or the record's own, into room if it fits.
func (p *parser) scopes(lists [][]string, room []string) (scopes []string, number uint32) {
	if n := p.count(); n > 0 {
		return lists[n-1], uint32(n)
	}
	return p.texts(room), 0
}

func (p *parser) addr() netip.Addr {
	a, _ := netip.AddrFromSlice(p.take(int(p.take(1)[0])))
	return a
}

// parts reads the optional parts, and returns the serial of the current secret.
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
	if parts&partPaused != 0 {
		t.Paused = make([]tokens.Pause, p.count())
		for i := range t.Paused {
			t.Paused[i].Time = p.time()
			t.Paused[i].Scope = p.text()
		}
	}
	if parts&partRotated != 0 {
		serial = int64(p.count())
	}
	return serial
}
