package storetest

import (
	"time"

	"patd/tokens"
)

func (t *faultyRead) NoticeMark(name string) (tokens.NoticeMark, error) {
	return read(t, "NoticeMark", func() (tokens.NoticeMark, error) { return t.r.NoticeMark(name) })
}

func (t *faultyRead) EndingTokens(q tokens.EndQuery) ([]tokens.Token, error) {
	return read(t, "EndingTokens", func() ([]tokens.Token, error) { return t.r.EndingTokens(q) })
}

func (t *faultyRead) EndingServices(q tokens.EndQuery) ([]tokens.ServiceAccount, error) {
	return read(t, "EndingServices", func() ([]tokens.ServiceAccount, error) { return t.r.EndingServices(q) })
}

func (t *faultyRead) IdleCheck(id tokens.ID) (tokens.IdleCheck, error) {
	return read(t, "IdleCheck", func() (tokens.IdleCheck, error) { return t.r.IdleCheck(id) })
}

func (t *faultyRead) EarliestNotice(kind tokens.NoticeKind) (time.Time, error) {
	return read(t, "EarliestNotice", func() (time.Time, error) { return t.r.EarliestNotice(kind) })
}

func (t *faultyRead) DueIdleChecks(now time.Time, limit int) ([]tokens.IdleCheck, error) {
	return read(t, "DueIdleChecks", func() ([]tokens.IdleCheck, error) { return t.r.DueIdleChecks(now, limit) })
}

func (t *faultyTx) PutNotice(kind tokens.NoticeKind, id tokens.ID, end time.Time, before time.Duration) error {
	return t.write("PutNotice", func() error { return t.w.PutNotice(kind, id, end, before) })
}

func (t *faultyTx) ForgetNotices(kind tokens.NoticeKind, before time.Time, limit int) (int, error) {
	return read(&t.faultyRead, "ForgetNotices", func() (int, error) { return t.w.ForgetNotices(kind, before, limit) })
}

func (t *faultyTx) PutNoticeMark(m tokens.NoticeMark) error {
	return t.write("PutNoticeMark", func() error { return t.w.PutNoticeMark(m) })
}

func (t *faultyTx) BeginIdleChecks(
	after tokens.ID,
	upTo, now time.Time,
	limit int,
) (last tokens.ID, n int, err error) {
	n, err = read(&t.faultyRead, "BeginIdleChecks", func() (int, error) {
		last, n, err = t.w.BeginIdleChecks(after, upTo, now, limit)
		return n, err
	})
	return last, n, err
}

func (t *faultyTx) PutIdleCheck(c tokens.IdleCheck) error {
	return t.write("PutIdleCheck", func() error { return t.w.PutIdleCheck(c) })
}

func (t *faultyTx) DeleteIdleCheck(id tokens.ID) error {
	return t.write("DeleteIdleCheck", func() error { return t.w.DeleteIdleCheck(id) })
}
