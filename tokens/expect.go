package tokens

import (
	"context"
	"fmt"
	"strconv"
)

type countKey struct{}

// WithCount returns a context in which a change that ends much is made only if it ends exactly n: the number that its
// caller was shown beforehand. It is checked with the change. It applies to SuspendUser, DeleteUser, RevokeService,
// BlockTokens, UnblockTokens, BulkRevoke, and to ReplaceAudience where that begins to refuse tokens that name no
// audience.
func WithCount(ctx context.Context, n int64) context.Context {
	return context.WithValue(ctx, countKey{}, n)
}

// counts reports whether a change must end a given number.
func counts(ctx context.Context) bool {
	_, ok := ctx.Value(countKey{}).(int64)
	return ok
}

// expectCount refuses a change that would end another number than its caller expects. The error is COUNT_CHANGED, and
// its metadata has the number.
func expectCount(ctx context.Context, n int64) error {
	want, ok := ctx.Value(countKey{}).(int64)
	if !ok || want == n {
		return nil
	}
	e := Fail(CodeAborted, "COUNT_CHANGED", fmt.Sprintf("nothing was changed: it would be %d, and not %d", n, want))
	e.Metadata = map[string]string{"count": strconv.FormatInt(n, 10)}
	return e
}
