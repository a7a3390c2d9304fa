package call

import (
	"maps"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"patd/tokens"
	"patd/tokens/refusal"
)

// maxExpiries bounds how many callers' expiries are remembered. There are few services, and each calls often.
const maxExpiries = 4096

// expiries remembers the written expiries of services, so that introspection does not write them anew.
type expiries struct {
	known atomic.Pointer[map[secretOfService]*expiry]
}

// secretOfService identifies one secret of a service.
type secretOfService struct {
	id     tokens.ID
	serial int64
}

// expiry is when a secret expires, as metadata and as the values of a header. Its readers must not change it.
type expiry struct {
	at     time.Time
	md     metadata.MD
	values []string
}

// of returns the expiry of a service's secret; nil: it never expires, or the caller is no service.
func (e *expiries) of(a *tokens.Actor) *expiry {
	if a.Kind != tokens.ServiceActor || a.ExpireTime.IsZero() {
		return nil
	}
	key := secretOfService{a.TokenID, a.Serial}
	known := e.known.Load()
	if known != nil {
		if one := (*known)[key]; one != nil && one.at.Equal(a.ExpireTime) {
			return one
		}
	}
	values := []string{refusal.Time(a.ExpireTime)}
	one := &expiry{at: a.ExpireTime, values: values, md: metadata.MD{KeyExpiresAt: values}}
	more := map[secretOfService]*expiry{}
	if known != nil && len(*known) < maxExpiries {
		more = maps.Clone(*known)
	}
	more[key] = one
	e.known.CompareAndSwap(known, &more) // losing to another is harmless: a later call adds it
	return one
}

// TokenExpires returns when the token of a calling service expires, as the values of refusal.HeaderExpiresAt; nil:
// never, or the caller is no service. The values must not be changed.
func (c *Chain) TokenExpires(begun *Call) []string {
	if one := c.expiries.of(&begun.Actor); one != nil {
		return one.values
	}
	return nil
}

// announce sets what says over gRPC when the token of a calling service expires, for when the response is sent.
func (c *Chain) announce(begun *Call) {
	stream := grpc.ServerTransportStreamFromContext(begun.Context)
	if stream == nil {
		return // over HTTP, where the handler sets the header
	}
	if one := c.expiries.of(&begun.Actor); one != nil {
		_ = stream.SetHeader(one.md) // a failure means that the call is over
	}
}

// announcesLate reports whether announce is left to the end of a call: where it is called for each request to the
// company's APIs.
func (m *Method) announcesLate() bool { return m.Hot && !m.stream }

// announceLate is announce at the end of a call. If there is a response, the headers are sent at once: to set them
// first would copy them.
func (c *Chain) announceLate(begun *Call, answered bool) {
	if begun.Route != "" {
		return // over HTTP, where the handler sets the header
	}
	stream := grpc.ServerTransportStreamFromContext(begun.Context)
	one := c.expiries.of(&begun.Actor)
	if stream == nil || one == nil {
		return
	}
	// A failure of either means that the call is over.
	if answered {
		_ = stream.SendHeader(one.md)
	} else {
		_ = stream.SetHeader(one.md)
	}
}
