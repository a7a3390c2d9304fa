package server

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"patd/tokens"
)

// queryParser refuses parameters that the request does not have: a mistyped filter would otherwise widen a list.
type queryParser struct{ runtime.DefaultQueryParser }

var _ runtime.QueryParameterParser = (*queryParser)(nil)

// Parse reads a query into a request.
func (p *queryParser) Parse(msg proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	fields := msg.ProtoReflect().Descriptor().Fields()
	for name := range values {
		f := fields.ByName(protoreflect.Name(name))
		if f != nil && f.Message() == nil && !filter.HasCommonPrefix([]string{name}) {
			continue
		}
		return unknown(name)
	}
	return p.DefaultQueryParser.Parse(msg, values, filter)
}

func unknown(name string) error {
	if !safeName(name) {
		name = ""
	}
	return fmt.Errorf("unknown query parameter %q", name)
}

// queryOrBody refuses a query beside a body. The gateway reads none where the body is the request, and would pass over it in
// silence: who writes ?ttl= there would get the default.
func queryOrBody(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, params map[string]string) {
		switch r.Method {
		case http.MethodPost, http.MethodPut, http.MethodPatch:
			for _, name := range slices.Sorted(maps.Keys(r.URL.Query())) {
				answerError(r.Context(), nil, nil, w, r, status.Error(codes.InvalidArgument, unknown(name).Error()))
				return
			}
		}
		next(w, r, params)
	}
}

var (
	// unknownParameter is what Parse says, and fieldInText finds the name of a field in what the gateway says of a query.
	// It stands before any value.
	unknownParameter = regexp.MustCompile(`^unknown query parameter "([A-Za-z0-9_.]*)"$`)
	fieldInText      = regexp.MustCompile(`field "([a-z_]{1,32})"`)
)

// unreadable is the error of a path or query that could not be read. What the gateway says of it repeats what was sent.
func unreadable(text string) *tokens.Error {
	if m := unknownParameter.FindStringSubmatch(text); m != nil {
		return tokens.Invalid("QUERY_UNKNOWN", m[1], "no such query parameter here")
	}
	m := fieldInText.FindStringSubmatch(text)
	switch {
	case m == nil:
		return tokens.Invalid("QUERY_INVALID", "", "the path or query is not valid")
	case m[1] == "state":
		return tokens.Invalid("QUERY_INVALID", m[1], "given twice, or not a state; states are written in capitals: ACTIVE, EXPIRED, REVOKED for tokens; ACTIVE, SUSPENDED for users")
	default:
		return tokens.Invalid("QUERY_INVALID", m[1], "given twice, or not a value of this parameter")
	}
}
