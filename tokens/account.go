package tokens

import (
	"slices"
	"strings"
	"time"
)

// Permission is what a service may do.
type Permission uint8

// The permissions. PermAdmin implies all.
const (
	PermIntrospect Permission = 1 << iota
	PermTokens
	PermUsers
	PermCatalog
	PermAudit
	PermAdmin
)

var permissionNames = []struct {
	p    Permission
	name string
}{
	{PermIntrospect, "introspect"},
	{PermTokens, "tokens"},
	{PermUsers, "users"},
	{PermCatalog, "catalog"},
	{PermAudit, "audit"},
	{PermAdmin, "admin"},
}

// Has reports whether p holds any of want; admin holds all.
func (p Permission) Has(want Permission) bool { return p&PermAdmin != 0 || p&want != 0 }

// Names lists the permissions in p in their fixed order.
func (p Permission) Names() []string {
	names := []string{}
	for _, e := range permissionNames {
		if p&e.p != 0 {
			names = append(names, e.name)
		}
	}
	return names
}

// ParsePermissions reads permission names. At least one is needed.
func ParsePermissions(names []string) (Permission, error) {
	var p Permission
	for _, n := range names {
		i := slices.IndexFunc(permissionNames, func(e struct {
			p    Permission
			name string
		}) bool {
			return e.name == n
		})
		if i < 0 {
			return 0, Invalid(
				"PERMISSION_UNKNOWN",
				"permissions",
				"unknown permission; the permissions are introspect, tokens, users, catalog, audit and admin",
			)
		}
		p |= permissionNames[i].p
	}
	if p == 0 {
		return 0, Invalid(
			"PERMISSIONS_REQUIRED",
			"permissions",
			"name at least one permission: introspect, tokens, users, catalog, audit or admin",
		)
	}
	return p, nil
}

// ServiceAccount is an internal caller with a service token.
type ServiceAccount struct {
	ID          ID
	Name        string // [A-Za-z0-9._-]{1,64}, not `.` or `..`, unique among live services
	Permissions Permission
	Audience    string // the one it is bound to; empty: not bound
	IssueTime   time.Time
	ExpireTime  time.Time
	Revocation  *Revocation
	// Rotations is how often the secret was replaced, and RotateTime when it was last; zero: never.
	Rotations  int64
	RotateTime time.Time
	// PreviousUntil is until when the secret before the last rotation is accepted; zero: there is none.
	PreviousUntil time.Time
	// AsOf is the instant of the call that returned the service, as that of a Token.
	AsOf time.Time `json:"-"`
}

// accepts reports whether the service is active, and the secret with a serial is its current one or in its grace.
func (s *ServiceAccount) accepts(serial int64, now time.Time) bool {
	return s.Status(now) == StateActive &&
		(serial == s.Rotations || serial == s.Rotations-1 && now.Before(s.PreviousUntil))
}

// lifetime returns how long the service's token lives from its last secret on.
func (s ServiceAccount) lifetime() time.Duration {
	from := s.IssueTime
	if s.RotateTime.After(from) {
		from = s.RotateTime
	}
	return s.ExpireTime.Sub(from)
}

// Status is the service's state at an instant.
func (s ServiceAccount) Status(now time.Time) State { return status(s.Revocation, s.ExpireTime, now) }

// ServiceCredential is all that authenticating a service needs, read at one instant.
type ServiceCredential struct {
	Service  ServiceAccount
	Secret   StoredSecret  // the current one
	Previous *StoredSecret // the one before the last rotation; nil: none
}

// end returns when a secret of the service stops being accepted.
func (c *ServiceCredential) end(s *StoredSecret) time.Time {
	return earliest(s.ExpireTime, c.Service.ExpireTime)
}

// endOf returns when the accepted secret with a serial stops being accepted.
func (c *ServiceCredential) endOf(serial int64) time.Time {
	if c.Previous != nil && serial == c.Previous.Serial {
		return c.end(c.Previous)
	}
	return c.end(&c.Secret)
}

// ActorKind says how a caller authenticated.
type ActorKind int

// The kinds of caller. The zero value is Nobody.
const (
	Nobody ActorKind = iota
	ServiceActor
	UserActor  // a signed-in user
	TokenActor // the bearer of a personal access token
	OperatorActor
	// PartnerActor is another company's system, known by its signature, that reports leaked secrets and does nothing
	// else.
	PartnerActor
	IssuerActor // an issuer of security events, by its signature
)

// Actor is a caller. The zero Actor is Nobody.
type Actor struct {
	Kind        ActorKind
	Name        string     // of a service or a partner; the URL of an issuer
	User        string     // of a signed-in user, or the owner of the presented token
	TokenID     ID         // of the presented service or personal access token
	Permissions Permission // of a service, or of a signed-in user who is an operator
	Audience    string     // that a service is bound to
	// Features are those that a signed-in user's credential lists; nil: it has no list. They count only if the source
	// returns AsGranted.
	Features []string
	Peer     Peer
	// Serial is the serial of the presented secret of a service or a personal access token.
	Serial int64
	// ExpireTime is when the presented secret, or a person's sign-in token, stops being accepted; zero: never, or not
	// known.
	ExpireTime time.Time
	// mark is the store's mark of services from before the record of a service was read; 0: none.
	mark uint64
	// keys are those that the presented secret of a service was checked with.
	keys *Keys
	// presented says that the caller's only authority is the secret that the call is about. The use case checks that
	// secret against the store inside its transaction.
	presented bool
	// session is the caller's session of the page, which is read again in the transaction of each change; nil: none.
	session *SessionKey
}

// String names the actor as audit events do: service:<name>, user:<id>, token:<token id>, operator:<user id>
// for a person, operator for the command line, partner:<name>, issuer:<URL>, or nobody.
func (a Actor) String() string {
	switch a.Kind {
	case ServiceActor:
		return "service:" + a.Name
	case UserActor:
		return "user:" + a.User
	case TokenActor:
		return "token:" + a.TokenID.String()
	case PartnerActor:
		return "partner:" + a.Name
	case OperatorActor:
		if a.User != "" {
			return "operator:" + a.User
		}
		return "operator"
	case IssuerActor:
		return "issuer:" + a.Name
	default:
		return "nobody"
	}
}

// Partner returns the actor of a partner's message whose signature was verified.
func Partner(name string, peer Peer) Actor { return Actor{Kind: PartnerActor, Name: name, Peer: peer} }

// Operator returns the actor of a command line that works on the store itself.
func Operator() Actor { return Actor{Kind: OperatorActor, Permissions: PermAdmin} }

// AsOperator returns a signed-in user in the capacity of an operator, which it has if its Permissions are not 0. An
// operator reaches the things of all users, and acts as none of them.
func (a Actor) AsOperator() Actor {
	if a.Kind == UserActor && a.Permissions != 0 {
		a.Kind, a.Features = OperatorActor, nil
	}
	return a
}

// person reports whether the caller is an operator who signed in, and not the command line.
func (a Actor) person() bool { return a.Kind == OperatorActor && a.User != "" }

var errActsAsUser = denied("an operator acts as no user")

// validServiceName reports whether s has the form of a service's name. New names must also not be LostInPath.
func validServiceName(s string) bool {
	const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
	return len(s) >= 1 && len(s) <= 64 && strings.Trim(s, allowed) == ""
}
