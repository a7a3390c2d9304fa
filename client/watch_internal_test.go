package client

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	patdv1 "patd/gen/patd/v1"
)

// script is a server whose one watch says what is written here, each after a while of a clock of its own.
type script struct {
	patdv1.IntrospectionServiceClient
	grpc.ServerStreamingClient[patdv1.WatchInvalidationsResponse]
	now   time.Time
	lines []said
	// heard is called after each line was taken in.
	heard func(next int)
	at    int
	asked *patdv1.WatchInvalidationsRequest
}

type said struct {
	after time.Duration
	news  *patdv1.WatchInvalidationsResponse
}

func (s *script) WatchInvalidations(
	_ context.Context,
	r *patdv1.WatchInvalidationsRequest,
	_ ...grpc.CallOption,
) (grpc.ServerStreamingClient[patdv1.WatchInvalidationsResponse], error) {
	s.asked, s.at = r, 0
	return s, nil
}

func (s *script) Recv() (*patdv1.WatchInvalidationsResponse, error) {
	if s.at > 0 && s.heard != nil {
		s.heard(s.at)
	}
	if s.at == len(s.lines) {
		return nil, io.EOF
	}
	l := s.lines[s.at]
	s.at++
	s.now = s.now.Add(l.after)
	return l.news, nil
}

func (*script) Header() (metadata.MD, error) { return metadata.MD{}, nil }

// watching is a watcher of a script, with a memory that holds one answer.
func watching(s *script) *watcher {
	s.now = start
	m := newMemory(10, 64<<20, start)
	m.keep(activeEntry(1, "t", "u"), ticket{sent: start}, 50)
	return &watcher{rpc: s, memory: m, now: func() time.Time { return s.now }, log: slog.New(slog.DiscardHandler)}
}

func quiet(sequence uint64) *patdv1.WatchInvalidationsResponse {
	return &patdv1.WatchInvalidationsResponse{Sequence: sequence, History: "h"}
}

func news(sequence uint64, users ...string) *patdv1.WatchInvalidationsResponse {
	m := quiet(sequence)
	m.Users = users
	return m
}

func TestWatchThatBeginsForgetsWhatWasBefore(t *testing.T) {
	s := &script{lines: []said{{0, quiet(40)}}}
	w := watching(s)
	_ = w.watch(t.Context())
	if w.memory.recall(keyOf(1), s.now) != nil {
		t.Error("an answer from before the watch is used: nobody told what changed between the two")
	}
	if w.sequence != 40 || w.history != "h" {
		t.Errorf("it would be resumed at %d of %q", w.sequence, w.history)
	}
}

func TestResumedWatchIsTrustedOnceItHasCaughtUp(t *testing.T) {
	s := &script{lines: []said{
		{
			0,
			news(60, "a"),
		},
		{time.Millisecond, news(70, "b")},
		{time.Millisecond, quiet(70)},
		{time.Millisecond, news(71, "c")},
	}}
	w := watching(s)
	w.sequence, w.history = 50, "g"
	s.heard = func(n int) {
		if got, want := w.memory.trusted(s.now), n >= 3; got != want {
			t.Errorf("after message %d memory may be used: %v", n, got)
		}
	}
	_ = w.watch(t.Context())
	if s.asked.GetAfter() != 50 || s.asked.GetHistory() != "g" {
		t.Errorf("resumed at %v", s.asked)
	}
	if w.memory.recall(keyOf(1), s.now) == nil {
		t.Error("what nothing was told of is not used again")
	}
}

// TestAResumedWatchDropsAnswersThatAreNewerThanItself: a server that was restored from before such an answer shares the
// history up to where the watch was.
func TestAResumedWatchDropsAnswersThatAreNewerThanItself(t *testing.T) {
	s := &script{lines: []said{{0, quiet(49)}}}
	w := watching(s)
	w.sequence, w.history = 49, "g"
	under := w.memory.ticket(start)
	_ = w.watch(t.Context())
	if !w.memory.trusted(s.now) || w.memory.recall(keyOf(1), s.now) != nil {
		t.Error("an answer that rests on a change which the watch never received is used")
	}
	if !w.memory.keep(activeEntry(2, "t", "u"), under, 50) || w.memory.recall(keyOf(2), s.now) != nil {
		t.Error("an answer of before is kept")
	}
	if w.memory.keep(activeEntry(3, "t", "u"), w.memory.ticket(start), 50) || w.memory.recall(keyOf(3), s.now) == nil {
		t.Error("an answer of the server that was restored is not kept")
	}
}

// While the server says that more changes follow, memory stays closed, however long they take.
func TestMemoryStaysClosedWhileMoreChangesFollow(t *testing.T) {
	s := &script{}
	for i := range uint64(6) {
		m := news(60+i, "a")
		m.More = i < 5
		s.lines = append(s.lines, said{500 * time.Millisecond, m})
	}
	w := watching(s)
	w.sequence, w.history = 50, "g"
	s.heard = func(n int) {
		if got, want := w.memory.trusted(s.now), n == 6; got != want {
			t.Errorf("after message %d memory may be used: %v", n, got)
		}
	}
	_ = w.watch(t.Context())
}

