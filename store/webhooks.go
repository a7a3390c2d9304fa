package store

import (
	"database/sql"
	"fmt"
	"math"
	"time"

	"patd/store/internal/db"
	"patd/tokens"
)

const webhookColumns = `num, id, url, description, event_types, users, audiences, labels, enabled, disable_us,
  disable_reason, create_us, update_us, (SELECT k.name FROM keys k WHERE k.num = secret_key), secret,
  (SELECT k.name FROM keys k WHERE k.num = old_secret_key), old_secret, old_until_us, cursor_seq, row_mac`

// webhookRow is a row of webhookColumns.
type webhookRow struct {
	record   tokens.Webhook
	sum      []byte
	checksum []byte
}

// sumWebhook appends the sum of a webhook's row.
func sumWebhook(b []byte, num, enabled int64, id, url string, types, users, audiences, labels sql.NullString) []byte {
	b = sumNumber(sumNumber(append(b, ofWebhook), num), enabled)
	for _, s := range [...]string{id, url, types.String, users.String, audiences.String, labels.String} {
		b = sumText(b, s)
	}
	return b
}

// scanWebhook reads a row of webhookColumns.
func scanWebhook(scan func(...any) error) (webhookRow, error) {
	var (
		r                                            webhookRow
		w                                            tokens.Webhook
		num, enabled, createUS, updateUS, cursor     int64
		description, types, users, audiences, labels sql.NullString
		reason, oldKey                               sql.NullString
		disableUS, oldUntilUS                        sql.NullInt64
	)
	err := scan(
		&num,
		&w.ID,
		&w.URL,
		&description,
		&types,
		&users,
		&audiences,
		&labels,
		&enabled,
		&disableUS,
		&reason,
		&createUS,
		&updateUS,
		&w.Secret.Key,
		&w.Secret.Box,
		&oldKey,
		&w.OldSecret.Box,
		&oldUntilUS,
		&cursor,
		&r.checksum,
	)
	if err != nil {
		return webhookRow{}, err
	}
	r.sum = sumWebhook(nil, num, enabled, w.ID, w.URL, types, users, audiences, labels)
	w.Num, w.Description, w.Enabled, w.Cursor = tokens.ID(num), description.String, enabled == 1, uint64(cursor)
	w.Filter = tokens.WebhookFilter{
		Types: db.Split(types.String, "\n"), Users: db.Split(users.String, "\n"),
		Audiences: db.Split(audiences.String, "\n"),
	}
	if w.Filter.Labels, err = db.ParseLabels(labels.String); err != nil {
		return webhookRow{}, fmt.Errorf("webhook %s: %w", w.ID, err)
	}
	w.CreateTime, w.UpdateTime = db.Instant(createUS), db.Instant(updateUS)
	w.DisableTime, w.DisableReason = instantOf(disableUS), reason.String
	w.OldSecret.Key, w.OldUntil = oldKey.String, instantOf(oldUntilUS)
	r.record = w
	return r, nil
}

// instantOf is an instant, or the zero time for NULL.
func instantOf(us sql.NullInt64) time.Time {
	if !us.Valid {
		return time.Time{}
	}
	return db.Instant(us.Int64)
}

const (
	selectWebhook      = `SELECT ` + webhookColumns + ` FROM webhooks WHERE id = ?`
	selectWebhookByNum = `SELECT ` + webhookColumns + ` FROM webhooks WHERE num = ?`
	selectWebhooks     = `SELECT ` + webhookColumns + ` FROM webhooks WHERE id > ? ORDER BY id LIMIT ?`
)

// Webhook implements tokens.WebhookReader.
func (t *readTx) Webhook(id string) (tokens.Webhook, error) { return t.webhook(selectWebhook, id) }

// WebhookByNum implements tokens.WebhookReader.
func (t *readTx) WebhookByNum(num tokens.ID) (tokens.Webhook, error) {
	return t.webhook(selectWebhookByNum, int64(num))
}

func (t *readTx) webhook(query string, arg any) (tokens.Webhook, error) {
	r, err := t.webhookRow(query, arg)
	if err != nil {
		return tokens.Webhook{}, err
	}
	return r.record, t.store.rows.check(ofWebhook, int64(r.record.Num), r.sum, r.checksum)
}

