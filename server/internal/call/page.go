package call

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"

	"patd/server/internal/fault"
	"patd/tokens"
)

// The page, which people use with a browser, authenticates its callers by a session and not by a header. What it then
// does for them passes the same steps as a call over gRPC: the table of rights, limits, recorded refusals, metrics and
// the log line.

// Calls of the page that no gRPC method makes.
const (
	PageActivity    = "page.activity"
	PageSessions    = "page.sessions"
	PageEndSessions = "page.sessions.end"
	PageSignIn      = "page.signin"
	PageSignOut     = "page.signout"
	PageHandoff     = "page.handoff"
)

// Calls of operators on the page that no gRPC method makes.
const (
	AdminHealth = "page.admin.health"
	AdminStake  = "page.admin.users.stake"
	AdminTokens = "page.admin.users.tokens"
	AdminExport = "page.admin.events.export"
	AdminKeys   = "page.admin.keys"
	AdminBlocks = "page.admin.audiences.stake"
)

// pageRights is the table of rights of these calls.
func pageRights() map[string]Right {
	return map[string]Right{
		PageActivity:    {user: true, Reads: true},
		PageSessions:    {user: true, Reads: true},
		PageEndSessions: {user: true, action: tokens.ActionSessionEnd, ends: true},
		PageSignIn:      {Anyone: true},
		PageSignOut:     {user: true, action: tokens.ActionSessionEnd, ends: true},
		PageHandoff:     {Anyone: true},

		AdminHealth: {any: tokens.PermTokens | tokens.PermUsers | tokens.PermCatalog | tokens.PermAudit, Reads: true},
		AdminStake:  {any: tokens.PermUsers, Reads: true},
		AdminTokens: {any: tokens.PermUsers | tokens.PermTokens, Reads: true},
		AdminExport: {any: tokens.PermAudit, Reads: true},
		AdminKeys:   {any: tokens.PermAdmin, Reads: true},
		AdminBlocks: {any: tokens.PermCatalog, Reads: true},
	}
}

// PageMethods returns the methods of the calls that no gRPC method makes, by name. It must be called once, before
// Serve.
func (c *Chain) PageMethods() map[string]*Method {
	found := map[string]*Method{}
	for name, r := range pageRights() {
		found[name] = c.Page(name, r)
	}
	return found
}

// Identify runs look, which authenticates the caller of a request by a secret of the page. A bad one is counted, and is
// RATE_LIMITED past the limit of its address.
func (c *Chain) Identify(ctx context.Context, peer tokens.Peer, look func(context.Context) error) error {
	if c.Trusted.Has(peer.IP) {
		return look(ctx)
	}
	remembered := c.Limits.FromMemory(ctx, peer.IP)
	if remembered != nil {
		ctx = remembered
	}
	if err := look(ctx); err != nil {
		return c.Limits.Failed(peer.IP, remembered, err)
	}
	return nil
}

// Perform makes a call for a caller whom a session has identified. req has the subject of the call, as its message
// over gRPC has. The error is the domain's, or a limit's.
func (c *Chain) Perform(begun *Call, req any, do func(context.Context) error) (err error) {
	start := time.Now()
	begun.identified = true
	begun.about(req)
	defer func() {
		code := codes.OK
		if v := recover(); v != nil {
			c.LogPanic(begun, v)
			err = fault.ErrPanic
		}
		if err != nil {
			code = fault.ClassOfDomain(begun.Explain(err).Code).GRPC
		}
		took := time.Since(start)
		begun.Method.Metrics.Observe(code, took)
		c.Log(begun, code, took)
	}()
	if !begun.Method.Anyone {
		if err := c.authorizePage(begun, req); err != nil {
			return err
		}
	}
	return do(begun)
}

// authorizePage is authorize for a caller who is identified, and whose headers mean nothing.
func (c *Chain) authorizePage(begun *Call, req any) error {
	r := begun.Method.Right
	actor, allowed := r.caller(begun.Actor, req)
	if allowed {
		begun.Actor = actor
		return c.Limits.spend(begun.Context, r, actor)
	}
	refused := Denied(r, actor)
	if r.action != "" {
		if err := c.Service.RecordRefusal(begun.Context, actor, refusalOf(r.action, refused.Reason, req)); err != nil {
			c.logger.LogAttrs(begun.Context, slog.LevelWarn, "a refused attempt could not be recorded",
				slog.String("request_id", begun.RequestID()), slog.String("cause", LogText(err.Error())))
		}
	}
	return refused
}
