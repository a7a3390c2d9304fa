package telemetry

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"

	"patd/internal/tracecontext"
)

// Sampler decides which calls get a span, as the SDK's samplers do, without an allocation. It is safe for concurrent
// use.
type Sampler struct {
	// follows says that the caller's decision counts, where there is one.
	follows bool
	// below is the bound of 63 bits of the trace id; 1<<63: every trace.
	below uint64
}

// everything is the bound under which all of 63 bits are.
const everything = 1 << 63

// newSampler reads OTEL_TRACES_SAMPLER and its argument.
func newSampler(getenv func(string) string) (Sampler, error) {
	name := strings.ToLower(strings.TrimSpace(getenv("OTEL_TRACES_SAMPLER")))
	if name == "" {
		name = "parentbased_always_on"
	}
	kind, follows := strings.CutPrefix(name, "parentbased_")
	s := Sampler{follows: follows}
	switch kind {
	case "always_on":
		s.below = everything
	case "always_off":
	case "traceidratio":
		ratio := 1.0
		if text := strings.TrimSpace(getenv("OTEL_TRACES_SAMPLER_ARG")); text != "" {
			var err error
			if ratio, err = strconv.ParseFloat(text, 64); err != nil || math.IsNaN(ratio) || ratio < 0 || ratio > 1 {
				return s, fmt.Errorf("OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1, such as 0.01")
			}
		}
		s.below = uint64(ratio * everything)
	default:
		return s, fmt.Errorf(
			"OTEL_TRACES_SAMPLER must be always_on, always_off, traceidratio, or one of them after parentbased_",
		)
	}
	return s, nil
}

// Root decides on a call that begins a trace.
func (s Sampler) Root() bool {
	return s.below == everything || s.below > 0 && rand.Uint64()>>1 < s.below //nolint:gosec // G404: it guards nothing
}

// Skip returns how many new traces are not chosen before the next that is: the decisions of Root, many of them at once.
func (s Sampler) Skip() uint64 {
	if s.below == 0 {
		return math.MaxUint64
	}
	if s.below >= everything {
		return 0
	}
	// How often a draw fails in a row, each with the same chance, is distributed geometrically, and knows nothing of the
	// draws before.
	u := 1 - rand.Float64() //nolint:gosec // G404: it guards nothing
	return uint64(math.Log(u) / math.Log1p(-float64(s.below)/everything))
}

// Child decides on a call in a trace. believed says that the caller may ask for a span.
func (s Sampler) Child(parent tracecontext.Context, believed bool) bool {
	switch {
	case s.follows && !parent.Sampled:
		return false
	case s.follows && believed:
		return true
	case s.follows:
		return s.Root()
	}
	return binary.BigEndian.Uint64(parent.TraceID[8:])>>1 < s.below
}
