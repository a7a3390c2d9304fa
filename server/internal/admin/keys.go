package admin

import (
	"context"
	"net/http"
	"time"

	"patd/server/internal/call"
	"patd/server/internal/frame"
	"patd/tokens"
)

// countWithin is how long counting what is left may take.
const countWithin = 30 * time.Second

// keyRow is a digest key as a page shows it.
type keyRow struct {
	Name, State      string // State is the key of its text
	Secrets, Rows    int64
	Created, Retired frame.Moment
	Missing          bool // this server does not have it, though it is not retired
}

// keys shows what is left under each key.
func (p *Pages) keys(q *frame.Request) error {
	defer q.Lasting(countWithin)() // every row is read
	var found []tokens.KeyLeft
	err := q.Operate(call.AdminKeys, nil, func(ctx context.Context, a tokens.Actor) (err error) {
		found, err = p.service.KeysLeft(ctx, a)
		return err
	})
	if err != nil {
		return err
	}
	rows := make([]keyRow, len(found))
	state := "old"
	for i, k := range found { // the oldest first
		rows[i] = keyRow{
			Name:    k.Name,
			State:   state,
			Secrets: k.Secrets,
			Rows:    k.Rows,
			Created: q.Moment(k.CreateTime),
			Retired: q.Moment(k.RetireTime),
			Missing: !k.Loaded && k.RetireTime.IsZero(),
		}
		switch {
		case !k.RetireTime.IsZero():
			rows[i].State = "retired"
		case k.Current:
			rows[i].State, state = "current", "ahead"
		}
	}
	q.Render(http.StatusOK, "admin-keys", rows)
	return nil
}
