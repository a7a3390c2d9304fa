package tokens

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"patd/tokens/secret"
)

// Limits of what an identity provider says about a user, in bytes.
const (
	maxUserName    = 255
	maxExternalID  = 255
	maxDisplayName = 512
)

// MaxProvisioned is how many users a page of ProvisionedUsers has at most.
const MaxProvisioned = 200

// Provisioned is a user as its identity provider knows it, by SCIM (RFC 7643): the names that the provider gives it.
// No more of a profile is kept.
type Provisioned struct {
	// ID is that of the record, which patd gives and never gives again; or, if the provider says it, the user's own.
	ID      string
	UserKey int64
	User    string
	State   UserState // of the user, whoever changed it
	// UserName is unique among all, without regard to case.
	UserName, ExternalID, DisplayName string
	// Inactive says that the provider's last word was that the user is not active.
	Inactive               bool
	CreateTime, UpdateTime time.Time
}

// Provision is what a provider says about a user that it does not know here yet.
type Provision struct {
	ID                                string // empty: patd makes one
	User                              string
	UserName, ExternalID, DisplayName string
	Active                            *bool // nil: true
}

// ProvisionUpdate is what a provider says about a user that it knows. A nil field stays as it is.
type ProvisionUpdate struct {
	User                              *string // never changes: another one is an error
	UserName, ExternalID, DisplayName *string
	Active                            *bool
	// Whole says that the provider sent all that it knows, and Active with the rest. Active then counts only if it is
	// not the provider's last word: what an operator suspended stays so when a provider sends a name that changed.
	Whole bool
}

// ProvisionedFilter selects users; empty fields match all.
type ProvisionedFilter struct{ ID, UserName, ExternalID string }

// ProvisionedQuery is ProvisionedFilter as a store takes it.
type ProvisionedQuery struct {
	ID, UserNameKey, ExternalID string // empty: all
	Offset, Limit               int
}

// UserNameKey folds a user name for comparing without regard to case (RFC 7643 section 4.1.1).
func UserNameKey(name string) string {
	return norm.NFC.String(cases.Fold().String(norm.NFC.String(name)))
}

// ProvisionedUser returns a user by the id of its record. CodeNotFound if there is none, or its user was deleted.
func (s *Service) ProvisionedUser(ctx context.Context, a Actor, id string) (p Provisioned, err error) {
	if err := s.manager(a); err != nil {
		return Provisioned{}, err
	}
	err = s.store.View(ctx, func(tx ReadTx) error {
		p, err = provisioned(tx, id)
		return err
	})
	return p, err
}

func provisioned(tx ReadTx, id string) (Provisioned, error) {
	p, err := tx.Provisioned(id)
	if errors.Is(err, ErrNotFound) {
		return Provisioned{}, notFound("user")
	}
	if err != nil {
		return p, fmt.Errorf("read a provisioned user: %w", err)
	}
	return p, nil
}

// ProvisionedUsers lists users in the order in which they became known, from an offset, at most limit (0: none; above
// MaxProvisioned: that), and returns how many there are in all.
func (s *Service) ProvisionedUsers(
	ctx context.Context,
	a Actor,
	f ProvisionedFilter,
	offset, limit int,
) (list []Provisioned, total int64, err error) {
	if err := s.manager(a); err != nil {
		return nil, 0, err
	}
	q := ProvisionedQuery{
		ID: f.ID, ExternalID: f.ExternalID, Offset: max(offset, 0), Limit: min(max(limit, 0), MaxProvisioned),
	}
	if f.UserName != "" {
		q.UserNameKey = UserNameKey(f.UserName)
	}
	err = s.store.View(ctx, func(tx ReadTx) (err error) {
		if total, err = tx.CountProvisioned(q); err != nil || q.Limit == 0 {
			return err
		}
		list, err = tx.ProvisionedUsers(q)
		return err
	})
	return list, total, err
}

