package tokens

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"patd/tokens/secret"
)

// The words by which an update's event says what it changed.
const (
	changedScopes = "scopes -"
	changedExpiry = "expire_time "
	changedCIDRs  = "allowed_cidrs "
	anyNetwork    = "any"
)

// networks writes networks as an event of an update names them.
func networks(list []netip.Prefix) string {
	if len(list) == 0 {
		return anyNetwork
	}
	text := make([]string, len(list))
	for i, p := range list {
		text[i] = p.String()
	}
	return strings.Join(text, " ")
}

// Replay gathers what events took away and no later one gave back, so that Apply can take it away again from a store
// that was restored from before them. The zero value has gathered nothing. Where an event does not say all of what it
// took, more is taken.
type Replay struct {
	users     map[string]*takenUser
	tokens    map[ID]*takenToken
	services  map[ID]*takenService
	access    map[ID]*Event
	families  map[ID]*Event
	webhooks  map[string]*takenWebhook
	features  map[string]*Event // deleted entries of the catalogue
	audiences map[string]*Event
	underway  map[Action]*Event // revocations and narrowings of many tokens that had not ended

	review  []string
	events  int
	from    uint64
	last    uint64
	created map[ID]bool // tokens and services that are not in the backup
}

// takenUser is what was taken from a user. A user that was deleted and is there again is another one: of that one only
// the suspension counts, for its tokens are not in the backup.
type takenUser struct {
	deleted, revoked, suspended, sessions *Event

	lost map[string]*Event // features of patd's own table
	all  *Event            // the event did not name all of them
}

// takenToken is what was taken from a token.
type takenToken struct {
	revoked, ended, canceled, firstUse, idle *Event

	scopes  map[string]*Event // gone for good
	paused  map[string]*Event
	blocked map[string]*Event // by audience

	expire    time.Time // zero: not made earlier
	cidrs     []netip.Prefix
	networks  *Event // that set cidrs
	selfOff   *Event
	renewLess *Event
	rotations []replacedSecret
	idleTime  time.Time
}

type takenService struct {
	revoked   *Event
	rotations []replacedSecret
}

// replacedSecret is a rotation: the secret that the backup has as the current one ends at a time.
type replacedSecret struct {
	event *Event
	until time.Time
	gone  []string // scopes that it took away
}

type takenWebhook struct{ deleted, disabled, changed *Event }

func at[K comparable, V any](m *map[K]*V, key K) *V {
	if *m == nil {
		*m = map[K]*V{}
	}
	v := (*m)[key]
	if v == nil {
		v = new(V)
		(*m)[key] = v
	}
	return v
}

func put[K comparable, V any](m *map[K]V, key K, v V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[key] = v
}

// Add takes an event in. Events come in the order of their positions.
func (r *Replay) Add(e Event) {
	if r.events++; r.from == 0 {
		r.from = e.Seq
	}
	r.last = e.Seq
	if e.Outcome != OutcomeSuccess {
		return
	}
	switch kind, _, _ := strings.Cut(string(e.Action), "."); kind {
	case "user", "session":
		r.addUser(e)
	case "service":
		r.addService(e)
	case "webhook":
		r.addWebhook(e)
	case "feature", "audience", "key":
		r.addCatalog(e)
	case "access", "family":
		r.addGrant(e)
	case "token":
		r.addToken(e)
	}
}

func (r *Replay) addUser(e Event) {
	u := at(&r.users, e.User)
	switch e.Action {
	case ActionUserDelete:
		*u = takenUser{deleted: &e, sessions: &e}
	case ActionUserSuspend:
		u.suspended, u.sessions = &e, &e
	case ActionUserResume:
		u.suspended = nil
	case ActionUserSecurityEvent, ActionSessionEnd:
		u.sessions = &e
	case ActionUserFeatures:
		if e.Actor == actorSource {
			return // the features are not patd's, and asked for afresh
		}
		text, _, cut := strings.Cut(e.Detail, " and ")
		if cut {
			u.all = &e
		}
		for part := range strings.FieldsSeq(text) {
			if name := part[1:]; part[0] == '-' {
				put(&u.lost, name, &e)
			} else {
				delete(u.lost, name)
			}
		}
	}
}

func (r *Replay) addService(e Event) {
	v := at(&r.services, e.TokenID)
	switch e.Action {
	case ActionServiceCreate:
		put(&r.created, e.TokenID, true)
	case ActionServiceRevoke:
		v.revoked = &e
	case ActionServiceRotate:
		v.rotations = append(v.rotations, replaced(e))
	}
}

