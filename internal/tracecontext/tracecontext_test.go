package tracecontext_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"patd/internal/tracecontext"
)

const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestOnlyAValidParentIsRead(t *testing.T) {
	t.Parallel()
	for text, valid := range map[string]bool{
		good:                                true,
		strings.TrimSuffix(good, "1") + "0": true,
		"01" + good[2:] + "-later":          true,
		"01" + good[2:]:                     true,
		"":                                  false,
		good + "-more":                      false,
		"ff" + good[2:]:                     false,
		"01" + good[2:] + "later":           false,
		strings.ToUpper(good):               false,
		good[:54]:                           false,
		strings.Replace(good, "-", "_", 1):  false,
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01": false,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01": false,
		"00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01": false,
	} {
		if got := tracecontext.Parse(text); got.Valid() != valid {
			t.Errorf("Parse(%q) = %+v, want valid: %v", text, got, valid)
		}
	}
}

func TestAParentIsWrittenAsItWasRead(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]`).Draw(t, "parent")
		if c := tracecontext.Parse(text); c.Valid() && c.Parent() != text {
			t.Errorf("%q is written as %q", text, c.Parent())
		}
		tracecontext.Parse(rapid.String().Draw(t, "anything")) // without a panic
	})
}

func TestAContextPassesItsTraceOn(t *testing.T) {
	t.Parallel()
	h := http.Header{}
	tracecontext.Inject(context.Background(), h)
	if len(h) > 0 {
		t.Errorf("a context without a trace gives %v", h)
	}
	c := tracecontext.Parse(good)
	c.State = "vendor=1"
	tracecontext.Inject(context.WithoutCancel(tracecontext.With(context.Background(), c)), h)
	if h.Get("Traceparent") != good || h.Get("Tracestate") != "vendor=1" {
		t.Errorf("the headers are %v", h)
	}
}