func (t *readTx) webhookRow(query string, arg any) (webhookRow, error) {
	found, err := t.webhooks("read a webhook", query, arg)
	switch {
	case err != nil:
		return webhookRow{}, err
	case len(found) == 0:
		return webhookRow{}, tokens.ErrNotFound
	}
	return found[0], nil
}

// Webhooks implements tokens.WebhookReader.
func (t *readTx) Webhooks(after string, limit int) ([]tokens.Webhook, error) {
	found, err := t.webhooks("list webhooks", selectWebhooks, after, limit)
	if err != nil {
		return nil, err
	}
	list := make([]tokens.Webhook, len(found))
	for i, r := range found {
		list[i] = r.record
	}
	return list, nil
}

func (t *readTx) webhooks(op, query string, args ...any) (list []webhookRow, err error) {
	err = t.each(op, query, func(rows *sql.Rows) error {
		r, err := scanWebhook(rows.Scan)
		list = append(list, r)
		return err
	}, args...)
	return list, err
}

const (
	insertWebhook = `
INSERT INTO webhooks (num, id, url, description, event_types, users, audiences, labels, enabled, disable_us,
  disable_reason, update_us, secret_key, secret, old_secret_key, old_secret, old_until_us, row_mac, create_us,
  cursor_seq)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, (SELECT num FROM keys WHERE name = ?13
  AND retire_us IS NULL), ?14, (SELECT num FROM keys WHERE name = ?15 AND retire_us IS NULL), ?16, ?17, ?18, ?19, ?20)
ON CONFLICT (id) DO NOTHING`

	updateWebhook = `
UPDATE webhooks
SET url = ?2, description = ?3, event_types = ?4, users = ?5, audiences = ?6, labels = ?7, enabled = ?8,
  disable_us = ?9, disable_reason = ?10, update_us = ?11,
  secret_key = (SELECT num FROM keys WHERE name = ?12 AND retire_us IS NULL), secret = ?13,
  old_secret_key = (SELECT num FROM keys WHERE name = ?14 AND retire_us IS NULL), old_secret = ?15, old_until_us = ?16,
  row_mac = ?17
WHERE num = ?1`

	deleteWebhook = `DELETE FROM webhooks WHERE num = ?`
)

// webhookArgs are the columns of a webhook that change, as they are written, but for the checksum; and the sum that it
// is of.
func webhookArgs(w tokens.Webhook) (args []any, sum []byte, err error) {
	labels, err := db.LabelsText(w.Filter.Labels)
	if err != nil {
		return nil, nil, err
	}
	oldKey, oldBox, oldUntil := any(nil), any(nil), any(nil)
	if !w.OldSecret.IsZero() {
		oldKey, oldBox, oldUntil = w.OldSecret.Key, w.OldSecret.Box, db.NullTime(w.OldUntil)
	}
	types, users, audiences := db.Join(
		w.Filter.Types,
		"\n",
	), db.Join(
		w.Filter.Users,
		"\n",
	), db.Join(
		w.Filter.Audiences,
		"\n",
	)
	enabled := db.Flag(w.Enabled)
	sum = sumWebhook(nil, int64(w.Num), enabled, w.ID, w.URL, db.TextOf(types), db.TextOf(users), db.TextOf(audiences),
		db.TextOf(labels))
	return []any{
		w.URL, db.NullText(w.Description), types, users, audiences, labels, enabled, db.NullTime(w.DisableTime),
		db.NullText(w.DisableReason), db.Micros(w.UpdateTime), w.Secret.Key, w.Secret.Box, oldKey, oldBox, oldUntil,
	}, sum, nil
}

// InsertWebhook implements tokens.WebhookWriter.
func (t *tx) InsertWebhook(w tokens.Webhook) error {
	args, sum, err := webhookArgs(w)
	if err != nil {
		return err
	}
	checksum, err := t.store.rows.checksum(sum)
	if err != nil {
		return err
	}
	args = append([]any{int64(w.Num), w.ID}, args...)
	args = append(args, checksum, db.Micros(w.CreateTime), int64(w.Cursor))
	return t.mustExec("insert a webhook", fmt.Errorf("webhook %s: %w", w.ID, tokens.ErrTaken), insertWebhook, args...)
}

