package storetest

import (
	"context"
	"time"

	"patd/tokens"
)

// faultyRead passes every method on, unless it is to fail. It embeds nothing, so that a method that the port gains
// is not passed by.
type faultyRead struct {
	ctx      context.Context
	f        *Faulty
	r        tokens.ReadTx
	injected *error
}

// read passes one method on.
func read[T any](t *faultyRead, op Op, next func() (T, error)) (T, error) {
	if err := t.at(op); err != nil {
		var none T
		return none, err
	}
	return next()
}

func (t *faultyRead) at(op Op) error {
	err := t.f.at(t.ctx, op)
	if err != nil {
		*t.injected = err
	}
	return err
}

func (t *faultyRead) Token(id tokens.ID) (tokens.Token, error) {
	return read(t, "Token", func() (tokens.Token, error) { return t.r.Token(id) })
}

func (t *faultyRead) Credential(id tokens.ID) (tokens.Credential, error) {
	return read(t, "Credential", func() (tokens.Credential, error) { return t.r.Credential(id) })
}

func (t *faultyRead) Tokens(q tokens.TokenQuery) ([]tokens.Token, error) {
	return read(t, "Tokens", func() ([]tokens.Token, error) { return t.r.Tokens(q) })
}

func (t *faultyRead) Inventory(q tokens.InventoryQuery) (tokens.InventoryPage, error) {
	return read(t, "Inventory", func() (tokens.InventoryPage, error) { return t.r.Inventory(q) })
}

func (t *faultyRead) SuspendedScopes(userKey int64) (tokens.SuspendedScopes, error) {
	return read(t, "SuspendedScopes", func() (tokens.SuspendedScopes, error) { return t.r.SuspendedScopes(userKey) })
}

func (t *faultyRead) Granted(q tokens.GrantedQuery) ([]tokens.Token, error) {
	return read(t, "Granted", func() ([]tokens.Token, error) { return t.r.Granted(q) })
}

func (t *faultyRead) BulkRevocation(key tokens.PlanKey) (tokens.BulkRevocation, error) {
	return read(t, "BulkRevocation", func() (tokens.BulkRevocation, error) { return t.r.BulkRevocation(key) })
}

func (t *faultyRead) AbandonedBulkRevocation(before time.Time) (tokens.BulkRevocation, error) {
	return read(
		t,
		"AbandonedBulkRevocation",
		func() (tokens.BulkRevocation, error) { return t.r.AbandonedBulkRevocation(before) },
	)
}

func (t *faultyRead) NextBulkPart(key tokens.PlanKey) (tokens.BulkPart, error) {
	return read(t, "NextBulkPart", func() (tokens.BulkPart, error) { return t.r.NextBulkPart(key) })
}

func (t *faultyRead) LiveTokens(userKey int64, now time.Time) ([]tokens.LiveToken, error) {
	return read(t, "LiveTokens", func() ([]tokens.LiveToken, error) { return t.r.LiveTokens(userKey, now) })
}

func (t *faultyRead) Request(key tokens.RequestKey, now time.Time) (tokens.Request, error) {
	return read(t, "Request", func() (tokens.Request, error) { return t.r.Request(key, now) })
}

func (t *faultyRead) User(id string) (tokens.User, error) {
	return read(t, "User", func() (tokens.User, error) { return t.r.User(id) })
}

func (t *faultyRead) Users(q tokens.UserQuery) ([]tokens.User, error) {
	return read(t, "Users", func() ([]tokens.User, error) { return t.r.Users(q) })
}

func (t *faultyRead) Service(name string) (tokens.ServiceAccount, error) {
	return read(t, "Service", func() (tokens.ServiceAccount, error) { return t.r.Service(name) })
}

func (t *faultyRead) Services(before tokens.ID, limit int) ([]tokens.ServiceAccount, error) {
	return read(t, "Services", func() ([]tokens.ServiceAccount, error) { return t.r.Services(before, limit) })
}

func (t *faultyRead) Events(q tokens.EventQuery) ([]tokens.Event, error) {
	return read(t, "Events", func() ([]tokens.Event, error) { return t.r.Events(q) })
}

