package tokens

import (
	"testing"
	"time"
)

// TestWhatIsRememberedOfSupersededUsesIsBounded: once there is no room, others are counted, until an hour has passed.
func TestWhatIsRememberedOfSupersededUsesIsBounded(t *testing.T) {
	t.Parallel()
	u := supersededUses{next: map[secretSerial]time.Time{}}
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range maxSuperseded {
		if !u.due(secretSerial{token: ID(i)}, now) {
			t.Fatalf("secret %d is not recorded", i)
		}
	}
	one := secretSerial{token: ID(maxSuperseded)}
	if u.due(one, now) || len(u.next) != maxSuperseded || u.unrecorded.Load() != 1 {
		t.Errorf("%d are remembered, %d not recorded", len(u.next), u.unrecorded.Load())
	}
	if !u.due(one, now.Add(supersededEvery)) || len(u.next) != 1 {
		t.Errorf("an hour later %d are remembered", len(u.next))
	}
}