// ProvisionUser adds what a provider says about a user. The user may be known already, from its tokens, and stays in
// its state then. CodeExists with the reason USER_EXISTS if a provider knows the user, or another one by that name.
func (s *Service) ProvisionUser(ctx context.Context, a Actor, r Provision) (p Provisioned, err error) {
	id := r.ID
	if id == "" {
		if id, err = s.newProvisionedID(); err != nil {
			return Provisioned{}, err
		}
	}
	var c checker
	c.newUser(r.User)
	c.provider("id", id, maxUserID, true)
	c.userName(&r.UserName)
	c.provider("externalId", r.ExternalID, maxExternalID, false)
	c.provider("displayName", r.DisplayName, maxDisplayName, false)
	refusal := Refusal{Action: ActionUserProvision, User: r.User}
	if err := s.mayProvision(a, c); err != nil {
		return Provisioned{}, s.refused(ctx, a, refusal, err)
	}
	err = s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		u, err := knownOrNew(tx, r.User, now)
		if err != nil {
			return nil, err
		}
		if u.Key == 0 {
			if u.Key, err = tx.InsertUser(u); err != nil {
				return nil, fmt.Errorf("write user: %w", err)
			}
		}
		e := a.event(now, ActionUserProvision)
		e.User, e.Detail = u.ID, "added"
		events := []Event{e}
		p = Provisioned{
			ID:          id,
			UserKey:     u.Key,
			User:        u.ID,
			UserName:    r.UserName,
			ExternalID:  r.ExternalID,
			DisplayName: r.DisplayName,
			Inactive:    r.Active != nil && !*r.Active,
			CreateTime:  now,
			UpdateTime:  now,
		}
		if err := tx.InsertProvisioned(p); err != nil {
			return nil, errOtherUser(err)
		}
		if p.Inactive {
			if events, err = a.suspend(tx, &u, now, provisioningReason, events); err != nil {
				return nil, err
			}
		}
		p.State = u.State
		return events, nil
	})
	if err != nil {
		return Provisioned{}, s.refused(ctx, a, refusal, err)
	}
	return p, nil
}

// provisioningReason stands in the events of suspensions and resumptions by a provider.
const provisioningReason = "by SCIM"

// errOtherUser returns the public error of a write that met another user's record.
func errOtherUser(err error) error {
	if errors.Is(err, ErrTaken) {
		return Fail(
			CodeExists,
			"USER_EXISTS",
			"a provider has provisioned this user already, or another one with the same id or userName",
		)
	}
	return fmt.Errorf("write a provisioned user: %w", err)
}

// UpdateProvisionedUser changes what a provider says about a user, and suspends or resumes the user. USER_IMMUTABLE if
// it names another user. Idempotent.
func (s *Service) UpdateProvisionedUser(
	ctx context.Context,
	a Actor,
	id string,
	r ProvisionUpdate,
) (p Provisioned, err error) {
	var c checker
	c.userName(r.UserName)
	for _, f := range []struct {
		name  string
		value *string
		most  int
	}{{"externalId", r.ExternalID, maxExternalID}, {"displayName", r.DisplayName, maxDisplayName}} {
		if f.value != nil {
			c.provider(f.name, *f.value, f.most, false)
		}
	}
	refusal := Refusal{Action: r.action()}
	if err := s.mayProvision(a, c); err != nil {
		return Provisioned{}, s.refused(ctx, a, refusal, err)
	}
	err = s.ledger.do(ctx, a, func(tx Tx, now time.Time) (events []Event, err error) {
		// One that is not as patd wrote it may be suspended, and nothing else.
		if p, err = provisioned(tx, id); err != nil && (!r.Ends() || toEnd(err) != nil) {
			return nil, err
		}
		refusal.User = p.User
		if r.User != nil && *r.User != p.User {
			return nil, errImmutable
		}
		had := p
		changed := p.rename(r)
		if len(changed) > 0 {
			e := a.event(now, ActionUserProvision)
			e.User, e.Detail = p.User, "changed "+strings.Join(changed, ", ")
			events = append(events, e)
		}
		if r.Active != nil {
			p.Inactive = !*r.Active
			if events, err = a.activate(tx, &p, had, r.Whole, now, events); err != nil {
				return nil, err
			}
		}
		if p == had {
			return nil, nil
		}
		if len(events) == 0 { // only the provider's word is new
			e := a.event(now, ActionUserProvision)
			e.User, e.Detail, e.Narrows = p.User, "changed active", p.Inactive
			events = append(events, e)
		}
		p.UpdateTime = now
		if err := tx.UpdateProvisioned(p); err != nil {
			return nil, errOtherUser(err)
		}
		return events, nil
	})
	if err != nil {
		return Provisioned{}, s.refused(ctx, a, refusal, err)
	}
	return p, nil
}

var errImmutable = Invalid(
	"USER_IMMUTABLE",
	"user",
	"the attribute that is patd's user id never changes; delete this user, and provision the other one",
)

// action returns the action of the audit log that an update is about, for a refusal.
func (r ProvisionUpdate) action() Action {
	switch {
	case r.Active == nil:
		return ActionUserProvision
	case *r.Active:
		return ActionUserResume
	default:
		return ActionUserSuspend
	}
}

