package manage_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"

	"patd/client/manage"
	patdv1 "patd/gen/patd/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func count[T any](t *testing.T, all func(func(T, error) bool)) (n int) {
	t.Helper()
	for _, err := range all {
		must(t, err)
		n++
	}
	return n
}

// TestACallWhoseAnswerIsLostIsMadeOnce loses the answers of calls that make secrets.
func TestACallWhoseAnswerIsLostIsMadeOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.hold("alice", "read")
	r.lossy.lose(1, 2)
	made, err := r.patd.Tokens.CreateToken(
		t.Context(),
		&patdv1.CreateTokenRequest{User: "alice", Name: "ci", Scopes: []string{"read"}},
	)
	must(t, err)
	if r.lossy.tried() != 4 || made.GetSecret() == "" {
		t.Errorf("%d attempts, secret %t", r.lossy.tried(), made.GetSecret() != "")
	}
	if n := count(t, r.patd.EachToken(t.Context(), &patdv1.ListTokensRequest{User: "alice"})); n != 1 {
		t.Errorf("%d tokens", n)
	}
	r.lossy.lose(0, 2)
	rotated, err := r.patd.Tokens.RotateToken(
		t.Context(),
		&patdv1.RotateTokenRequest{User: "alice", TokenId: made.GetToken().GetTokenId()},
	)
	must(t, err)
	if r.lossy.tried() != 3 || rotated.GetSecret() == "" || rotated.GetSecret() == made.GetSecret() {
		t.Errorf("a rotation: %d attempts", r.lossy.tried())
	}
	r.lossy.lose(0, 1)
	service, err := r.patd.Services.CreateService(
		t.Context(),
		&patdv1.CreateServiceRequest{Name: "gateway", Permissions: []string{"introspect"}},
	)
	must(t, err)
	if service.GetSecret() == "" {
		t.Error("a service without its secret")
	}
	r.lossy.lose(0, 1)
	_, err = r.patd.Tokens.RevokeToken(
		t.Context(),
		&patdv1.RevokeTokenRequest{User: "alice", TokenId: made.GetToken().GetTokenId()},
	)
	must(t, err)
}

// TestALostCallCanBeMadeLater gives up, and makes the call again with the key that the error has.
func TestALostCallCanBeMadeLater(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.hold("alice", "read")
	r.lossy.lose(0, 100)
	once := manage.New(r.lossy, manage.Config{Attempts: 2})
	q := &patdv1.CreateTokenRequest{User: "alice", Name: "ci", Scopes: []string{"read"}}
	_, err := once.Tokens.CreateToken(t.Context(), q)
	var failed *manage.Error
	if !errors.As(err, &failed) || failed.Code != codes.Unavailable || failed.Attempts != 2 ||
		failed.IdempotencyKey == "" {
		t.Fatalf("it failed with %+v", err)
	}
	if strings.Contains(err.Error(), failed.IdempotencyKey) || q.GetRequestId() != "" {
		t.Errorf("the key is in the text, or in the caller's request: %v", err)
	}
	r.lossy.lose(0, 0)
	q.RequestId = failed.IdempotencyKey
	made, err := r.patd.Tokens.CreateToken(t.Context(), q)
	must(t, err)
	if n := count(
		t,
		r.patd.EachToken(t.Context(), &patdv1.ListTokensRequest{User: "alice"}),
	); n != 1 ||
		made.GetSecret() == "" {
		t.Errorf("%d tokens", n)
	}
}

func TestErrorsHaveTheReasonsOfPatd(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.hold("alice", "read")
	_, err := r.patd.Tokens.CreateToken(
		t.Context(),
		&patdv1.CreateTokenRequest{User: "alice", Name: "ci", Scopes: []string{"read", "write"}},
	)
	var failed *manage.Error
	switch {
	case !errors.Is(err, manage.ScopeNotHeld) || errors.Is(err, manage.NotFound) || !errors.As(err, &failed):
		t.Fatalf("it failed with %v", err)
	case failed.Code != codes.InvalidArgument || failed.Attempts != 1 || failed.RequestID == "" || len(failed.Violations) != 1 || status.Code(err) != failed.Code:
		t.Errorf("it failed with %+v", failed)
	case manage.ReasonOf(fmt.Errorf("mint: %w", err)) != manage.ScopeNotHeld || manage.ReasonOf(errors.New("x")) != "":
		t.Error("the reason is lost in a wrapped error")
	}
	_, err = r.patd.Tokens.GetToken(t.Context(), &patdv1.GetTokenRequest{User: "alice", TokenId: "15ODq7pq8Hy"})
	if !errors.Is(err, manage.NotFound) {
		t.Errorf("an unknown token: %v", err)
	}
}

