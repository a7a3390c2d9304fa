package tokens

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/crypto/blake2b"
)

// Webhook is an endpoint that is notified of what happened. The audit log is the outbox: Cursor is the position in it
// up to which deliveries were made for the webhook.
type Webhook struct {
	Num         ID     // never used twice; no caller sees it
	ID          string // the webhook's name in the API
	URL         string
	Description string
	Filter      WebhookFilter
	Enabled     bool
	// DisableTime is when the webhook was disabled by the server, and DisableReason why, a stable name; zero: it was
	// not, or was enabled or changed since.
	DisableTime   time.Time
	DisableReason string
	CreateTime    time.Time
	UpdateTime    time.Time
	// Secret signs what is sent, and so does OldSecret until OldUntil.
	Secret    SealedSecret
	OldSecret SealedSecret // zero: there is none
	OldUntil  time.Time
	Cursor    uint64
	AsOf      time.Time // the instant of the call that returned the webhook, as that of a Token
}

// WebhookFilter selects events. What an empty field would select by counts for all. An event without a user or without
// an audience, or whose token has no such label, is not selected by a filter of users, audiences or labels.
type WebhookFilter struct {
	Types     []string // of WebhookTypes
	Users     []string
	Audiences []string          // one of them must be named by the event's token
	Labels    map[string]string // all of them must be the token's
}

// WebhookFacts is what a filter looks at of an event.
type WebhookFacts struct {
	Type      string
	User      string            // empty: not about a user
	Audiences []string          // those that the token names, or the changed audience; nil: none
	Labels    map[string]string // of the token
}

// Selects reports whether a filter selects an event.
func (f WebhookFilter) Selects(e WebhookFacts) bool {
	switch {
	case len(f.Types) > 0 && !slices.Contains(f.Types, e.Type):
		return false
	case len(f.Users) > 0 && (e.User == "" || !slices.Contains(f.Users, e.User)):
		return false
	case len(f.Audiences) > 0 && !slices.ContainsFunc(e.Audiences, func(a string) bool { return slices.Contains(f.Audiences, a) }):
		return false
	}
	for k, v := range f.Labels {
		if has, ok := e.Labels[k]; !ok || has != v {
			return false
		}
	}
	return true
}

// SealedSecret is a secret that is stored encrypted, under a key that is derived from a digest key. It prints as its
// key's name only.
type SealedSecret struct {
	Key string // the digest key's name
	Box []byte
}

// String returns the key's name, without the secret.
func (s SealedSecret) String() string { return "[sealed under " + s.Key + "]" }

// Format writes String, for every verb.
func (s SealedSecret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue returns String.
func (s SealedSecret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns String, so that no encoder writes the box.
func (s SealedSecret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// IsZero reports whether there is no secret.
func (s SealedSecret) IsZero() bool { return len(s.Box) == 0 }

// DeliveryState is what became of a delivery.
type DeliveryState int

// The states of a delivery.
const (
	DeliveryPending   DeliveryState = iota + 1
	DeliveryDelivered               // the endpoint accepted it
	DeliveryFailed                  // it was given up
)

// WebhookDelivery is one notice for one webhook.
type WebhookDelivery struct {
	Webhook ID // the webhook's Num
	// Seq is the position of the event, and Item counts from 0 the notices that come of one event. A test is of no
	// event: its Item is TestItem or more, and its Seq only says where it stands in a list.
	Seq  uint64
	Item int64
	ID   DeliveryID // what the endpoint receives as webhook-id, the same at each attempt
	Type string     // of WebhookTypes, or WebhookTest
	// Subject orders: a delivery waits until those before it with the same webhook and subject have ended. It is
	// "token:ID", "user:ID", "service:NAME" and the like.
	Subject string
	// TraceParent is that of the event; empty: it has none.
	TraceParent string
	// Data holds what is to be sent but may change before it is, in the form that the sender gave it; nil: nothing.
	Data       []byte
	State      DeliveryState
	CreateTime time.Time
	// SinceTime is the first attempt, or the first since the webhook was enabled or the delivery was asked for again;
	// zero: none yet.
	SinceTime time.Time
	// NextTime is when the next attempt is due; zero: the delivery has ended, or waits for one before it.
	NextTime time.Time
	EndTime  time.Time // zero: pending
	Attempts int64
	// The last attempt: when it began, how long it took, the status that came, 0 for none, and a stable word for what
	// went wrong, empty for nothing.
	AttemptTime time.Time
	Duration    time.Duration
	Status      int
	Error       string
}

// TestItem is the lowest Item of a delivery that is of no event.
const TestItem = int64(1) << 32

// DeliveryID names a delivery.
type DeliveryID [16]byte

// NewDeliveryID returns the id of the delivery of an event. The same event has the same id, also when its deliveries
// are made again, as after a database's failover to a server that missed some: the endpoint recognizes what it has.
// Events of one position in two histories of a store have different ids.
func NewDeliveryID(webhook ID, e Event, item int64) DeliveryID {
	text := framed(
		"webhook delivery",
		webhook.String(),
		fmt.Sprint(e.Seq),
		instant(e.Time),
		string(e.Action),
		e.Actor,
		fmt.Sprint(item),
	)
	sum := blake2b.Sum256([]byte(text))
	return DeliveryID(sum[:16])
}

// WebhookLease says that one server delivers for a webhook.
type WebhookLease struct {
	Webhook ID
	Holder  string // names the server's process
	Number  int64  // counts the holders of the webhook's lease
}

// WebhookAttempt is the result of one attempt at a delivery.
type WebhookAttempt struct {
	Seq      uint64
	Item     int64
	Time     time.Time // when it began
	Duration time.Duration
	Status   int
	Error    string
	// State is what the delivery is in from now on; while it is pending, NextTime is when the next attempt is due.
	State    DeliveryState
	NextTime time.Time
}

// WebhookDeliveryQuery lists deliveries of one webhook, newest event first.
type WebhookDeliveryQuery struct {
	Webhook ID
	State   DeliveryState // 0: any
	Type    string        // empty: any
	// Only those before this one; zero: from the newest.
	BeforeSeq  uint64
	BeforeItem int64
	Limit      int
}
