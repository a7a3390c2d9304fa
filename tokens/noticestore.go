package tokens

import "time"

// NoticeKind is what a notice before an end is about.
type NoticeKind int

// The kinds.
const (
	NoticeOfToken NoticeKind = iota + 1
	NoticeOfService
)

// NoticeMark is how far something was gone through, and a note about it.
type NoticeMark struct {
	Name string
	Time time.Time
	Note string
}

// EndQuery selects credentials by their end.
type EndQuery struct {
	// From and UpTo bound the end; both are included. Of those that end at From only ids after AfterID count; 0: all.
	From, UpTo time.Time
	AfterID    ID
	// Before is how long before the end the notice is.
	Before time.Duration
	Limit  int
}

// IdleCheck says when it is looked next whether a token is still used, and what was written when it was not.
type IdleCheck struct {
	TokenID ID
	Due     time.Time
	// Unused and Announced are the last use, as it was then, of which a token.unused and a token.idle were written;
	// zero: none was. AnnounceTime is when the latter was.
	Unused, Announced, AnnounceTime time.Time
	// ResumeTime is when the last pause ended, which counts as a use; zero: there was none.
	ResumeTime time.Time
}

// NoticeReader reads what notices are due.
type NoticeReader interface {
	// NoticeMark reads a mark. ErrNotFound.
	NoticeMark(name string) (NoticeMark, error)
	// EndingTokens lists tokens by the query, by their end and then by id, that are not revoked, whose end was set more
	// than q.Before ahead, and that have no notice of it.
	EndingTokens(q EndQuery) ([]Token, error)
	// EndingServices is EndingTokens for services.
	EndingServices(q EndQuery) ([]ServiceAccount, error)
	// EarliestNotice reads the earliest end of which a notice of a kind is recorded. ErrNotFound.
	EarliestNotice(kind NoticeKind) (time.Time, error)
	// IdleCheck reads the check of a token. ErrNotFound.
	IdleCheck(id ID) (IdleCheck, error)
	// DueIdleChecks lists checks that are due, the longest due first.
	DueIdleChecks(now time.Time, limit int) ([]IdleCheck, error)
}

// NoticeWriter writes that a notice was written.
type NoticeWriter interface {
	// PutNotice records the notice of an end, written so long before it. ErrTaken when there is one.
	PutNotice(kind NoticeKind, id ID, end time.Time, before time.Duration) error
	NoticeKeeper
}

// NoticeKeeper writes what only says when to look again. A transaction may do that without an event.
type NoticeKeeper interface {
	// PutNoticeMark writes a mark.
	PutNoticeMark(m NoticeMark) error
	// ForgetNotices removes up to limit records of notices of ends before an instant, the earliest first, and returns
	// how many it removed.
	ForgetNotices(kind NoticeKind, before time.Time, limit int) (int, error)
	// BeginIdleChecks makes a check, due at once, of each token after an id (0: of any) that was issued by the end of
	// the millisecond of upTo and is neither revoked nor expired at now, in the order of ids; an existing check becomes
	// due. It goes through limit tokens at most, and returns the last, and how many it went through.
	BeginIdleChecks(after ID, upTo, now time.Time, limit int) (last ID, n int, err error)
	// PutIdleCheck writes the check of a token.
	PutIdleCheck(c IdleCheck) error
	// DeleteIdleCheck removes the check of a token, if there is one.
	DeleteIdleCheck(id ID) error
}