// A server that is never quiet has told all that was missed after a while.
func TestResumedWatchOfABusyServerIsTrusted(t *testing.T) {
	s := &script{}
	for i := range uint64(30) {
		s.lines = append(s.lines, said{50 * time.Millisecond, news(60+i, "a")})
	}
	w := watching(s)
	w.sequence, w.history = 50, "g"
	_ = w.watch(t.Context())
	if !w.memory.trusted(s.now) {
		t.Error("it is not trusted after a second and a half")
	}
}

// The first message may be as old as the question.
func TestFirstMessageIsAsOldAsItsQuestion(t *testing.T) {
	s := &script{lines: []said{{2500 * time.Millisecond, quiet(60)}}}
	w := watching(s)
	w.sequence = 50
	_ = w.watch(t.Context())
	if !w.memory.trusted(start.Add(silence-1)) || w.memory.trusted(start.Add(silence)) {
		t.Error("memory may be used for longer than 3 seconds after the question")
	}
}

// Heartbeats leave once a second. What comes slower is held up somewhere, more and more; no single pause shows it.
func TestWatchThatLagsIsLeft(t *testing.T) {
	s := &script{}
	for i := range uint64(20) {
		s.lines = append(s.lines, said{1750 * time.Millisecond, quiet(60 + i)})
	}
	w := watching(s)
	w.sequence = 50
	if err := w.watch(t.Context()); err == nil || s.at >= 6 {
		t.Errorf("it is left after %d messages: %v", s.at, err)
	}
	s = &script{lines: []said{{0, quiet(60)}, {2250 * time.Millisecond, quiet(61)}}}
	w = watching(s)
	w.sequence = 50
	_ = w.watch(t.Context())
	if w.memory.trusted(s.now.Add(silence - time.Second)) {
		t.Error("a message that was held up for a second counts as new")
	}
	s = &script{}
	for i := range uint64(600) {
		s.lines = append(s.lines, said{time.Duration(900+i%2*200) * time.Millisecond, quiet(60 + i)})
	}
	w = watching(s)
	w.sequence = 50
	if _ = w.watch(t.Context()); s.at != len(s.lines) || !w.memory.trusted(s.now) {
		t.Errorf("a watch with some jitter is left after %d messages", s.at)
	}
}

// elapsed is a heartbeat that the server made when so much of the stream had elapsed.
func elapsed(d time.Duration) *patdv1.WatchInvalidationsResponse {
	m := quiet(60)
	m.ElapsedMs = uint32(d.Milliseconds())
	return m
}

// TestAMessageIsAsOldAsTheServerSays: a pipe that grows by a fifth of a second with each heartbeat holds up none of
// them for long, and one that was slow from the start holds up all alike. No pause between two messages shows it.
func TestAMessageIsAsOldAsTheServerSays(t *testing.T) {
	for name, pipe := range map[string]func(made time.Duration) (late time.Duration){
		"a pipe that grows": func(made time.Duration) time.Duration { return made / 5 },
		"a pipe that is slow from the second message on": func(made time.Duration) time.Duration {
			return min(made, 1400*time.Millisecond)
		},
	} {
		s := &script{}
		var came time.Duration
		for made := time.Duration(0); made < time.Minute; made += time.Second {
			at := made + pipe(made)
			s.lines = append(s.lines, said{at - came, elapsed(made)})
			came = at
		}
		w := watching(s)
		w.sequence = 50
		s.heard = func(n int) {
			made := start.Add(time.Duration(n-1) * time.Second)
			if w.memory.trusted(made.Add(silence)) {
				t.Errorf("%s: memory may be used 3 s after message %d was made", name, n)
			}
			if !w.memory.trusted(made.Add(silence - 1)) {
				t.Errorf("%s: memory may not be used before message %d is 3 s old", name, n)
			}
		}
		err := w.watch(t.Context())
		if left := s.at < len(s.lines); left != (name == "a pipe that grows") {
			t.Errorf("%s: left after %d messages: %v", name, s.at, err)
		}
	}
}

// TestAClockThatJumpsEndsAWatch: when the stream was requested is no longer a time of today's clock.
func TestAClockThatJumpsEndsAWatch(t *testing.T) {
	s := &script{
		lines: []said{
			{0, elapsed(0)},
			{time.Second, elapsed(time.Second)},
			{time.Second, elapsed(2 * time.Second)},
			{time.Second, elapsed(3 * time.Second)},
		},
	}
	w := watching(s)
	w.sequence = 50
	now := w.now
	ahead := time.Duration(0)
	w.now = func() time.Time { return now().Add(ahead) }
	s.heard = func(n int) {
		if n == 2 {
			ahead = time.Hour
		}
	}
	if err := w.watch(t.Context()); err == nil || s.at != 3 {
		t.Errorf("the watch goes on: %d messages, %v", s.at, err)
	}
	m := newMemory(10, 64<<20, start)
	m.heard(start.Add(time.Hour), start) // a machine that slept for an hour has counted no time since it asked
	if !m.trusted(start) || m.trusted(start.Add(silence)) {
		t.Error("memory may be used for an hour after a message")
	}
}

func TestAnswerFromBeforeStartingOverIsNotKept(t *testing.T) {
	m := newMemory(10, 64<<20, start)
	m.heard(start, start)
	before := m.ticket(start)
	m.apply(quiet(10), true) // another history, whose numbers are smaller
	if !m.keep(activeEntry(1, "t", "u"), before, 9000) || m.recall(keyOf(1), start) != nil {
		t.Error("an answer of the old history is kept in the new one")
	}
}
