package storetest

import (
	"errors"
	"testing"
	"time"

	"patd/tokens"
)

// testRotationRecord reads back what a rotation was, and what was before it.
func testRotationRecord(t *testing.T, f *fixture) {
	tok := f.token(f.user("u"), "one", full, func(t *tokens.Token) { t.Revocation = nil })
	f.equal("a token that was never rotated", f.read(tok.ID).Rotation, (*tokens.Rotation)(nil))
	first := tokens.Rotation{
		Time: f.now, PreviousUntil: f.now.Add(time.Hour), Retire: tokens.OnFirstUse, Change: tokens.ExpiryRenewed,
		Dropped: []string{"a", "b"},
		Before: tokens.BeforeRotation{ExpireTime: tok.ExpireTime, RenewTime: f.now.Add(-time.Hour), BlockedBy: "x\ny",
			SetExpireTime: f.now.Add(2 * time.Hour)},
	}
	tok.ExpireTime, tok.RenewTime = first.Before.SetExpireTime, f.now
	f.update(func(tx tokens.Tx) error {
		return errors.Join(tx.UpdateToken(tok), tx.ReplaceSecret(tok.ID, hash("k1", 300), first))
	})
	tok.Rotations, tok.Rotation = 1, &first
	f.equal("rotated", f.read(tok.ID), tok)
	use := func(serial int64, at time.Time, want bool) {
		t.Helper()
		f.update(func(tx tokens.Tx) error {
			done, err := tx.UseSecret(tok.ID, serial, at)
			f.equal("recorded", done, want)
			return err
		})
	}
	use(0, f.now.Add(time.Minute), false)
	use(2, f.now.Add(time.Minute), false)
	use(1, f.now.Add(time.Hour), false) // the one before has ended
	use(1, f.now.Add(time.Minute), true)
	use(1, f.now.Add(2*time.Minute), false)
	first.PreviousUntil, first.FirstUse = time.UnixMicro(0).UTC(), f.now.Add(time.Minute)
	f.equal("used", f.read(tok.ID), tok)
	f.equal("the secrets", f.lookup(tok.ID).Secrets, []tokens.StoredSecret{
		{Hash: hash("k1", 300), Serial: 1},
		{
			Hash:       f.lookup(tok.ID).Secrets[1].Hash,
			ExpireTime: time.UnixMicro(0).UTC(),
			EndTime:    first.FirstUse,
			NextUsed:   true,
		},
	})

	second := tokens.Rotation{
		Time:          f.now,
		PreviousUntil: f.now.Add(time.Hour),
		Retire:        tokens.AfterGrace,
		Change:        tokens.ExpiryKept,
	}
	f.update(func(tx tokens.Tx) error { return tx.ReplaceSecret(tok.ID, hash("k1", 301), second) })
	use(2, f.now.Add(time.Minute), true)
	second.FirstUse = f.now.Add(time.Minute)
	tok.Rotations, tok.Rotation = 2, &second
	f.equal("used, with the grace going on", f.read(tok.ID), tok)
	f.equal("the secret in its grace", f.lookup(tok.ID).Secrets[1],
		tokens.StoredSecret{Hash: hash("k1", 300), ExpireTime: second.PreviousUntil, NextUsed: true, Serial: 1})
}

