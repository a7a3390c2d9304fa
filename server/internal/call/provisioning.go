package call

import (
	"patd/tokens"
)

// Calls of identity providers, which speak protocols of their own: SCIM, and security events.
const (
	SCIMRead       = "scim.read"
	SCIMCreate     = "scim.create"
	SCIMUpdate     = "scim.update"
	SCIMDeactivate = "scim.deactivate" // an update that suspends
	SCIMDelete     = "scim.delete"
	SecurityEvents = "v1.security-events"
)

// providerRights is the table of rights of these calls. That of security events is open to anyone, and checks that its
// message is signed.
func providerRights() map[string]Right {
	const users = tokens.PermUsers
	return map[string]Right{
		SCIMRead:       {any: users, Reads: true},
		SCIMCreate:     {any: users, action: tokens.ActionUserProvision},
		SCIMUpdate:     {any: users, action: tokens.ActionUserProvision},
		SCIMDeactivate: {any: users, action: tokens.ActionUserSuspend, ends: true},
		SCIMDelete:     {any: users, action: tokens.ActionUserDelete, ends: true},
		SecurityEvents: {Anyone: true, action: tokens.ActionUserSecurityEvent},
	}
}

// ProviderMethods returns the methods of these calls, by name. It must be called once, before Serve.
func (c *Chain) ProviderMethods() map[string]*Method {
	found := map[string]*Method{}
	for name, r := range providerRights() {
		found[name] = c.Page(name, r)
	}
	return found
}

// Authorize checks the right of a call whose caller is known, spends from its limits, and records a refusal.
func (c *Chain) Authorize(begun *Call) error { return c.authorizePage(begun, nil) }

// Forbidden returns why a caller that is known may not make a call, and records that; nil: it may. It spends nothing:
// what the call is, and so from which of the caller's limits it spends, may be in a body that is still to be read.
func (c *Chain) Forbidden(begun *Call) error {
	if _, allowed := begun.Method.caller(begun.Actor, nil); allowed {
		return nil
	}
	return c.authorizePage(begun, nil)
}