// TestReasonsStandInThePage holds that each constant is a reason that patd has.
func TestReasonsStandInThePage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/api.md")
	must(t, err)
	source, err := os.ReadFile("errors.go")
	must(t, err)
	found := regexp.MustCompile(`Reason = "([A-Z_]+)"`).FindAllSubmatch(source, -1)
	for _, m := range found {
		if !strings.Contains(string(page), "`"+string(m[1])+"`") {
			t.Errorf("docs/api.md does not know %s", m[1])
		}
	}
	if len(found) < 15 {
		t.Errorf("%d reasons", len(found))
	}
}

func TestIteratorsReadEveryPage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var users []string
	for i := range 23 {
		user := fmt.Sprintf("user-%02d", i)
		users = append(users, user)
		r.hold(user, "read")
	}
	q := &patdv1.ListUsersRequest{PageSize: 5}
	var got []string
	r.lossy.lose(0, 3)
	for user, err := range r.patd.EachUser(t.Context(), q) {
		must(t, err)
		got = append(got, user.GetUser())
	}
	slices.Sort(got)
	if !slices.Equal(got, users) || q.GetPageToken() != "" {
		t.Errorf("got %q, and the request is %v", got, q)
	}
	r.lossy.lose(0, 0)
	for range r.patd.EachUser(t.Context(), q) {
		break
	}
	if r.lossy.tried() != 1 {
		t.Errorf("a loop that ends reads %d pages", r.lossy.tried())
	}
	var last error
	for _, last = range r.patd.EachToken(t.Context(), &patdv1.ListTokensRequest{User: "\x00"}) {
		continue
	}
	if last == nil {
		t.Error("a list that fails ends without a word")
	}
	for name, n := range map[string]int{
		"features":  count(t, r.patd.EachFeature(t.Context(), &patdv1.ListFeaturesRequest{})),
		"audiences": count(t, r.patd.EachAudience(t.Context(), &patdv1.ListAudiencesRequest{})),
		"webhooks":  count(t, r.patd.EachWebhook(t.Context(), &patdv1.ListWebhooksRequest{})),
		"matches":   count(t, r.patd.EachMatch(t.Context(), &patdv1.SearchTokensRequest{})),
	} {
		if n != 0 {
			t.Errorf("%d %s", n, name)
		}
	}
	if n := count(t, r.patd.EachEvent(t.Context(), &patdv1.ListEventsRequest{PageSize: 7})); n < 23 {
		t.Errorf("%d events", n)
	}
	if n := count(t, r.patd.EachService(t.Context(), &patdv1.ListServicesRequest{})); n != 1 {
		t.Errorf("%d services", n)
	}
}

// script is a connection that answers as it is told.
type script struct {
	grpc.ClientConnInterface
	invoke func(ctx context.Context, method string, args any) error
}

func (s script) Invoke(ctx context.Context, method string, args, _ any, _ ...grpc.CallOption) error {
	return s.invoke(ctx, method, args)
}

var uuid4 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// TestEveryCallThatMakesASecretHasAKey calls each method of the contract whose request takes an idempotency key.
func TestEveryCallThatMakesASecretHasAKey(t *testing.T) {
	t.Parallel()
	methods := 0
	protoregistry.GlobalFiles.RangeFilesByPackage("patd.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			for j := range file.Services().Get(i).Methods().Len() {
				m := file.Services().Get(i).Methods().Get(j)
				field := m.Input().Fields().ByName("request_id")
				if field == nil {
					continue
				}
				methods++
				kind, err := protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName())
				must(t, err)
				var keys []string
				conn := manage.Safe(script{invoke: func(_ context.Context, _ string, args any) error {
					keys = append(keys, args.(proto.Message).ProtoReflect().Get(field).String())
					return errLost
				}}, manage.Config{Attempts: 2, MaxPause: time.Millisecond})
				for range 2 {
					_ = conn.Invoke(t.Context(), string(m.FullName()), kind.New().Interface(), nil)
				}
				if len(keys) != 4 || keys[0] != keys[1] || keys[2] != keys[3] || keys[0] == keys[2] ||
					!uuid4.MatchString(keys[0]) {
					t.Errorf("%s: %q", m.FullName(), keys)
				}
				theirs := kind.New()
				theirs.Set(field, protoreflect.ValueOfString("their own key, which is long"))
				_ = conn.Invoke(t.Context(), string(m.FullName()), theirs.Interface(), nil)
				ctx := metadata.AppendToOutgoingContext(t.Context(), "idempotency-key", "theirs")
				_ = conn.Invoke(ctx, string(m.FullName()), kind.New().Interface(), nil)
				if keys[4] != "their own key, which is long" || keys[6] != "" {
					t.Errorf("%s, with a key of the caller's: %q", m.FullName(), keys[4:])
				}
			}
		}
		return true
	})
	if methods < 7 {
		t.Errorf("%d methods take a key", methods)
	}
}

