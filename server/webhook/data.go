package webhook

import "time"

// The data of messages. The schemas are made of these structs: the tag doc describes a field, and a field with
// omitempty may be absent. They hold ids, names and labels; a field of free text, such as a reason or a description,
// does not belong here.

// about says who did it.
type about struct {
	Actor string `json:"actor" doc:"Who did it: service:NAME, user:ID, token:ID, operator, operator:ID, partner:NAME, issuer:URL, source, or nobody: patd itself, or a caller without a credential."`
}

type tokenData struct {
	about
	TokenID   string            `json:"token_id"    doc:"The id of the token."`
	User      string            `json:"user"        doc:"The user that owns it."`
	Name      string            `json:"name"        doc:"Its name; empty if its record cannot be read or is not as patd wrote it."`
	Labels    map[string]string `json:"labels"      doc:"Its labels."`
	Scopes    []string          `json:"scopes"      doc:"Its scopes, as granted."`
	Audiences []string          `json:"audiences"   doc:"The audiences that it names; empty: none in particular."`
	Expire    *time.Time        `json:"expire_time" doc:"When it expires; null: never."`
}

type tokenUpdatedData struct {
	tokenData
	Changed []string `json:"changed" doc:"The names of the fields that changed; rotation: a rotation was cancelled."`
}

type supersededUseData struct {
	tokenData
	PresentedTo string `json:"presented_to,omitempty" doc:"The service that asked about the secret; absent: it was presented to patd."`
}

type tokenExpiringData struct {
	tokenData
	Threshold string `json:"threshold" doc:"How long before its end this is, such as 7d. It may have been renewed since: expire_time is the end that the message is about."`
}

type tokenUnusedData struct {
	tokenData
	LastUsed *time.Time `json:"last_used_time" doc:"When it was last used; null: never."`
	Pause    *time.Time `json:"pause_time"     doc:"When it will be paused, if it is not used before; null: it will not."`
}

type tokenLeakedData struct {
	tokenData
	Service    string     `json:"service,omitempty"        doc:"The service whose token it is; absent: it is a user's."`
	What       string     `json:"what"                     doc:"What was found: token, access token, refresh token or service."`
	ReportedBy string     `json:"reported_by,omitempty"    doc:"The partner that reported it; absent: anybody."`
	Place      string     `json:"place,omitempty"          doc:"The kind of place where it was found, such as commit."`
	URL        string     `json:"url,omitempty"            doc:"Where it was found."`
	Effective  []string   `json:"effective_scopes"         doc:"The scopes in effect, or the permissions of a service."`
	Suspended  []string   `json:"suspended_scopes"         doc:"The scopes that were granted and not held."`
	Unknown    bool       `json:"effect_unknown,omitempty" doc:"The source of features did not answer: effective_scopes are all that were granted."`
	More       int        `json:"more_scopes,omitempty"    doc:"How many scopes are not listed, since they are too many."`
	LastUsed   *time.Time `json:"last_used_time"           doc:"When it was last used; null: never, or it is not known."`
	LastIP     string     `json:"last_used_ip,omitempty"   doc:"From where it was last used."`
	Sources    []source   `json:"use_sources"              doc:"The latest addresses and asking services of its uses, the newest first, at most 5; empty for a service. Uses of the last minute may be missing."`
}

type source struct {
	IP      string    `json:"ip,omitempty" doc:"The address; absent: not known."`
	Service string    `json:"service"      doc:"The name of the service that asked."`
	Time    time.Time `json:"time"         doc:"The last use from there."`
}

type tokenBlockedData struct {
	tokenData
	BlockedBy []string   `json:"blocked_by" doc:"The audiences whose policies block it now."`
	Idle      *time.Time `json:"idle_time"  doc:"When it was paused, since it was not used; null: it is not."`
}

type userData struct {
	about
	User string `json:"user" doc:"The id of the user."`
}

type securityEventData struct {
	userData
	Events  []string `json:"events"  doc:"What the issuer reported, such as account-disabled. The issuer is the actor."`
	Actions []string `json:"actions" doc:"What patd did with it: suspend, revoke, delete, or notify, which is nothing but this."`
}

type featuresChangedData struct {
	userData
	Suspended []scopeCount `json:"suspended"      doc:"The features that the user lost: as scopes of tokens they are suspended."`
	Restored  []scopeCount `json:"restored"       doc:"The features that the user got: as scopes of tokens they are in effect again."`
	More      int          `json:"more,omitempty" doc:"How many changed features are not listed, since they are too many."`
}

type scopeCount struct {
	Scope  string `json:"scope"  doc:"The name of the feature."`
	Tokens int    `json:"tokens" doc:"How many active tokens of the user were granted it."`
}

type serviceData struct {
	about
	Service     string     `json:"service"            doc:"The name of the service."`
	TokenID     string     `json:"token_id"           doc:"The id of its token."`
	Permissions []string   `json:"permissions"        doc:"Its permissions."`
	Audience    string     `json:"audience,omitempty" doc:"The audience that it is bound to; absent: none."`
	Expire      *time.Time `json:"expire_time"        doc:"When its token expires; null: never, or its record cannot be read."`
}

type serviceExpiringData struct {
	serviceData
	Threshold string `json:"threshold" doc:"How long before its end this is, such as 7d."`
}

type keyData struct {
	about
	Key string `json:"key" doc:"The name of the key that digests are made under from now on."`
}

type audienceData struct {
	about
	Audience string `json:"audience" doc:"The id of the audience."`
	Change   string `json:"change"   doc:"created, replaced or deleted."`
}

type webhookData struct {
	about
	WebhookID string `json:"webhook_id" doc:"The id of the webhook that was disabled."`
	Reason    string `json:"reason"     doc:"GONE: its endpoint answered 410. FAILING: it took no message for 3 days."`
}

type testData struct {
	WebhookID string `json:"webhook_id" doc:"The id of the webhook that is tested."`
}
