package usage

import (
	"net/netip"

	"patd/tokens"
	"patd/tokens/secret"
)

// Use is the last use of a token without pointers, so that the garbage collector has nothing to walk in a million of
// them.
type Use struct {
	Micros int64 // when, in microseconds of Unix time
	IP     [16]byte
	IPSize uint8 // bytes of IP: 4, 16, or 0 for an address that is not known
}

// Of is the form of a use without pointers.
func Of(u tokens.Use) Use {
	out := Use{Micros: u.Time.UnixMicro()}
	switch ip := u.IP.Unmap(); {
	case ip.Is4():
		a := ip.As4()
		out.IPSize = uint8(copy(out.IP[:], a[:]))
	case ip.Is6():
		out.IP, out.IPSize = ip.As16(), 16
	}
	return out
}

// Addr is the address; the zero Addr when it is not known.
func (u *Use) Addr() netip.Addr {
	ip, _ := netip.AddrFromSlice(u.IP[:u.IPSize])
	return ip
}

// Used is a token and its last use.
type Used struct {
	ID tokens.ID
	Use
}

// IsUse reports whether u has a last use that is kept: of a personal access token.
func IsUse(u tokens.Usage) bool {
	return (u.Kind == 0 || u.Kind == secret.KindPersonal) && !u.Use.Time.IsZero()
}

// DetailOf returns the details of a use; nil: it has none.
func DetailOf(u tokens.Usage) *Detail {
	if len(u.Scopes) == 0 && u.Service == "" {
		return nil
	}
	d, day := new(Detail), max(u.Use.Time.UnixMicro(), 0)/DayMicros
	for _, s := range u.Scopes {
		d.AddScope(ScopeUse{Scope: s, Day: day, Count: 1})
	}
	if len(u.Scopes) == 0 {
		d.AddScope(ScopeUse{Day: day, Count: 1})
	}
	if u.Service != "" {
		d.AddSource(Source{IP: u.Use.IP, Service: u.Service, Micros: u.Use.Time.UnixMicro()})
	}
	return d
}
