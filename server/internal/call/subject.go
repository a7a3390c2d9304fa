package call

import (
	"log/slog"
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/fault"
	"patd/tokens"
	"patd/tokens/secret"
)

// Explain returns the public error for err, and keeps for the log its reason, its private cause, and which credential
// was refused if its secret matched.
func (c *Call) Explain(err error) *tokens.Error {
	public, cause := fault.Explain(err)
	c.Reason, c.Cause = public.Reason, cause
	if id := EndedToken(err); id != 0 {
		c.Subject = id
	}
	return public
}

// about sets the token that a call acts on, from its request or its response.
func (c *Call) about(message any) {
	if named, ok := message.(interface{ GetUser() string }); ok && c.span != nil && named.GetUser() != "me" {
		c.TraceUser(named.GetUser())
	}
	if c.Subject == 0 {
		c.Subject = subjectOf(message)
	}
}

// subjectOf returns the token that a message names, or the one that it describes; 0: none.
func subjectOf(message any) tokens.ID {
	text := ""
	switch m := message.(type) {
	case interface{ GetTokenId() string }:
		text = m.GetTokenId()
	case interface{ GetToken() *patdv1.Token }:
		text = m.GetToken().GetTokenId()
	case interface{ GetService() *patdv1.Service }:
		text = m.GetService().GetTokenId()
	}
	id, err := secret.ParseID(text)
	if err != nil {
		return 0 // a caller may send any text as an id, and it is not logged then
	}
	return id
}

// many is what a call that has acted on many tokens names in its log line, where other calls name one.
type many struct {
	by    slog.Attr // what selected them
	count int64
}

// aboutMany notes what a call has acted on if that is not one token.
func (c *Call) aboutMany(req, resp any) {
	named := func(key, name string, count int64) { c.many = &many{slog.String(key, LogText(name)), count} }
	switch m := resp.(type) {
	case *patdv1.BulkRevokeTokensResponse:
		named("plan", m.GetPlan(), m.GetCount())
	case *patdv1.BlockTokensResponse:
		named("audience", idOf(req), int64(m.GetBlockedCount()))
	case *patdv1.UnblockTokensResponse:
		named("audience", idOf(req), int64(m.GetUnblockedCount()))
	case interface{ GetRevokedCount() int32 }:
		if r, ok := req.(interface{ GetUser() string }); ok {
			named("user", r.GetUser(), int64(m.GetRevokedCount()))
		}
	}
}

func idOf(req any) string {
	if r, ok := req.(interface{ GetId() string }); ok {
		return r.GetId()
	}
	return ""
}

// route returns the HTTP method and the pattern of the path, joined by a space; empty: the call came over gRPC.
func (c *Call) route() string {
	if c.Route == "" && c.BehindGateway {
		c.Route = c.Header(KeyRoute)
	}
	return c.Route
}

// HTTPStatus returns the HTTP status of a call's response over REST.
func HTTPStatus(fullMethod string, st *status.Status) int {
	if st.Code() == codes.OK {
		return successStatus(fullMethod)
	}
	switch reason, _ := fault.Reason(st); reason {
	case fault.ReasonTooLarge:
		return http.StatusRequestEntityTooLarge
	case tokens.ReasonPrecondition:
		return http.StatusPreconditionFailed
	case ReasonNotModified:
		return http.StatusNotModified
	}
	return fault.ClassOfGRPC(st.Code()).HTTP
}

// successStatus returns the HTTP status of a successful call: the catalogue and webhooks have codes of their own for
// create and delete.
func successStatus(fullMethod string) int {
	switch fullMethod {
	case patdv1.CatalogService_CreateFeature_FullMethodName, patdv1.CatalogService_CreateAudience_FullMethodName,
		patdv1.WebhookService_CreateWebhook_FullMethodName:
		return http.StatusCreated
	case patdv1.CatalogService_DeleteFeature_FullMethodName, patdv1.CatalogService_DeleteAudience_FullMethodName,
		patdv1.WebhookService_DeleteWebhook_FullMethodName:
		return http.StatusNoContent
	}
	return http.StatusOK
}
