package tokens

import "time"

// Day is 24 hours.
const Day = 24 * time.Hour

// Lifetime policy and limits, unless configured.
const (
	DefaultTTL        = 180 * Day
	MaxTTL            = 366 * Day
	serviceDefaultTTL = 365 * Day
	ServiceMaxTTL     = 366 * Day
	defaultGrace      = 24 * time.Hour
	MaxGrace          = 30 * Day
	IdempotencyWindow = 24 * time.Hour
)

// Limits that are not configurable.
const (
	MaxPageSize     = 200
	defaultPageSize = 50
	MaxBatch        = 1000
	MaxLeaks        = 1000 // strings in one report
	MaxFamilies     = 100  // live families of refresh tokens, per personal access token
)

// Policy is the lifetime policy of an audience or of the server. A zero field is the default.
type Policy struct {
	DefaultTTL time.Duration
	MaxTTL     time.Duration
	AllowNever bool
}

func (p Policy) withDefaults() Policy {
	if p.MaxTTL <= 0 {
		p.MaxTTL = MaxTTL
	}
	if p.DefaultTTL <= 0 {
		p.DefaultTTL = DefaultTTL
	}
	p.DefaultTTL = min(p.DefaultTTL, p.MaxTTL)
	return p
}

// Lifetime is a requested lifetime: at most one of the three, or nothing.
type Lifetime struct {
	ExpireTime *time.Time
	TTL        *time.Duration
	Never      bool
}

func (l Lifetime) isZero() bool { return l.ExpireTime == nil && l.TTL == nil && !l.Never }

// Expiry returns when a token minted now expires under the policy, to the microsecond; zero: never.
func (p Policy) Expiry(l Lifetime, now time.Time) (time.Time, error) {
	p = p.withDefaults()
	var c checker
	if c.lifetime(l); c.err() != nil {
		return time.Time{}, c.err()
	}
	field, at := "ttl", now.Add(p.DefaultTTL)
	switch {
	case l.Never:
		if !p.AllowNever {
			return time.Time{}, Invalid(
				"NEVER_NOT_ALLOWED",
				"never_expires",
				"tokens that never expire are not allowed; the maximum lifetime is "+FormatDuration(p.MaxTTL),
			)
		}
		return time.Time{}, nil
	case l.TTL != nil:
		if *l.TTL > p.MaxTTL {
			return time.Time{}, Invalid(
				"TTL_ABOVE_MAXIMUM",
				"ttl",
				"over the maximum lifetime of "+FormatDuration(p.MaxTTL),
			)
		}
		at = now.Add(*l.TTL)
	case l.ExpireTime != nil:
		field, at = "expire_time", *l.ExpireTime
	}
	at = at.Truncate(time.Microsecond).UTC()
	if !at.After(now) {
		return time.Time{}, Invalid("EXPIRE_TIME_PAST", field, "must end in the future")
	}
	if at.After(now.Add(p.MaxTTL)) {
		return time.Time{}, Invalid(
			"TTL_ABOVE_MAXIMUM",
			field,
			"over the maximum lifetime of "+FormatDuration(p.MaxTTL),
		)
	}
	return at, nil
}

// Limits limit what one token and one user can hold. A zero field is the default.
type Limits struct {
	ActiveTokens int // per user; 100
	AccessTokens int // live ones that are stored, per personal access token; 1000
	Scopes       int // per token; 256
	Audiences    int // per token; 32
	Labels       int // per token; 32
	CIDRs        int // per token; 32
	Features     int // per user; 4096
}

func (l Limits) withDefaults() Limits {
	for _, e := range []struct {
		v *int
		d int
	}{{&l.ActiveTokens, 100}, {&l.AccessTokens, 1000}, {&l.Scopes, 256}, {&l.Audiences, 32}, {&l.Labels, 32}, {&l.CIDRs, 32}, {&l.Features, 4096}} {
		if *e.v <= 0 {
			*e.v = e.d
		}
	}
	return l
}
