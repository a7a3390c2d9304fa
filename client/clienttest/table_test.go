package clienttest

import (
	"testing"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// Every decision of the domain is one on the wire, each another.
func TestEveryDecisionIsOnTheWire(t *testing.T) {
	told := map[patdv1.IntrospectResponse_Decision]bool{}
	for d := tokens.NotFound; d <= tokens.TokenIdle; d++ {
		if decisions[d] == patdv1.IntrospectResponse_DECISION_UNSPECIFIED || told[decisions[d]] {
			t.Errorf("decision %d is told as %s", d, decisions[d])
		}
		told[decisions[d]] = true
	}
	if len(told) != len(patdv1.IntrospectResponse_Decision_name)-1 {
		t.Errorf("%d decisions are told, and there are %d", len(told), len(patdv1.IntrospectResponse_Decision_name)-1)
	}
}
