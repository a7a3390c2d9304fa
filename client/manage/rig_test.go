package manage_test

import (
	"context"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"patd/client"
	"patd/client/manage"
	patdv1 "patd/gen/patd/v1"
	"patd/internal/patdtest"
	"patd/internal/servicetest"
	"patd/tokens"
)

// rig is a real patd, and a Client whose connection fails when a test says so.
type rig struct {
	*testing.T
	service *tokens.Service
	lossy   *lossy
	patd    *manage.Client
}

func newRig(t *testing.T) *rig {
	t.Helper()
	p := patdtest.Start(t, servicetest.Options{}, nil)
	admin := p.ServiceAccount(t, "admin", "admin")
	credential := client.ServiceToken(func(context.Context) (string, error) { return admin, nil })
	conn, err := client.Dial(p.Server.GRPCAddr(), credential)
	must(t, err)
	t.Cleanup(func() { must(t, conn.Close()) })
	l := &lossy{ClientConnInterface: conn}
	return &rig{T: t, service: p.Service, lossy: l, patd: manage.New(l, manage.Config{})}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// hold gives a user features.
func (r *rig) hold(user string, names ...string) {
	r.Helper()
	_, err := r.patd.Users.SetUserFeatures(r.Context(), &patdv1.SetUserFeaturesRequest{User: user, Features: names})
	must(r.T, err)
}

// lossy is a connection that loses answers, or requests.
type lossy struct {
	grpc.ClientConnInterface

	mu       sync.Mutex
	answers  int // so many calls are made, and their answers lost
	requests int // so many calls are not made
	made     int // calls that were tried
}

var errLost = status.Error(codes.Unavailable, "the connection was lost")

func (l *lossy) lose(requests, answers int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests, l.answers, l.made = requests, answers, 0
}

func (l *lossy) tried() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.made
}

// Invoke makes a call, or loses it.
func (l *lossy) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	l.mu.Lock()
	l.made++
	request, answer := l.requests > 0, l.requests == 0 && l.answers > 0
	if request {
		l.requests--
	}
	if answer {
		l.answers--
	}
	l.mu.Unlock()
	switch {
	case request:
		return errLost
	case answer:
		_ = l.ClientConnInterface.Invoke(ctx, method, args, proto.Clone(reply.(proto.Message)), opts...)
		return errLost
	}
	return l.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
}