func (t *faultyRead) OldestEvents(after uint64, limit int) ([]tokens.Event, error) {
	return read(t, "OldestEvents", func() ([]tokens.Event, error) { return t.r.OldestEvents(after, limit) })
}

func (t *faultyRead) Released() (seq uint64, before time.Time, err error) {
	seq, err = read(t, "Released", func() (uint64, error) {
		var err error
		seq, before, err = t.r.Released()
		return seq, err
	})
	return seq, before, err
}

func (t *faultyRead) Keys() ([]tokens.KeyRecord, error) {
	return read(t, "Keys", func() ([]tokens.KeyRecord, error) { return t.r.Keys() })
}

func (t *faultyRead) KeyUse(now time.Time) (map[string]int64, error) {
	return read(t, "KeyUse", func() (map[string]int64, error) { return t.r.KeyUse(now) })
}

func (t *faultyRead) Prefixes() ([]string, error) {
	return read(t, "Prefixes", func() ([]string, error) { return t.r.Prefixes() })
}

func (t *faultyRead) RowsUnder(key string) (int64, error) {
	return read(t, "RowsUnder", func() (int64, error) { return t.r.RowsUnder(key) })
}

func (t *faultyRead) Exceeding(q tokens.ExceedQuery) ([]tokens.Token, error) {
	return read(t, "Exceeding", func() ([]tokens.Token, error) { return t.r.Exceeding(q) })
}

func (t *faultyRead) CountExceeding(q tokens.ExceedQuery) (int64, error) {
	return read(t, "CountExceeding", func() (int64, error) { return t.r.CountExceeding(q) })
}

func (t *faultyRead) Feature(name string) (tokens.FeatureEntry, error) {
	return read(t, "Feature", func() (tokens.FeatureEntry, error) { return t.r.Feature(name) })
}

func (t *faultyRead) Features(q tokens.FeatureQuery) ([]tokens.FeatureEntry, error) {
	return read(t, "Features", func() ([]tokens.FeatureEntry, error) { return t.r.Features(q) })
}

func (t *faultyRead) Audience(id string) (tokens.AudienceEntry, error) {
	return read(t, "Audience", func() (tokens.AudienceEntry, error) { return t.r.Audience(id) })
}

func (t *faultyRead) NamedAudiences() ([]string, error) {
	return read(t, "NamedAudiences", t.r.NamedAudiences)
}

func (t *faultyRead) CountUnnamed(now time.Time) (int64, error) {
	return read(t, "CountUnnamed", func() (int64, error) { return t.r.CountUnnamed(now) })
}

func (t *faultyRead) Audiences(q tokens.AudienceQuery) ([]tokens.AudienceEntry, error) {
	return read(t, "Audiences", func() ([]tokens.AudienceEntry, error) { return t.r.Audiences(q) })
}

func (t *faultyRead) AccessToken(id tokens.ID) (tokens.AccessToken, error) {
	return read(t, "AccessToken", func() (tokens.AccessToken, error) { return t.r.AccessToken(id) })
}

func (t *faultyRead) RefreshToken(id tokens.ID) (tokens.RefreshToken, error) {
	return read(t, "RefreshToken", func() (tokens.RefreshToken, error) { return t.r.RefreshToken(id) })
}

func (t *faultyRead) CountGrants(token tokens.ID, serial int64, now time.Time) (tokens.GrantCount, error) {
	return read(t, "CountGrants", func() (tokens.GrantCount, error) { return t.r.CountGrants(token, serial, now) })
}

// faultyTx is faultyRead with the methods that write.
type faultyTx struct {
	faultyRead
	w tokens.Tx
}

func (t *faultyTx) write(op Op, next func() error) error {
	if err := t.at(op); err != nil {
		return err
	}
	return next()
}

func (t *faultyTx) InsertBulkRevocation(b tokens.BulkRevocation, parts []tokens.BulkPart) error {
	return t.write("InsertBulkRevocation", func() error { return t.w.InsertBulkRevocation(b, parts) })
}

func (t *faultyTx) UpdateBulkRevocation(b tokens.BulkRevocation, part int) error {
	return t.write("UpdateBulkRevocation", func() error { return t.w.UpdateBulkRevocation(b, part) })
}