// UpdateWebhook implements tokens.WebhookWriter. A row that is refused stays so.
func (t *tx) UpdateWebhook(w tokens.Webhook) error {
	args, sum, err := webhookArgs(w)
	if err != nil {
		return err
	}
	r, err := t.webhookRow(selectWebhookByNum, int64(w.Num))
	if err != nil {
		return fmt.Errorf("update a webhook: %w", err)
	}
	checksum, err := t.store.rows.next(r.sum, r.checksum, sum)
	if err != nil {
		return err
	}
	return t.mustExec("update a webhook", fmt.Errorf("webhook %s: %w", w.ID, tokens.ErrNotFound), updateWebhook,
		append(append([]any{int64(w.Num)}, args...), checksum)...)
}

// DeleteWebhook implements tokens.WebhookWriter.
func (t *tx) DeleteWebhook(num tokens.ID) error {
	return t.mustExec("delete a webhook", fmt.Errorf("webhook: %w", tokens.ErrNotFound), deleteWebhook, int64(num))
}

const deliveryColumns = `webhook, seq, item, id, type, subject, data, state, create_us, since_us, next_us, end_us,
  attempts, attempt_us, duration_us, status, error, traceparent`

// scanDelivery reads a row of deliveryColumns.
func scanDelivery(scan func(...any) error) (tokens.WebhookDelivery, error) {
	var (
		d                                             tokens.WebhookDelivery
		webhook, seq, state, createUS                 int64
		id                                            []byte
		data, wrong, parent                           sql.NullString
		sinceUS, nextUS, endUS, attemptUS, us, status sql.NullInt64
	)
	err := scan(&webhook, &seq, &d.Item, &id, &d.Type, &d.Subject, &data, &state, &createUS, &sinceUS, &nextUS, &endUS,
		&d.Attempts, &attemptUS, &us, &status, &wrong, &parent)
	if err != nil {
		return tokens.WebhookDelivery{}, err
	}
	d.Webhook, d.Seq, d.State = tokens.ID(webhook), uint64(seq), tokens.DeliveryState(state)
	d.TraceParent = parent.String
	copy(d.ID[:], id)
	if data.Valid {
		d.Data = []byte(data.String)
	}
	d.CreateTime, d.SinceTime, d.NextTime = db.Instant(createUS), instantOf(sinceUS), instantOf(nextUS)
	d.EndTime, d.AttemptTime = instantOf(endUS), instantOf(attemptUS)
	d.Duration, d.Status, d.Error = lifetime(us.Int64), int(status.Int64), wrong.String
	return d, nil
}

func (t *readTx) deliveries(op, query string, args ...any) ([]tokens.WebhookDelivery, error) {
	list := []tokens.WebhookDelivery{}
	err := t.each(op, query, func(rows *sql.Rows) error {
		d, err := scanDelivery(rows.Scan)
		list = append(list, d)
		return err
	}, args...)
	if err != nil {
		return nil, err
	}
	return list, nil
}

const (
	selectDelivery = `SELECT ` + deliveryColumns + ` FROM webhook_deliveries WHERE webhook = ?1 AND id = ?2`

	// One that was asked for again was not tried since.
	selectFailing = `SELECT ` + deliveryColumns + ` FROM webhook_deliveries INDEXED BY webhook_deliveries_due
WHERE webhook = ?1 AND next_us IS NOT NULL AND since_us IS NOT NULL ORDER BY next_us, seq, item LIMIT 1`

	selectDeliveries = `SELECT ` + deliveryColumns + ` FROM webhook_deliveries
WHERE webhook = ?1 AND (seq, item) < (?2, ?3) AND (?4 = 0 OR state = ?4) AND (?5 = '' OR type = ?5)
ORDER BY seq DESC, item DESC LIMIT ?6`
)

// WebhookDelivery implements tokens.WebhookReader.
func (t *readTx) WebhookDelivery(webhook tokens.ID, id tokens.DeliveryID) (tokens.WebhookDelivery, error) {
	return t.delivery(selectDelivery, int64(webhook), id[:])
}

