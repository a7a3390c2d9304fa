package tokens

// The types of what webhooks are sent.
const (
	WebhookTokenCreated        = "token.created"
	WebhookTokenUpdated        = "token.updated"
	WebhookTokenRotated        = "token.rotated"
	WebhookTokenRevoked        = "token.revoked"
	WebhookTokenExpired        = "token.expired"
	WebhookTokenExpiring       = "token.expiring" //nolint:gosec // the name of a type
	WebhookTokenSupersededUse  = "token.superseded_use"
	WebhookTokenUnused         = "token.unused"
	WebhookTokenLeaked         = "token.leaked"
	WebhookTokenBlocked        = "token.blocked"
	WebhookTokenUnblocked      = "token.unblocked"
	WebhookUserFeaturesChanged = "user.features_changed"
	WebhookUserSuspended       = "user.suspended"
	WebhookUserResumed         = "user.resumed"
	WebhookUserDeleted         = "user.deleted"
	WebhookUserSecurityEvent   = "user.security_event"
	WebhookServiceCreated      = "service.created"
	WebhookServiceRotated      = "service.rotated"
	WebhookServiceRevoked      = "service.revoked"
	WebhookServiceExpiring     = "service.expiring"
	WebhookKeyRotated          = "key.rotated"
	WebhookAudienceChanged     = "audience.changed"
	WebhookDisabled            = "webhook.disabled"

	// WebhookTest is of no event: an administrator asks for it, and no filter selects it.
	WebhookTest = "webhook.test"
)

// WebhookTypes returns every type that a webhook may ask for.
func WebhookTypes() []string {
	return []string{
		WebhookTokenCreated,
		WebhookTokenUpdated,
		WebhookTokenRotated,
		WebhookTokenRevoked,
		WebhookTokenExpired,
		WebhookTokenExpiring,
		WebhookTokenSupersededUse,
		WebhookTokenUnused,
		WebhookTokenLeaked,
		WebhookTokenBlocked,
		WebhookTokenUnblocked,
		WebhookUserFeaturesChanged,
		WebhookUserSuspended,
		WebhookUserResumed,
		WebhookUserDeleted,
		WebhookUserSecurityEvent,
		WebhookServiceCreated,
		WebhookServiceRotated,
		WebhookServiceRevoked,
		WebhookServiceExpiring,
		WebhookKeyRotated,
		WebhookAudienceChanged,
		WebhookDisabled,
	}
}

// webhookTypes says which type an action is sent as. Other actions are not sent.
func webhookTypes() map[Action]string {
	return map[Action]string{
		ActionTokenCreate:        WebhookTokenCreated,
		ActionTokenUpdate:        WebhookTokenUpdated,
		ActionTokenRotate:        WebhookTokenRotated,
		ActionTokenCancel:        WebhookTokenUpdated,
		ActionTokenNarrow:        WebhookTokenUpdated,
		ActionTokenResume:        WebhookTokenUpdated,
		ActionTokenScopesRemoved: WebhookTokenUpdated,
		ActionTokenRevoke:        WebhookTokenRevoked,
		ActionTokenSupersededUse: WebhookTokenSupersededUse,
		ActionTokenLeaked:        WebhookTokenLeaked,
		ActionTokenBlock:         WebhookTokenBlocked,
		ActionTokenUnblock:       WebhookTokenUnblocked,
		ActionUserFeatures:       WebhookUserFeaturesChanged,
		ActionUserSuspend:        WebhookUserSuspended,
		ActionUserResume:         WebhookUserResumed,
		ActionUserDelete:         WebhookUserDeleted,
		ActionUserSecurityEvent:  WebhookUserSecurityEvent,
		ActionServiceCreate:      WebhookServiceCreated,
		ActionServiceRotate:      WebhookServiceRotated,
		ActionTokenExpiring:      WebhookTokenExpiring,
		ActionTokenExpired:       WebhookTokenExpired,
		ActionServiceExpiring:    WebhookServiceExpiring,
		ActionTokenUnused:        WebhookTokenUnused,
		ActionTokenIdle:          WebhookTokenUnused,
		ActionTokenPause:         WebhookTokenBlocked,
		ActionTokenIdleEnd:       WebhookTokenUnblocked,
		ActionServiceRevoke:      WebhookServiceRevoked,
		ActionKeyAdd:             WebhookKeyRotated,
		ActionAudienceCreate:     WebhookAudienceChanged,
		ActionAudienceReplace:    WebhookAudienceChanged,
		ActionAudienceDelete:     WebhookAudienceChanged,
		ActionWebhookDisable:     WebhookDisabled,
	}
}

// WebhookType returns the type that an event is sent as; false: it is not sent, as a refused attempt is not. The use of
// a superseded secret is sent, which is a refusal by its nature.
func WebhookType(e Event) (string, bool) {
	if e.Outcome != OutcomeSuccess && e.Action != ActionTokenSupersededUse {
		return "", false
	}
	t, ok := webhookTypes()[e.Action]
	return t, ok
}