func (t *faultyTx) RevokeTokens(userKey int64, r tokens.Revocation) ([]tokens.ID, error) {
	return read(&t.faultyRead, "RevokeTokens", func() ([]tokens.ID, error) { return t.w.RevokeTokens(userKey, r) })
}

func (t *faultyTx) PutSuspendedScopes(userKey int64, of tokens.SuspendedScopes) error {
	return t.write("PutSuspendedScopes", func() error { return t.w.PutSuspendedScopes(userKey, of) })
}

func (t *faultyTx) InsertUser(u tokens.User) (int64, error) {
	return read(&t.faultyRead, "InsertUser", func() (int64, error) { return t.w.InsertUser(u) })
}

func (t *faultyTx) InsertToken(tok tokens.Token, h tokens.Hash) error {
	return t.write("InsertToken", func() error { return t.w.InsertToken(tok, h) })
}

func (t *faultyTx) UpdateToken(tok tokens.Token) error {
	return t.write("UpdateToken", func() error { return t.w.UpdateToken(tok) })
}

func (t *faultyTx) ReplaceSecret(id tokens.ID, h tokens.Hash, r tokens.Rotation) error {
	return t.write("ReplaceSecret", func() error { return t.w.ReplaceSecret(id, h, r) })
}

func (t *faultyTx) RestoreSecret(id tokens.ID, at time.Time) error {
	return t.write("RestoreSecret", func() error { return t.w.RestoreSecret(id, at) })
}

func (t *faultyTx) PresentSuperseded(
	id tokens.ID,
	serial int64,
	at time.Time,
	every time.Duration,
) (first bool, err error) {
	err = t.write(
		"PresentSuperseded",
		func() error { first, err = t.w.PresentSuperseded(id, serial, at, every); return err },
	)
	return first, err
}

func (t *faultyTx) UseSecret(id tokens.ID, serial int64, at time.Time) (done bool, err error) {
	err = t.write("UseSecret", func() error { done, err = t.w.UseSecret(id, serial, at); return err })
	return done, err
}

func (t *faultyTx) PutRequest(r tokens.Request, now time.Time) error {
	return t.write("PutRequest", func() error { return t.w.PutRequest(r, now) })
}

func (t *faultyTx) ForgetSealed(id tokens.ID) error {
	return t.write("ForgetSealed", func() error { return t.w.ForgetSealed(id) })
}

func (t *faultyTx) ForgetSealedOf(userKey int64) error {
	return t.write("ForgetSealedOf", func() error { return t.w.ForgetSealedOf(userKey) })
}

func (t *faultyTx) UpdateUser(u tokens.User) error {
	return t.write("UpdateUser", func() error { return t.w.UpdateUser(u) })
}

func (t *faultyTx) InsertService(s tokens.ServiceAccount, h tokens.Hash) error {
	return t.write("InsertService", func() error { return t.w.InsertService(s, h) })
}

func (t *faultyTx) ReplaceServiceSecret(s tokens.ServiceAccount, h tokens.Hash) error {
	return t.write("ReplaceServiceSecret", func() error { return t.w.ReplaceServiceSecret(s, h) })
}

func (t *faultyTx) RevokeService(id tokens.ID, r tokens.Revocation) error {
	return t.write("RevokeService", func() error { return t.w.RevokeService(id, r) })
}

func (t *faultyTx) PutKey(k tokens.KeyRecord) error {
	return t.write("PutKey", func() error { return t.w.PutKey(k) })
}

func (t *faultyTx) PutPrefix(prefix string) error {
	return t.write("PutPrefix", func() error { return t.w.PutPrefix(prefix) })
}

func (t *faultyTx) SealRows(now time.Time) error {
	return t.write("SealRows", func() error { return t.w.SealRows(now) })
}

func (t *faultyTx) SetBlocked(id tokens.ID, by string) error {
	return t.write("SetBlocked", func() error { return t.w.SetBlocked(id, by) })
}

func (t *faultyTx) InsertFeature(e tokens.FeatureEntry) error {
	return t.write("InsertFeature", func() error { return t.w.InsertFeature(e) })
}