// replaced reads the event of a rotation. One that does not say until when the secret before was accepted ended it.
func replaced(e Event) replacedSecret {
	r := replacedSecret{event: &e, until: e.Time}
	text, ok := strings.CutPrefix(e.Detail, "previous secret until ")
	if text, _, _ = strings.Cut(text, ","); ok {
		text, _, _ = strings.Cut(text, " ")
		if until, err := time.Parse(time.RFC3339, text); err == nil {
			r.until = until
		}
	}
	if _, scopes, ok := strings.Cut(e.Detail, ", "+changedScopes); ok {
		r.gone = strings.Split(scopes, " -")
	}
	return r
}

// endOf returns until when the secret of the backup is accepted: the one before the first rotation, which the second
// ends.
func endOf(list []replacedSecret) time.Time {
	until := list[0].until
	if len(list) > 1 {
		until = earliest(until, list[1].event.Time)
	}
	return until
}

func (r *Replay) addWebhook(e Event) {
	id, _, _ := strings.Cut(e.Detail, " ")
	w := at(&r.webhooks, id)
	switch e.Action {
	case ActionWebhookDelete:
		*w = takenWebhook{deleted: &e}
	case ActionWebhookDisable:
		w.disabled = &e
	case ActionWebhookUpdate, ActionWebhookRotate:
		w.changed = &e
	}
}

func (r *Replay) addCatalog(e Event) {
	switch e.Action {
	case ActionFeatureCreate:
		delete(r.features, e.Detail)
	case ActionFeatureDelete:
		put(&r.features, e.Detail, &e)
	case ActionAudienceCreate:
		delete(r.audiences, e.Detail)
	case ActionAudienceDelete:
		put(&r.audiences, e.Detail, &e)
	case ActionFeatureReplace:
		r.look("the catalogue's entry of feature %s was replaced: it is again as it was", e.Detail)
	case ActionAudienceReplace:
		r.look(
			"audience %s was replaced: its policy is again what it was; set it anew, and block what exceeds it",
			e.Detail,
		)
	case ActionKeyRetire:
		r.look("key %s was retired: retire it again when no digest is left under it", e.Detail)
	}
}

// look keeps what an operator must look at, each once.
func (r *Replay) look(format string, of ...any) {
	if text := fmt.Sprintf(format, of...); !slices.Contains(r.review, text) {
		r.review = append(r.review, text)
	}
}

// addGrant reads "access ID: reason" and "family ID: reason".
func (r *Replay) addGrant(e Event) {
	what, _, _ := strings.Cut(e.Detail, ":")
	kind, text, _ := strings.Cut(what, " ")
	id, err := secret.ParseID(text)
	switch {
	case err != nil:
		r.end(e) // what it named is not known: its token ends
	case kind == "access":
		put(&r.access, id, &e)
	default:
		put(&r.families, id, &e)
	}
}

// end ends a token of which it is not known what was taken from it.
func (r *Replay) end(e Event) { at(&r.tokens, e.TokenID).ended = &e }

func (r *Replay) addToken(e Event) {
	switch e.Action {
	case ActionTokenCreate:
		put(&r.created, e.TokenID, true)
		return
	case ActionTokenRevokeAll:
		at(&r.users, e.User).revoked = &e
		return
	case ActionTokenRevokeMatching, ActionTokenNarrowMatching:
		put(&r.underway, e.Action, &e)
		return
	case ActionTokenRevokeEnd:
		delete(r.underway, ActionTokenRevokeMatching)
		return
	case ActionTokenNarrowEnd:
		delete(r.underway, ActionTokenNarrowMatching)
		return
	case ActionTokenRefresh:
		r.addRefresh(e)
		return
	}
	if e.TokenID == 0 || r.created[e.TokenID] {
		return
	}
	at(&r.tokens, e.TokenID).add(e)
}

// addRefresh ends the family of a refresh token that was used: the one that came for it is lost.
func (r *Replay) addRefresh(e Event) {
	for i, part := range strings.SplitN(e.Detail, ", ", 3) { // what a client may write comes after
		if text, ok := strings.CutPrefix(part, "family "); ok && i == 1 {
			if id, err := secret.ParseID(text); err == nil {
				put(&r.families, id, &e)
				return
			}
		}
	}
	r.end(e)
}

