package server_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"strings"
	"sync"
)

// logBuffer keeps what was logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}

// find returns the logged lines that hold all the given attributes.
func (l *logBuffer) find(want map[string]any) []map[string]any {
	var found []map[string]any
	for line := range strings.Lines(l.String()) {
		var got map[string]any
		if json.Unmarshal([]byte(line), &got) != nil {
			continue
		}
		same := maps.Clone(got)
		maps.DeleteFunc(same, func(k string, v any) bool { w, ok := want[k]; return !ok || w != v })
		if len(same) == len(want) {
			found = append(found, got)
		}
	}
	return found
}