// Ends reports whether an update only takes away.
func (r ProvisionUpdate) Ends() bool {
	return r.Active != nil && !*r.Active
}

// rename writes the names of an update, and returns which changed.
func (p *Provisioned) rename(r ProvisionUpdate) (changed []string) {
	for _, f := range []struct {
		name string
		to   *string
		at   *string
	}{{"userName", r.UserName, &p.UserName}, {"externalId", r.ExternalID, &p.ExternalID}, {"displayName", r.DisplayName, &p.DisplayName}} {
		if f.to != nil && *f.to != *f.at {
			*f.at = *f.to
			changed = append(changed, f.name)
		}
	}
	return changed
}

// activate suspends or resumes the user of p, as the provider says, and adds the event. had is p from before.
func (a Actor) activate(
	tx Tx,
	p *Provisioned,
	had Provisioned,
	whole bool,
	now time.Time,
	events []Event,
) ([]Event, error) {
	if whole && !p.Inactive && !had.Inactive {
		return events, nil
	}
	u, err := tx.User(p.User)
	switch {
	case p.Inactive && toEnd(err) != nil, !p.Inactive && err != nil:
		return nil, fmt.Errorf("read user: %w", err)
	case p.Inactive:
		events, err = a.suspend(tx, &u, now, provisioningReason, events)
	default:
		events, err = a.resume(tx, &u, now, provisioningReason, events)
	}
	p.State = u.State
	return events, err
}

// suspend suspends a user who is stored, ends its sessions of the page, and adds the event; nothing if it is.
func (a Actor) suspend(tx Tx, u *User, now time.Time, reason string, events []Event) ([]Event, error) {
	if u.State == UserSuspended {
		return events, nil
	}
	u.State = UserSuspended
	if err := tx.UpdateUser(*u); err != nil {
		return nil, fmt.Errorf("write user: %w", err)
	}
	e := a.event(now, ActionUserSuspend)
	e.User, e.Detail = u.ID, reason
	return append(events, e), endSessions(tx, u.ID, now)
}

// resume ends a suspension, and adds the event; nothing if there is none.
func (a Actor) resume(tx Tx, u *User, now time.Time, reason string, events []Event) ([]Event, error) {
	if u.State == UserActive {
		return events, nil
	}
	u.State = UserActive
	if err := tx.UpdateUser(*u); err != nil {
		return nil, fmt.Errorf("write user: %w", err)
	}
	e := a.event(now, ActionUserResume)
	e.User, e.Detail = u.ID, reason
	return append(events, e), nil
}

// DeleteProvisionedUser deletes the user of a record, as DeleteUser does.
func (s *Service) DeleteProvisionedUser(ctx context.Context, a Actor, id string) error {
	p, err := s.ProvisionedUser(ctx, a, id)
	if err != nil {
		return s.refused(ctx, a, Refusal{Action: ActionUserDelete}, err)
	}
	_, err = s.deleteUser(ctx, a, p.User, provisioningReason, func(tx Tx, u User) error {
		now, err := provisioned(tx, id)
		if err == nil && now.UserKey != u.Key {
			return notFound("user")
		}
		return err
	})
	return err
}

// mayProvision returns why a caller may not say what c has checked; nil: it may.
func (s *Service) mayProvision(a Actor, c checker) error {
	if err := s.manager(a); err != nil {
		return err
	}
	return c.err()
}

// newProvisionedID makes the id of a record: 128 random bits.
func (s *Service) newProvisionedID() (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(s.rand, b[:]); err != nil {
		return "", fmt.Errorf("make the id of a provisioned user: %w", err)
	}
	return fmt.Sprintf("%x", b), nil
}

// userName checks a user name, which is required; nil: there is none to check.
func (c *checker) userName(s *string) {
	if s != nil {
		c.provider("userName", *s, maxUserName, true)
	}
}

// provider checks a text that an identity provider says.
func (c *checker) provider(field, s string, most int, required bool) {
	switch {
	case s == "" && !required:
	case s == "" || len(s) > most:
		c.add(field, "TEXT_INVALID", fmt.Sprintf("has 1 to %d bytes", most))
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		c.add(field, "TEXT_INVALID", "is UTF-8 without control characters")
	case secret.ContainsSecret(s):
		c.add(field, "SECRET_IN_FIELD", "holds the secret of a token; revoke that token, it may have been seen")
	}
}