// testSupersededUses records that old secrets are presented.
func testSupersededUses(t *testing.T, f *fixture) {
	tok, other := f.token(f.user("u"), "one"), f.token(f.user("v"), "two")
	for i, id := range []tokens.ID{tok.ID, other.ID} {
		f.update(func(tx tokens.Tx) error {
			return errors.Join(
				tx.ReplaceSecret(id, hash("k1", 400+uint64(2*i)), tokens.Rotation{Time: f.now, PreviousUntil: f.now}),
				tx.ReplaceSecret(id, hash("k1", 401+uint64(2*i)), tokens.Rotation{Time: f.now, PreviousUntil: f.now}),
			)
		})
	}
	before := f.lookup(tok.ID).Secrets
	for _, c := range []struct {
		id     tokens.ID
		serial int64
		after  time.Duration
		want   bool
	}{
		{tok.ID, 0, 0, true}, {tok.ID, 0, 0, false}, {tok.ID, 0, time.Hour - time.Microsecond, false}, {tok.ID, 1, 0, true},
		{tok.ID, 0, time.Hour, true}, {tok.ID, 0, time.Hour, false}, {tok.ID, 0, time.Minute, false},
		{tok.ID, 0, -time.Microsecond, true}, // the one before is of a clock that was wrong
		{tok.ID, 2, 0, false},                // the current one
		{other.ID, 0, 0, true}, {77, 0, 0, false},
	} {
		f.update(func(tx tokens.Tx) error {
			first, err := tx.PresentSuperseded(c.id, c.serial, f.now.Add(c.after), time.Hour)
			f.equal("the first in an hour", first, c.want)
			return err
		})
	}
	f.equal("the secrets", f.lookup(tok.ID).Secrets, before)
}

// testRestoredSecret takes a rotation back, with all that came of the secret before.
func testRestoredSecret(t *testing.T, f *fixture) {
	tok := f.token(f.user("u"), "one")
	f.update(func(tx tokens.Tx) error {
		f.isNotFound("RestoreSecret", tx.RestoreSecret(tok.ID, f.now))
		f.isNotFound("RestoreSecret of no token", tx.RestoreSecret(77, f.now))
		return nil
	})
	old := f.lookup(tok.ID).Secrets[0].Hash
	fam := tokens.Family{
		ID:         500,
		TokenID:    tok.ID,
		Scopes:     []string{"a"},
		Audiences:  []string{"api"},
		IssueTime:  f.now,
		ExpireTime: f.now.Add(time.Hour),
	}
	acc := tokens.AccessToken{
		ID:         600,
		TokenID:    tok.ID,
		Family:     fam.ID,
		Scopes:     []string{"a"},
		Audiences:  []string{"api"},
		IssueTime:  f.now,
		ExpireTime: f.now.Add(time.Hour),
	}
	gone := acc
	gone.ID = 601
	f.update(func(tx tokens.Tx) error {
		return errors.Join(
			tx.InsertFamily(fam),
			tx.InsertAccess(acc, hash("k1", 700)),
			tx.InsertAccess(gone, hash("k1", 701)),
		)
	})
	f.update(func(tx tokens.Tx) error {
		_, err := tx.RevokeAccess(gone.ID, tokens.Revocation{Time: f.now, By: "x"})
		return err
	})
	f.update(func(tx tokens.Tx) error {
		return tx.ReplaceSecret(tok.ID, hash("k1", 300), f.rotation(f.now.Add(time.Hour)))
	})
	f.lookup(tok.ID)
	at := f.now.Add(time.Minute)
	f.update(func(tx tokens.Tx) error { return tx.RestoreSecret(tok.ID, at) }, tokens.Event{TokenID: tok.ID})
	epoch := time.UnixMicro(0).UTC()
	f.equal("the secrets", f.lookup(tok.ID).Secrets, []tokens.StoredSecret{
		{Hash: old, Serial: 2},
		{Hash: hash("k1", 300), ExpireTime: epoch, EndTime: at, Serial: 1},
		{Hash: old, ExpireTime: epoch, EndTime: at},
	})
	tok.Rotations, tok.Rotation = 2, &tokens.Rotation{
		Time:          at,
		PreviousUntil: epoch,
		Retire:        tokens.AfterGrace,
		Change:        tokens.ExpiryRestored,
	}
	f.equal("the token", f.read(tok.ID), tok)
	f.view(func(tx tokens.ReadTx) error {
		for id, serial := range map[tokens.ID]int64{acc.ID: 2, gone.ID: 0} {
			a, err := tx.AccessToken(id)
			if err != nil {
				return err
			}
			f.equal("the serial of an access token", a.Serial, serial)
		}
		n, err := tx.CountGrants(tok.ID, 2, f.now)
		f.equal("grants of the restored secret", n, tokens.GrantCount{Access: 1, Families: 1})
		return err
	})
}
