package rpc

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/wire"
	"patd/tokens"
)

// toToken writes a token in its state at an instant.
func toToken(t tokens.Token) *patdv1.Token {
	now := t.AsOf
	out := &patdv1.Token{
		TokenId:     t.ID.String(),
		User:        t.User,
		Name:        t.Name,
		Description: t.Description,
		Labels:      t.Labels,
		Scopes: t.GrantedScopes(
			now,
		),
		PausedScopes:  t.PausedScopes(now),
		Audiences:     t.Audiences,
		AllowedCidrs:  wire.ToCIDRs(t.CIDRs),
		State:         patdv1.Token_State(t.Status(now)),
		IssueTime:     wire.ToTime(t.IssueTime),
		ExpireTime:    wire.ToTime(t.ExpireTime),
		LastUsedTime:  wire.ToTime(t.LastUsed.Time),
		LastUsedIp:    wire.ToIP(t.LastUsed.IP),
		PolicyBlocked: len(t.Blockers()) > 0,
		IdleTime:      wire.ToTime(t.IdleTime()),
	}
	if r := t.Revocation; r != nil {
		out.RevokeTime, out.RevokedBy, out.RevokeReason = wire.ToTime(r.Time), r.By, r.Reason
	}
	if r := t.InProgress(now); r != nil {
		out.Rotation = &patdv1.Rotation{
			RotateTime: wire.ToTime(r.Time), PreviousSecretExpireTime: wire.ToTime(r.PreviousUntil),
			RetirePrevious: patdv1.Rotation_RetirePrevious(r.Retire), FirstUseTime: wire.ToTime(r.FirstUse),
		}
	}
	out.SelfRotate, out.RenewableUntil = t.SelfRotate, wire.ToTime(t.RenewableUntil)
	out.ScopesState = patdv1.Token_UNKNOWN
	if e := t.InEffect; e != nil {
		out.EffectiveScopes, out.SuspendedScopes, out.ScopesState = e.Effective, e.Suspended, patdv1.Token_CURRENT
		if e.Stale {
			out.ScopesState = patdv1.Token_STALE
		}
	}
	out.PausedScopesRemoveTime = wire.ToTime(t.PausedUntil(now))
	if t.Uses != nil {
		fillUses(out, t.Uses)
	}
	out.Etag = t.ETag()
	return out
}

// fillUses writes what is known of the uses of each scope of a token.
func fillUses(out *patdv1.Token, u *tokens.ScopeUses) {
	out.ScopeUses = make([]*patdv1.ScopeUse, len(out.GetScopes()))
	for i, scope := range out.GetScopes() {
		out.ScopeUses[i] = toScopeUse(u.Of(scope))
	}
	out.UnscopedUses, out.ScopeUsesSince = toScopeUse(u.Unscoped), wire.ToTime(u.Since)
	for _, s := range u.Sources {
		out.UseSources = append(
			out.UseSources,
			&patdv1.UseSource{Ip: wire.ToIP(s.IP), Service: s.Service, Time: wire.ToTime(s.Time)},
		)
	}
}

func toScopeUse(u tokens.ScopeUse) *patdv1.ScopeUse {
	out := &patdv1.ScopeUse{Scope: u.Scope, UseCount: u.Count}
	if !u.Day.IsZero() {
		out.LastUsedDay = u.Day.Format(time.DateOnly)
	}
	return out
}

func toTokens(ts []tokens.Token) []*patdv1.Token {
	out := make([]*patdv1.Token, len(ts))
	for i, t := range ts {
		out[i] = toToken(t)
	}
	return out
}

// lifetimeRequest is a request with a lifetime.
type lifetimeRequest interface {
	GetExpireTime() *timestamppb.Timestamp
	GetTtl() *durationpb.Duration
	GetNeverExpires() bool
}

func fromLifetime(r lifetimeRequest) (tokens.Lifetime, error) {
	at, err := wire.FromTime("expire_time", r.GetExpireTime())
	if err != nil {
		return tokens.Lifetime{}, err
	}
	ttl, err := wire.FromDuration("ttl", r.GetTtl())
	if err != nil {
		return tokens.Lifetime{}, err
	}
	return tokens.Lifetime{ExpireTime: at, TTL: ttl, Never: r.GetNeverExpires()}, nil
}

