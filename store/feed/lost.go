package feed

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"patd/tokens"
)

// listLost is how many lost changes one record of the log names.
const listLost = 100

// lost returns the entries that were read, and that the table does not have any more: after a failover to a standby
// that had not received them, or a restore. Entries before the first of the table may have been pruned, and are not
// among them.
func lost(had, now *ring) []Entry {
	first := now.before.Seq
	if first == 0 && len(now.entries) > 0 {
		first = now.entries[0].Seq
	}
	stands := make(map[uint64]uint64, len(now.entries)+1) // marks by position
	for _, e := range append([]Entry{now.before}, now.entries...) {
		stands[e.Seq] = e.Mark
	}
	var gone []Entry
	for _, e := range append([]Entry{had.before}, had.entries...) {
		if e.Seq > 0 && e.Seq >= first && stands[e.Seq] != e.Mark {
			gone = append(gone, e)
		}
	}
	return gone
}

// reportLost logs which changes the table of a ring has lost. The caller has the turn.
func (f *Feed) reportLost(ctx context.Context, now *ring) {
	f.mu.RLock()
	gone := lost(&f.ring, now)
	f.mu.RUnlock()
	if len(gone) == 0 {
		return
	}
	of := make([]string, 0, listLost)
	for _, e := range gone[:min(len(gone), listLost)] {
		of = append(of, subject(e.Change))
	}
	slices.Sort(of)
	f.log.LogAttrs(ctx, slog.LevelError, "store: the database has lost changes that this server had read",
		slog.Uint64("first", gone[0].Seq), slog.Uint64("last", gone[len(gone)-1].Seq), slog.Int("changes", len(gone)),
		slog.String("of", strings.Join(slices.Compact(of), " ")), slog.Int64("audit_position", f.heads.Event),
		slog.String("remedy", "revoke again what was revoked: see PatdFeedDistrusted in the runbooks"))
}

// subject is what a change is of.
func subject(c tokens.Change) string {
	switch {
	case c.TokenID != 0:
		return "token:" + c.TokenID.String()
	case c.User != "":
		return "user:" + c.User
	default:
		return "service:" + c.Service
	}
}