func failing(code codes.Code, details ...protoadapt.MessageV1) error {
	st, err := status.New(code, "no").WithDetails(details...)
	if err != nil {
		panic(err)
	}
	return st.Err()
}

// TestCallsAreRepeatedWhereThatMayHelp counts attempts, and how long they take in all.
func TestCallsAreRepeatedWhereThatMayHelp(t *testing.T) {
	t.Parallel()
	retry := func(d time.Duration) protoadapt.MessageV1 {
		return protoadapt.MessageV1Of(&errdetails.RetryInfo{RetryDelay: durationpb.New(d)})
	}
	for name, c := range map[string]struct {
		err      error
		attempts int
		least    time.Duration
		most     time.Duration
	}{
		"patd is out":         {failing(codes.Unavailable), 5, 750 * time.Millisecond, 1500 * time.Millisecond},
		"it takes too long":   {failing(codes.DeadlineExceeded), 5, 750 * time.Millisecond, 1500 * time.Millisecond},
		"it comes too often":  {failing(codes.ResourceExhausted, retry(3*time.Second)), 5, 12 * time.Second, 13 * time.Second},
		"it is far too often": {failing(codes.ResourceExhausted, retry(time.Minute)), 1, 0, 0},
		"a limit is reached":  {failing(codes.ResourceExhausted), 1, 0, 0},
		"it is wrong":         {failing(codes.InvalidArgument), 1, 0, 0},
		"it is not allowed":   {failing(codes.PermissionDenied), 1, 0, 0},
		"it was changed":      {failing(codes.Aborted), 1, 0, 0},
		"it is a fault":       {failing(codes.Internal), 1, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, began := 0, time.Now()
				conn := manage.Safe(
					script{invoke: func(context.Context, string, any) error { n++; return c.err }},
					manage.Config{},
				)
				err := conn.Invoke(
					t.Context(),
					"/patd.v1.UserService/GetUser",
					&patdv1.GetUserRequest{},
					&patdv1.GetUserResponse{},
				)
				var failed *manage.Error
				if took := time.Since(
					began,
				); !errors.As(err, &failed) || n != c.attempts || failed.Attempts != n || took < c.least ||
					took > c.most {
					t.Errorf("%d attempts in %s: %+v", n, took, err)
				}
			})
		})
	}
	t.Run("the caller goes away", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			conn := manage.Safe(
				script{invoke: func(context.Context, string, any) error { return errLost }},
				manage.Config{Attempts: 1000},
			)
			began := time.Now()
			err := conn.Invoke(ctx, "/patd.v1.UserService/GetUser", &patdv1.GetUserRequest{}, &patdv1.GetUserResponse{})
			if took := time.Since(began); err == nil || took > 200*time.Millisecond {
				t.Errorf("%v after %s", err, took)
			}
		})
	})
	t.Run("an attempt hangs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := 0
			conn := manage.Safe(script{invoke: func(ctx context.Context, _ string, _ any) error {
				if n++; n == 1 {
					<-ctx.Done()
					return status.FromContextError(ctx.Err()).Err()
				}
				return nil
			}}, manage.Config{AttemptTimeout: time.Second})
			must(
				t,
				conn.Invoke(
					t.Context(),
					"/patd.v1.UserService/GetUser",
					&patdv1.GetUserRequest{},
					&patdv1.GetUserResponse{},
				),
			)
			if n != 2 {
				t.Errorf("%d attempts", n)
			}
		})
	})
}
