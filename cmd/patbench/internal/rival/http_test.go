package rival

import "testing"

// TestAnswersAreChecked holds that an answer about another token, one that refuses, and none do not pass.
func TestAnswersAreChecked(t *testing.T) {
	want := []string{`"id":"s.one"`, `"user":"user-0000001"`, `"reports.read"`}
	for answer, pass := range map[string]bool{
		`{"data":{"id":"s.one","meta":{"user":"user-0000001"},"policies":["default","reports.read"]}}`: true,
		`{"data":{"id":"s.two","meta":{"user":"user-0000001"},"policies":["default","reports.read"]}}`: false,
		`{"data":{"id":"s.one","meta":{"user":"user-0000001"},"policies":["default"]}}`:                false,
		`{"errors":["bad token"]}`: false,
		``:                         false,
	} {
		if err := holds([]byte(answer), want); (err == nil) != pass {
			t.Errorf("%q: %v", answer, err)
		}
	}
}
