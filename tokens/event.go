package tokens

import (
	"net/netip"
	"time"
)

// Peer is where a call came from.
type Peer struct {
	IP netip.Addr // invalid: this machine's command line, or not known
}

// Action names what an audit event is about.
type Action string

// The actions.
const (
	ActionTokenCreate   Action = "token.create"
	ActionTokenUpdate   Action = "token.update"
	ActionTokenRotate   Action = "token.rotate"
	ActionTokenFirstUse Action = "token.first_use"
	// A secret that was rotated away was presented.
	ActionTokenSupersededUse Action = "token.superseded_use"
	ActionTokenCancel        Action = "token.cancel_rotation"
	ActionTokenRevoke        Action = "token.revoke"
	ActionTokenRevokeAll     Action = "token.revoke_all"
	ActionTokenExchange      Action = "token.exchange"
	ActionTokenRefresh       Action = "token.refresh"
	ActionAccessRevoke       Action = "access.revoke"
	ActionFamilyRevoke       Action = "family.revoke"
	ActionUserSuspend        Action = "user.suspend"
	ActionUserResume         Action = "user.resume"
	ActionUserDelete         Action = "user.delete"
	ActionUserFeatures       Action = "user.features"
	ActionServiceCreate      Action = "service.create"
	ActionServiceRotate      Action = "service.rotate"
	ActionServiceRevoke      Action = "service.revoke"
	ActionTokenBlock         Action = "token.block"
	ActionTokenUnblock       Action = "token.unblock"
	ActionUserRefresh        Action = "user.refresh"
	ActionUserProvision      Action = "user.provision"      // an identity provider said how it knows a user
	ActionUserSecurityEvent  Action = "user.security_event" // an issuer of security events reported one
	ActionFeatureCreate      Action = "feature.create"
	ActionFeatureReplace     Action = "feature.replace"
	ActionFeatureDelete      Action = "feature.delete"
	ActionAudienceCreate     Action = "audience.create"
	ActionAudienceReplace    Action = "audience.replace"
	ActionAudienceDelete     Action = "audience.delete"
	ActionKeyAdd             Action = "key.add"
	ActionKeyRetire          Action = "key.retire"
	ActionPrefixAdd          Action = "prefix.add"
	ActionRowsSeal           Action = "rows.seal"
	ActionAuditPrune         Action = "audit.prune"
	ActionSessionHandoff     Action = "session.handoff"
	ActionSessionCreate      Action = "session.create"
	ActionSessionEnd         Action = "session.end"
	ActionWebhookCreate      Action = "webhook.create"
	ActionWebhookUpdate      Action = "webhook.update"
	ActionWebhookDelete      Action = "webhook.delete"
	ActionWebhookRotate      Action = "webhook.rotate"
	ActionWebhookTest        Action = "webhook.test"
	ActionWebhookRedeliver   Action = "webhook.redeliver"
	// The server stopped to send to a webhook.
	ActionWebhookDisable Action = "webhook.disable"

	// A live secret was reported as leaked. Its Detail is that of a Leak; the event of its revocation follows.
	ActionTokenLeaked Action = "token.leaked"

	// The revocation of the tokens that a filter selects: its beginning, with the filter, and its end.
	ActionTokenRevokeMatching Action = "token.revoke_matching"
	ActionTokenRevokeEnd      Action = "token.revoke_matching_end"

	// Scopes of a token were paused, resumed by its owner, and removed for good since they were not.
	ActionTokenNarrow        Action = "token.narrow"
	ActionTokenResume        Action = "token.resume_scopes"  //nolint:gosec // no credential
	ActionTokenScopesRemoved Action = "token.scopes_removed" //nolint:gosec // no credential
	// The narrowing of the tokens that a filter selects: its beginning, with the filter, and its end.
	ActionTokenNarrowMatching Action = "token.narrow_matching"
	ActionTokenNarrowEnd      Action = "token.narrow_matching_end"
)

// The actions of notices. NoticeOf reads the Detail of all but the last.
const (
	ActionTokenExpiring   Action = "token.expiring" //nolint:gosec // the name of an action
	ActionTokenExpired    Action = "token.expired"
	ActionServiceExpiring Action = "service.expiring"
	// A token was not used for long; it will be paused for that, it is, and it is no more.
	ActionTokenUnused  Action = "token.unused"
	ActionTokenIdle    Action = "token.idle"
	ActionTokenPause   Action = "token.pause"
	ActionTokenIdleEnd Action = "token.resume"
)

// Outcome reports whether an action was done.
type Outcome int

// The outcomes.
const (
	OutcomeSuccess Outcome = iota + 1
	OutcomeRefused
)

// Event is one audit event: who did what to which token, from where, when, with what outcome. It is written in the
// transaction of its effect. A successful one is also the entry of the change feed: the record that it names (the
// token, or else the user, or else the service) has changed.
type Event struct {
	Seq     uint64 // assigned by the store; increases
	Time    time.Time
	Actor   string
	Action  Action
	User    string
	TokenID ID // 0: not about one token
	Service string
	PeerIP  netip.Addr
	Outcome Outcome
	Reason  string // stable reason of a refusal
	Detail  string // what changed, in names; never a secret
	// TraceParent is where in a trace the change was made, as W3C Trace Context writes it; empty: in none that is
	// sampled. The store writes and reads it; what a caller sets is ignored.
	TraceParent string
	// Narrows says that an update only takes away scopes, features or lifetime. It is not stored.
	Narrows bool
}

// OnlyEnds reports whether a change with these events only takes away: it revokes, suspends, blocks, deletes or
// narrows. A store makes such a change even from its reserve. Refused attempts do not count.
func OnlyEnds(events []Event) bool {
	ends := false
	for _, e := range events {
		if e.Outcome == OutcomeRefused {
			continue
		}
		if !e.ends() {
			return false
		}
		ends = true
	}
	return ends
}

func (e Event) ends() bool {
	switch e.Action {
	case ActionTokenNarrow,
		ActionTokenScopesRemoved,
		ActionTokenNarrowMatching,
		ActionTokenNarrowEnd,
		ActionTokenFirstUse,
		ActionTokenLeaked,
		ActionTokenRevoke,
		ActionTokenRevokeAll,
		ActionTokenRevokeMatching,
		ActionTokenRevokeEnd,
		ActionAccessRevoke,
		ActionFamilyRevoke,
		ActionTokenBlock,
		ActionTokenPause,
		ActionServiceRevoke,
		ActionUserSuspend,
		ActionUserDelete,
		ActionFeatureDelete,
		ActionAudienceDelete,
		ActionAuditPrune,
		ActionSessionEnd,
		ActionWebhookDelete,
		ActionWebhookDisable:
		return true
	default:
		return e.Narrows
	}
}