func (t *faultyTx) UpdateFeature(e tokens.FeatureEntry) error {
	return t.write("UpdateFeature", func() error { return t.w.UpdateFeature(e) })
}

func (t *faultyTx) DeleteFeature(name string) error {
	return t.write("DeleteFeature", func() error { return t.w.DeleteFeature(name) })
}

func (t *faultyTx) InsertAudience(e tokens.AudienceEntry) error {
	return t.write("InsertAudience", func() error { return t.w.InsertAudience(e) })
}

func (t *faultyTx) UpdateAudience(e tokens.AudienceEntry) error {
	return t.write("UpdateAudience", func() error { return t.w.UpdateAudience(e) })
}

func (t *faultyTx) DeleteAudience(id string) error {
	return t.write("DeleteAudience", func() error { return t.w.DeleteAudience(id) })
}

func (t *faultyTx) InsertAccess(a tokens.AccessToken, h tokens.Hash) error {
	return t.write("InsertAccess", func() error { return t.w.InsertAccess(a, h) })
}

func (t *faultyTx) RevokeAccess(id tokens.ID, r tokens.Revocation) (bool, error) {
	return read(&t.faultyRead, "RevokeAccess", func() (bool, error) { return t.w.RevokeAccess(id, r) })
}

func (t *faultyTx) InsertFamily(f tokens.Family) error {
	return t.write("InsertFamily", func() error { return t.w.InsertFamily(f) })
}

func (t *faultyTx) InsertRefresh(r tokens.RefreshToken, h tokens.Hash) error {
	return t.write("InsertRefresh", func() error { return t.w.InsertRefresh(r, h) })
}

func (t *faultyTx) UseRefresh(id tokens.ID, at time.Time) error {
	return t.write("UseRefresh", func() error { return t.w.UseRefresh(id, at) })
}

func (t *faultyTx) RevokeFamily(id tokens.ID, r tokens.Revocation) (bool, error) {
	return read(&t.faultyRead, "RevokeFamily", func() (bool, error) { return t.w.RevokeFamily(id, r) })
}

func (t *faultyRead) PageSession(key tokens.SessionKey) (tokens.PageSession, error) {
	return read(t, "PageSession", func() (tokens.PageSession, error) { return t.r.PageSession(key) })
}

func (t *faultyRead) PageSessions(user string, now time.Time, limit int) ([]tokens.PageSession, error) {
	return read(t, "PageSessions", func() ([]tokens.PageSession, error) { return t.r.PageSessions(user, now, limit) })
}

func (t *faultyRead) AllPageSessions(after tokens.ID, now time.Time, limit int) ([]tokens.PageSession, error) {
	return read(
		t,
		"AllPageSessions",
		func() ([]tokens.PageSession, error) { return t.r.AllPageSessions(after, now, limit) },
	)
}

func (t *faultyRead) Handoff(key tokens.SessionKey, now time.Time) (tokens.Handoff, error) {
	return read(t, "Handoff", func() (tokens.Handoff, error) { return t.r.Handoff(key, now) })
}

func (t *faultyTx) InsertPageSession(key tokens.SessionKey, v tokens.PageSession) error {
	return t.write("InsertPageSession", func() error { return t.w.InsertPageSession(key, v) })
}

func (t *faultyTx) EndPageSessions(user string, id, except tokens.ID, at time.Time) (int, error) {
	return read(
		&t.faultyRead,
		"EndPageSessions",
		func() (int, error) { return t.w.EndPageSessions(user, id, except, at) },
	)
}

func (t *faultyTx) InsertHandoff(key tokens.SessionKey, h tokens.Handoff) error {
	return t.write("InsertHandoff", func() error { return t.w.InsertHandoff(key, h) })
}

func (t *faultyTx) UseHandoff(key tokens.SessionKey, at time.Time) error {
	return t.write("UseHandoff", func() error { return t.w.UseHandoff(key, at) })
}

func (t *faultyTx) ReleaseEvents(after, upTo uint64, before time.Time) error {
	return t.write("ReleaseEvents", func() error { return t.w.ReleaseEvents(after, upTo, before) })
}

func (t *faultyRead) Webhook(id string) (tokens.Webhook, error) {
	return read(t, "Webhook", func() (tokens.Webhook, error) { return t.r.Webhook(id) })
}