func (t *takenToken) add(e Event) {
	switch e.Action {
	case ActionTokenRevoke:
		t.revoked = &e
	case ActionTokenUpdate:
		t.update(e)
	case ActionTokenRotate:
		t.rotations = append(t.rotations, replaced(e))
	case ActionTokenFirstUse:
		switch n := len(t.rotations); {
		case !strings.HasSuffix(e.Detail, "ended"): // it did not end the secret before
		case n == 0:
			t.firstUse = &e
		default:
			t.rotations[n-1].until = earliest(t.rotations[n-1].until, e.Time)
		}
	case ActionTokenCancel:
		t.cancel(e)
	case ActionTokenBlock:
		put(&t.blocked, audienceOf(e), &e)
	case ActionTokenUnblock:
		delete(t.blocked, audienceOf(e))
	case ActionTokenPause:
		n, _ := NoticeOf(e)
		if t.idle, t.idleTime = &e, n.PauseTime; t.idleTime.IsZero() {
			t.idleTime = e.Time
		}
	case ActionTokenIdleEnd:
		t.idle = nil
	case ActionTokenNarrow:
		for _, s := range after(e.Detail, "scopes paused: ") {
			put(&t.paused, s, &e)
		}
	case ActionTokenResume:
		for _, s := range after(e.Detail, "scopes resumed: ") {
			delete(t.paused, s)
		}
	case ActionTokenScopesRemoved:
		t.gone(e, e.Detail)
	}
}

// cancel undoes the last rotation. One before it has ended the secret of the backup.
func (t *takenToken) cancel(e Event) {
	n := len(t.rotations)
	switch n {
	case 0:
		t.canceled = &e
		return
	case 1:
	default:
		one := &t.rotations[n-2]
		one.until = earliest(one.until, t.rotations[n-1].event.Time)
	}
	t.rotations = t.rotations[:n-1]
}

// audienceOf reads "audience ID" or "audience ID: reason"; there is no space in an id.
func audienceOf(e Event) string {
	id := strings.TrimPrefix(e.Detail, "audience ")
	id, _, _ = strings.Cut(id, " ")
	if len(id) < len(e.Detail)-len("audience ") {
		id = strings.TrimSuffix(id, ":")
	}
	return id
}

// after returns the words that follow a text.
func after(detail, text string) []string {
	rest, ok := strings.CutPrefix(detail, text)
	if !ok {
		return nil
	}
	return strings.Fields(rest)
}

// gone reads "scopes -A -B".
func (t *takenToken) gone(e Event, text string) {
	for _, s := range after(text, "scopes ") {
		put(&t.scopes, strings.TrimPrefix(s, "-"), &e)
	}
}

// update reads the parts of an update's event.
func (t *takenToken) update(e Event) {
	for part := range strings.SplitSeq(e.Detail, ", ") {
		word, value, _ := strings.Cut(part, " ")
		switch word {
		case "scopes":
			t.gone(e, part)
		case "expire_time":
			until, err := time.Parse(time.RFC3339Nano, value)
			if err != nil { // an earlier version did not say to when
				t.ended = &e
				continue
			}
			t.expire = earliest(t.expire, until)
		case "allowed_cidrs":
			list, ok := parseNetworks(value)
			if !ok {
				t.ended = &e
				continue
			}
			t.cidrs, t.networks = list, &e
		case "self_rotate":
			if t.selfOff = nil; part == changedSelfOff {
				t.selfOff = &e
			}
		case "renewable_until":
			t.renewLess = nil
			if part == changedRenewalLess {
				t.renewLess = &e
			}
		}
	}
}

// parseNetworks reads what networks wrote.
func parseNetworks(text string) (list []netip.Prefix, ok bool) {
	if text == anyNetwork {
		return nil, true
	}
	for one := range strings.FieldsSeq(text) {
		p, err := netip.ParsePrefix(one)
		if err != nil {
			return nil, false
		}
		list = append(list, p)
	}
	return list, len(list) > 0
}

// within returns the networks that are in both lists; a list without any stands for all. If none are, it returns b,
// which is the newer list.
func within(a, b []netip.Prefix) []netip.Prefix {
	if len(a) == 0 || len(b) == 0 {
		return slices.Concat(a, b)
	}
	var both []netip.Prefix
	for _, p := range a {
		for _, q := range b {
			switch {
			case !p.Overlaps(q):
			case p.Bits() > q.Bits():
				both = append(both, p)
			default:
				both = append(both, q)
			}
		}
	}
	if len(both) == 0 {
		return b
	}
	slices.SortFunc(both, func(a, b netip.Prefix) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(both)
}