// FailingDelivery implements tokens.WebhookReader.
func (t *readTx) FailingDelivery(webhook tokens.ID) (tokens.WebhookDelivery, error) {
	return t.delivery(selectFailing, int64(webhook))
}

func (t *readTx) delivery(query string, args ...any) (tokens.WebhookDelivery, error) {
	found, err := t.deliveries("read a delivery", query, args...)
	switch {
	case err != nil:
		return tokens.WebhookDelivery{}, err
	case len(found) == 0:
		return tokens.WebhookDelivery{}, tokens.ErrNotFound
	}
	return found[0], nil
}

// WebhookDeliveries implements tokens.WebhookReader.
func (t *readTx) WebhookDeliveries(q tokens.WebhookDeliveryQuery) ([]tokens.WebhookDelivery, error) {
	seq, item := int64(math.MaxInt64), int64(math.MaxInt64)
	if q.BeforeSeq != 0 {
		seq, item = int64(q.BeforeSeq), q.BeforeItem
	}
	return t.deliveries(
		"list deliveries",
		selectDeliveries,
		int64(q.Webhook),
		seq,
		item,
		int64(q.State),
		q.Type,
		q.Limit,
	)
}

const (
	// A delivery is due at once unless another of its subject is pending before it.
	insertDelivery = `
INSERT INTO webhook_deliveries (webhook, seq, item, id, type, subject, data, state, create_us, next_us,
  traceparent)
SELECT CAST(?1 AS BIGINT), CAST(?2 AS BIGINT), CAST(?3 AS BIGINT), CAST(?4 AS BLOB), CAST(?5 AS TEXT),
  CAST(?6 AS TEXT), CAST(?7 AS TEXT), 1, CAST(?8 AS BIGINT),
  CASE WHEN EXISTS (SELECT 1 FROM webhook_deliveries p WHERE p.webhook = ?1 AND p.subject = ?6 AND p.state = 1)
    THEN NULL ELSE CAST(?9 AS BIGINT) END, CAST(?10 AS TEXT)
WHERE NOT EXISTS (SELECT 1 FROM webhook_deliveries p WHERE p.webhook = ?1 AND p.id = ?4)
ON CONFLICT (webhook, seq, item) DO NOTHING`

	requeueDelivery = `
UPDATE webhook_deliveries
SET state = 1, end_us = NULL, since_us = NULL,
  next_us = CASE WHEN state = 1 AND next_us IS NULL THEN NULL ELSE CAST(?3 AS BIGINT) END
WHERE webhook = ?1 AND id = ?2`

	requeuePending = `
UPDATE webhook_deliveries
SET since_us = NULL, next_us = CASE WHEN next_us IS NULL THEN NULL ELSE CAST(?2 AS BIGINT) END
WHERE webhook = ?1 AND state = 1`
)

func (t *tx) insertDelivery(d *tokens.WebhookDelivery) error {
	var data any
	if d.Data != nil {
		data = string(d.Data)
	}
	return t.mustExec("insert a delivery", fmt.Errorf("delivery %x: %w", d.ID, tokens.ErrTaken), insertDelivery,
		int64(d.Webhook), int64(d.Seq), d.Item, d.ID[:], d.Type, d.Subject, data, db.Micros(d.CreateTime),
		db.Micros(d.NextTime), db.NullText(d.TraceParent))
}

// InsertDelivery implements tokens.WebhookWriter.
func (t *tx) InsertDelivery(d tokens.WebhookDelivery) error { return t.insertDelivery(&d) }

// RequeueDelivery implements tokens.WebhookWriter.
func (t *tx) RequeueDelivery(webhook tokens.ID, id tokens.DeliveryID, at time.Time) error {
	return t.mustExec("queue a delivery again", fmt.Errorf("delivery %x: %w", id, tokens.ErrNotFound), requeueDelivery,
		int64(webhook), id[:], db.Micros(at))
}

// RequeuePending implements tokens.WebhookWriter.
func (t *tx) RequeuePending(webhook tokens.ID, at time.Time) error {
	_, err := t.exec("queue pending deliveries again", requeuePending, int64(webhook), db.Micros(at))
	return err
}
