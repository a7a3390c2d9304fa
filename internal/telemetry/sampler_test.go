package telemetry

import (
	"math"
	"strings"
	"testing"

	"patd/internal/tracecontext"
)

func sampler(t *testing.T, name, arg string) Sampler {
	t.Helper()
	s, err := newSampler(func(variable string) string {
		return map[string]string{"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": arg}[variable]
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTheSamplerDecidesAsTheVariablesSay(t *testing.T) {
	t.Parallel()
	const id = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0"
	yes, no := tracecontext.Parse(id+"1"), tracecontext.Parse(id+"0")
	// The upper of the 63 bits that a ratio compares, of a trace that few ratios have, and of one that most have.
	rare, common := yes, yes
	rare.TraceID[8], common.TraceID[8] = 0xff, 0x01
	for _, c := range []struct {
		name, arg            string
		root, asked, unasked bool
	}{
		{"", "", true, true, false},
		{"always_on", "", true, true, true},
		{"always_off", "", false, false, false},
		{"parentbased_always_on", "", true, true, false},
		{"parentbased_always_off", "", false, true, false},
		{"parentbased_traceidratio", "0", false, true, false},
		{"parentbased_traceidratio", "", true, true, false},
		{"traceidratio", "0", false, false, false},
		{"traceidratio", "1", true, true, true},
		{" TraceIDRatio ", "1.0", true, true, true},
	} {
		s := sampler(t, c.name, c.arg)
		if s.Root() != c.root || s.Child(yes, true) != c.asked || s.Child(no, true) != c.unasked {
			t.Errorf(
				"%s %s: root %v, asked %v, unasked %v",
				c.name,
				c.arg,
				s.Root(),
				s.Child(yes, true),
				s.Child(no, true),
			)
		}
	}
	if s := sampler(t, "traceidratio", "0.5"); s.Child(rare, true) || !s.Child(common, true) {
		t.Error("a ratio does not go by the id of the trace, as other services do")
	}
	if s := sampler(t, "parentbased_always_off", ""); s.Child(yes, false) {
		t.Error("a caller that is not believed has its call traced")
	}
	if s := sampler(t, "parentbased_always_on", ""); !s.Child(yes, false) || s.Child(no, false) {
		t.Error("a caller that is not believed is treated otherwise than a new trace")
	}
}

func TestARatioIsThatOfAllCalls(t *testing.T) {
	t.Parallel()
	const calls, ratio = 400_000, 0.01
	s, n := sampler(t, "parentbased_traceidratio", "0.01"), 0
	for range calls {
		if s.Root() {
			n++
		}
	}
	// Eight standard deviations: it never fails by chance.
	if spread := 8 * math.Sqrt(calls*ratio*(1-ratio)); math.Abs(float64(n)-calls*ratio) > spread {
		t.Errorf("%d of %d calls are sampled, want %v within %v", n, calls, calls*ratio, spread)
	}
}

// TestSkipsChooseAsManyAsDecisions counts how many traces are chosen by skipping, for a ratio and for all or none.
func TestSkipsChooseAsManyAsDecisions(t *testing.T) {
	t.Parallel()
	const calls, ratio = 400_000, 0.01
	s, n := sampler(t, "parentbased_traceidratio", "0.01"), 0
	for at := s.Skip(); at < calls; at += 1 + s.Skip() {
		n++
	}
	if spread := 8 * math.Sqrt(calls*ratio*(1-ratio)); math.Abs(float64(n)-calls*ratio) > spread {
		t.Errorf("%d of %d calls are chosen, want %v within %v", n, calls, calls*ratio, spread)
	}
	if n := sampler(t, "always_on", "").Skip(); n != 0 {
		t.Errorf("a sampler that chooses all skips %d", n)
	}
	if n := sampler(t, "traceidratio", "0").Skip(); n != math.MaxUint64 {
		t.Errorf("a sampler that chooses none skips %d", n)
	}
}

func TestTheDecisionAllocatesNothing(t *testing.T) {
	s := sampler(t, "parentbased_traceidratio", "0.01")
	parent := tracecontext.Parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	if n := testing.AllocsPerRun(1000, func() {
		s.Root()
		s.Skip()
		s.Child(parent, true)
		tracecontext.Parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	}); n != 0 {
		t.Errorf("a decision allocates %v times", n)
	}
}

func TestNothingIsSentUnlessAVariableSaysSo(t *testing.T) {
	t.Parallel()
	for variables, want := range map[string]string{
		"": "", "OTEL_SERVICE_NAME=x OTEL_TRACES_SAMPLER=always_on": "",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1":                            "traces metrics",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://127.0.0.1:1":                     "traces",
		"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://127.0.0.1:1":                    "metrics",
		"OTEL_TRACES_EXPORTER=otlp":                                                 "traces",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1 OTEL_METRICS_EXPORTER=none": "traces",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1 OTEL_SDK_DISABLED=true":     "",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1 OTEL_TRACES_EXPORTER=none":  "metrics",
		"OTEL_TRACES_EXPORTER=otlp OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf":       "traces",
	} {
		env := map[string]string{}
		for v := range strings.FieldsSeq(variables) {
			name, value, _ := strings.Cut(v, "=")
			env[name] = value
		}
		s, err := New(t.Context(), Config{Getenv: func(name string) string { return env[name] }})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		if s.Tracer() != nil {
			got = append(got, "traces")
		}
		if s.metrics {
			got = append(got, "metrics")
		}
		if strings.Join(got, " ") != want {
			t.Errorf("with %q %q are sent, want %q", variables, got, want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