func (t *faultyRead) WebhookByNum(num tokens.ID) (tokens.Webhook, error) {
	return read(t, "WebhookByNum", func() (tokens.Webhook, error) { return t.r.WebhookByNum(num) })
}

func (t *faultyRead) Webhooks(after string, limit int) ([]tokens.Webhook, error) {
	return read(t, "Webhooks", func() ([]tokens.Webhook, error) { return t.r.Webhooks(after, limit) })
}

func (t *faultyRead) WebhookDelivery(webhook tokens.ID, id tokens.DeliveryID) (tokens.WebhookDelivery, error) {
	return read(
		t,
		"WebhookDelivery",
		func() (tokens.WebhookDelivery, error) { return t.r.WebhookDelivery(webhook, id) },
	)
}

func (t *faultyRead) WebhookDeliveries(q tokens.WebhookDeliveryQuery) ([]tokens.WebhookDelivery, error) {
	return read(t, "WebhookDeliveries", func() ([]tokens.WebhookDelivery, error) { return t.r.WebhookDeliveries(q) })
}

func (t *faultyRead) FailingDelivery(webhook tokens.ID) (tokens.WebhookDelivery, error) {
	return read(t, "FailingDelivery", func() (tokens.WebhookDelivery, error) { return t.r.FailingDelivery(webhook) })
}

func (t *faultyTx) InsertWebhook(w tokens.Webhook) error {
	return t.write("InsertWebhook", func() error { return t.w.InsertWebhook(w) })
}

func (t *faultyTx) UpdateWebhook(w tokens.Webhook) error {
	return t.write("UpdateWebhook", func() error { return t.w.UpdateWebhook(w) })
}

func (t *faultyTx) DeleteWebhook(num tokens.ID) error {
	return t.write("DeleteWebhook", func() error { return t.w.DeleteWebhook(num) })
}

func (t *faultyTx) InsertDelivery(d tokens.WebhookDelivery) error {
	return t.write("InsertDelivery", func() error { return t.w.InsertDelivery(d) })
}

func (t *faultyTx) RequeueDelivery(webhook tokens.ID, id tokens.DeliveryID, at time.Time) error {
	return t.write("RequeueDelivery", func() error { return t.w.RequeueDelivery(webhook, id, at) })
}

func (t *faultyTx) RequeuePending(webhook tokens.ID, at time.Time) error {
	return t.write("RequeuePending", func() error { return t.w.RequeuePending(webhook, at) })
}

func (t *faultyRead) HoldsWebhook(l tokens.WebhookLease) (bool, error) {
	return read(t, "HoldsWebhook", func() (bool, error) { return t.r.HoldsWebhook(l) })
}

func (t *faultyRead) Provisioned(id string) (tokens.Provisioned, error) {
	return read(t, "Provisioned", func() (tokens.Provisioned, error) { return t.r.Provisioned(id) })
}

func (t *faultyRead) ProvisionedUsers(q tokens.ProvisionedQuery) ([]tokens.Provisioned, error) {
	return read(t, "ProvisionedUsers", func() ([]tokens.Provisioned, error) { return t.r.ProvisionedUsers(q) })
}

func (t *faultyRead) CountProvisioned(q tokens.ProvisionedQuery) (int64, error) {
	return read(t, "CountProvisioned", func() (int64, error) { return t.r.CountProvisioned(q) })
}

func (t *faultyTx) InsertProvisioned(p tokens.Provisioned) error {
	return t.write("InsertProvisioned", func() error { return t.w.InsertProvisioned(p) })
}

func (t *faultyTx) UpdateProvisioned(p tokens.Provisioned) error {
	return t.write("UpdateProvisioned", func() error { return t.w.UpdateProvisioned(p) })
}

func (t *faultyTx) DeleteProvisioned(userKey int64) error {
	return t.write("DeleteProvisioned", func() error { return t.w.DeleteProvisioned(userKey) })
}

func (t *faultyTx) RememberSecurityEvent(digest [32]byte, until time.Time) error {
	return t.write("RememberSecurityEvent", func() error { return t.w.RememberSecurityEvent(digest, until) })
}