// rotationRequest is a request to rotate a token.
type rotationRequest interface {
	GetGrace() *durationpb.Duration
	GetRetirePrevious() patdv1.Rotation_RetirePrevious
	GetRequestId() string
}

// rotation is what any request to rotate a token says.
type rotation struct {
	grace          *time.Duration
	retire         tokens.RetirePrevious
	idempotencyKey string
}

func fromRotation(ctx context.Context, r rotationRequest) (rotation, error) {
	grace, err := wire.FromDuration("grace", r.GetGrace())
	if err != nil {
		return rotation{}, err
	}
	key, err := idempotencyKey(call.Of(ctx).Headers(call.KeyIdempotency), r.GetRequestId())
	if err != nil {
		return rotation{}, err
	}
	retire, err := fromEnum(
		"RETIRE_PREVIOUS_UNKNOWN", "retire_previous", r.GetRetirePrevious(), patdv1.Rotation_RetirePrevious_name,
	)
	return rotation{grace, tokens.RetirePrevious(retire), key}, err
}

// pageRequest is a request for a page.
type pageRequest interface {
	GetPageSize() int32
	GetPageToken() string
}

func fromPage(r pageRequest) tokens.Page {
	return tokens.Page{Size: int(r.GetPageSize()), Token: r.GetPageToken()}
}

// cursorRequest is a request for a page of the catalogue, whose lists have `limit` and `after`.
type cursorRequest interface {
	GetLimit() int32
	GetAfter() string
}

func fromCursor(r cursorRequest) tokens.Page {
	return tokens.Page{Size: int(r.GetLimit()), Token: r.GetAfter()}
}

// asCursor renames the fields in an error about a page to those of the catalogue's lists.
func asCursor(err error) error {
	var e *tokens.Error
	if !errors.As(err, &e) || len(e.Violations) != 1 {
		return err
	}
	v := e.Violations[0]
	switch v.Field {
	case "page_size":
		return tokens.Invalid(v.Reason, "limit", v.Description)
	case "page_token":
		return tokens.Invalid(v.Reason, "after", v.Description)
	default:
		return err
	}
}

// fromEnum reads an enum with the domain's numbers, where 0 is a filter that selects all, or the default.
func fromEnum[E ~int32](reason, field string, e E, names map[int32]string) (int, error) {
	if _, ok := names[int32(e)]; !ok {
		return 0, tokens.Invalid(reason, field, "no such "+field)
	}
	return int(e), nil
}

func toUser(u tokens.User) *patdv1.User {
	return &patdv1.User{
		User:       u.ID,
		State:      patdv1.User_State(u.State),
		CreateTime: wire.ToTime(u.CreateTime),
		Etag:       u.ETag(),
	}
}

func toService(s tokens.ServiceAccount) *patdv1.Service {
	now := s.AsOf
	out := &patdv1.Service{
		TokenId:     s.ID.String(),
		Name:        s.Name,
		Permissions: s.Permissions.Names(),
		Audience:    s.Audience,
		State: patdv1.Service_State(
			s.Status(now),
		),
		IssueTime:  wire.ToTime(s.IssueTime),
		ExpireTime: wire.ToTime(s.ExpireTime),
		RotateTime: wire.ToTime(s.RotateTime),
	}
	if s.PreviousUntil.After(now) {
		out.PreviousSecretExpireTime = wire.ToTime(s.PreviousUntil)
	}
	if r := s.Revocation; r != nil {
		out.RevokeTime, out.RevokedBy, out.RevokeReason = wire.ToTime(r.Time), r.By, r.Reason
		out.PreviousSecretExpireTime = nil
	}
	return out
}

func toEvent(e tokens.Event) *patdv1.Event {
	out := &patdv1.Event{
		EventId: e.Seq,
		Time:    wire.ToTime(e.Time),
		Actor:   e.Actor,
		Action:  string(e.Action),
		User:    e.User,
		Service: e.Service,
		PeerIp:  wire.ToIP(e.PeerIP),
		Outcome: patdv1.Event_Outcome(e.Outcome),
		Reason:  e.Reason,
		Detail:  e.Detail,
	}
	if e.TokenID != 0 {
		out.TokenId = e.TokenID.String()
	}
	return out
}
