package page

import (
	"patd/server/internal/frame"
	"patd/tokens"
)

// Pages are the user's pages.
type Pages struct {
	service  *tokens.Service
	frame    *frame.Frame
	provider *Provider // nil: nobody signs in here
}

// Add adds the user's pages to a frame. provider may be nil.
func Add(f *frame.Frame, service *tokens.Service, provider *Provider) {
	p := &Pages{service: service, frame: f, provider: provider}
	f.Page("GET /{$}", p.list)
	f.Page("GET /new", p.draft)
	f.Page("POST /new", p.mint)
	f.Page("GET /tokens/{id}", p.token)
	f.Page("POST /tokens/{id}", p.change)
	f.Page("GET /activity", p.activity)
	f.Page("POST /activity", p.endSessions)
	f.Open("GET /signin", p.signIn)
	f.Open("GET /signin/callback", p.callback)
	f.Open("POST /signout", p.signOut)
	f.Open("GET /handoff", p.handoff)
}
