package tokens

import (
	"slices"
	"strings"
)

// Actions returns every action that an event of the audit log may name.
func Actions() []Action {
	return []Action{
		ActionTokenCreate,
		ActionTokenUpdate,
		ActionTokenRotate,
		ActionTokenFirstUse,
		ActionTokenCancel,
		ActionTokenRevoke,
		ActionTokenLeaked,
		ActionTokenRevokeAll,
		ActionTokenExchange,
		ActionTokenRefresh,
		ActionAccessRevoke,
		ActionFamilyRevoke,
		ActionUserSuspend,
		ActionUserResume,
		ActionUserDelete,
		ActionUserFeatures,
		ActionServiceCreate,
		ActionServiceRotate,
		ActionServiceRevoke,
		ActionTokenBlock,
		ActionTokenUnblock,
		ActionUserRefresh,
		ActionFeatureCreate,
		ActionFeatureReplace,
		ActionFeatureDelete,
		ActionAudienceCreate,
		ActionAudienceReplace,
		ActionAudienceDelete,
		ActionKeyAdd,
		ActionKeyRetire,
		ActionPrefixAdd,
		ActionAuditPrune,
		ActionSessionHandoff,
		ActionSessionCreate,
		ActionSessionEnd,
		ActionTokenRevokeMatching,
		ActionTokenRevokeEnd,
		ActionRowsSeal,
		ActionTokenSupersededUse,
		ActionWebhookCreate,
		ActionWebhookUpdate,
		ActionWebhookDelete,
		ActionWebhookRotate,
		ActionWebhookTest,
		ActionWebhookRedeliver,
		ActionWebhookDisable,
		ActionTokenNarrow,
		ActionTokenResume,
		ActionTokenScopesRemoved,
		ActionTokenNarrowMatching,
		ActionTokenNarrowEnd,
		ActionUserProvision,
		ActionUserSecurityEvent,
		ActionTokenExpiring,
		ActionTokenExpired,
		ActionServiceExpiring,
		ActionTokenUnused,
		ActionTokenIdle,
		ActionTokenPause,
		ActionTokenIdleEnd,
	}
}

// check rejects filters that could match no event, and says which: a mistyped one would look like a clean record.
func (f EventFilter) check() error {
	if f.Action != "" && !slices.Contains(Actions(), Action(f.Action)) {
		noun, _, _ := strings.Cut(f.Action, ".")
		var names []string
		for _, a := range Actions() {
			if strings.HasPrefix(string(a), noun+".") {
				names = append(names, string(a))
			}
		}
		if names == nil {
			for _, a := range Actions() {
				names = append(names, string(a))
			}
		}
		return Invalid("FILTER_INVALID", "action", "there is no such action; there are "+strings.Join(names, ", "))
	}
	kind, name, named := strings.Cut(f.Actor, ":")
	switch {
	case f.Actor == "", !named && (kind == "operator" || kind == "nobody" || kind == actorSource):
	case name != "" && (kind == "service" || kind == "user" || kind == "token" || kind == "operator" || kind == "partner" || kind == "issuer"):
	default:
		return Invalid(
			"FILTER_INVALID",
			"actor",
			"must be service:NAME, user:ID, token:ID, operator, operator:ID, partner:NAME, issuer:URL, source or nobody",
		)
	}
	return nil
}
