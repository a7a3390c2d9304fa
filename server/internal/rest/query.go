package rest

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"patd/server/internal/httpx"
	"patd/tokens"
)

// queryParser rejects parameters that the request does not have: a misspelled filter would otherwise widen a list. An
// entry of a map is a parameter of its own, as in label.team=a.
type queryParser struct{ runtime.DefaultQueryParser }

var _ runtime.QueryParameterParser = (*queryParser)(nil)

// Parse reads a query into a request.
func (p *queryParser) Parse(msg proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	fields := msg.ProtoReflect().Descriptor().Fields()
	names := slices.Sorted(maps.Keys(values))
	values = maps.Clone(values)
	for _, name := range names {
		f := fields.ByName(protoreflect.Name(name))
		if of, key, ok := strings.Cut(name, "."); f == nil && ok {
			if f = fields.ByName(
				protoreflect.Name(of),
			); f == nil || !isTextMap(f) ||
				filter.HasCommonPrefix([]string{of}) {
				return unknownParameter(of, parameters(fields, filter))
			}
			if len(values[name]) != 1 {
				return badParameter(name, f, len(values[name]))
			}
			msg.ProtoReflect().
				Mutable(f).
				Map().
				Set(protoreflect.ValueOfString(key).MapKey(), protoreflect.ValueOfString(values[name][0]))
			delete(values, name)
			continue
		}
		if f == nil || f.Message() != nil && !isTime(f) || filter.HasCommonPrefix([]string{name}) {
			return unknownParameter(name, parameters(fields, filter))
		}
	}
	names = slices.Sorted(maps.Keys(values))
	if p.DefaultQueryParser.Parse(msg, values, filter) == nil {
		return nil
	}
	for _, name := range names { // find the faulty one
		if p.DefaultQueryParser.Parse(
			msg.ProtoReflect().New().Interface(),
			url.Values{name: values[name]},
			filter,
		) != nil {
			return badParameter(name, fields.ByName(protoreflect.Name(name)), len(values[name]))
		}
	}
	return queryError{"QUERY_INVALID", "", "the path or query is not valid"}
}

func isTextMap(f protoreflect.FieldDescriptor) bool {
	return f.IsMap() && f.MapKey().Kind() == protoreflect.StringKind && f.MapValue().Kind() == protoreflect.StringKind
}

func isTime(f protoreflect.FieldDescriptor) bool {
	return f.Message() != nil &&
		f.Message().FullName() == (&timestamppb.Timestamp{}).ProtoReflect().Descriptor().FullName() &&
		!f.IsList()
}

// queryError is the error of a query. The gateway passes on only its text, so the text is its JSON form.
type queryError struct {
	Reason string `json:"patd_reason"`
	Field  string `json:"field"`
	Text   string `json:"text"`
}

func (e queryError) Error() string {
	text, err := json.Marshal(e)
	if err != nil {
		return "the path or query is not valid"
	}
	return string(text)
}

// parameters returns the names of the query parameters that a message has.
func parameters(fields protoreflect.FieldDescriptors, filter *utilities.DoubleArray) []string {
	var names []string
	for i := range fields.Len() {
		f := fields.Get(i)
		name := string(f.Name())
		if isTextMap(f) {
			name += ".KEY"
		}
		if (f.Message() == nil || isTime(f) || isTextMap(f)) && !filter.HasCommonPrefix([]string{string(f.Name())}) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// unknownParameter returns the error for a parameter that a call does not take. known are those that it takes.
func unknownParameter(name string, known []string) error {
	text := "this call takes no query parameters"
	if len(known) > 0 {
		text = "the query parameters here are " + strings.Join(known, ", ")
	}
	if !httpx.SafeName(name) {
		return queryError{"QUERY_UNKNOWN", "", "no such query parameter; " + text}
	}
	return queryError{"QUERY_UNKNOWN", name, "there is no query parameter " + name + "; " + text}
}

// badParameter returns the error for a parameter that is given more than once, or with a value that it cannot have.
func badParameter(name string, f protoreflect.FieldDescriptor, given int) error {
	field := string(f.Name())
	if !httpx.SafeName(name) {
		name = field
	}
	if given > 1 && !f.IsList() {
		return queryError{"QUERY_INVALID", field, name + " is given more than once"}
	}
	must := "a text"
	switch {
	case isTime(f):
		must = "a time such as 2027-01-31T12:00:00Z"
	case f.Enum() != nil:
		must = "one of " + strings.Join(enumNames(f.Enum()), ", ") + ", in capitals"
	case f.Kind() == protoreflect.BoolKind:
		must = "true or false"
	case f.Kind() != protoreflect.StringKind:
		must = "a whole number in its range"
	}
	return queryError{"QUERY_INVALID", field, name + " must be " + must}
}

// enumNames returns the names of an enum's values, except the one that stands for none.
func enumNames(e protoreflect.EnumDescriptor) []string {
	var names []string
	for i := range e.Values().Len() {
		if v := e.Values().Get(i); v.Number() != 0 {
			names = append(names, string(v.Name()))
		}
	}
	return names
}

// queryOrBody rejects a query next to a body. If the body is the request, the gateway would silently ignore the query:
// a client that sends ?ttl= would get the default.
func queryOrBody(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, params map[string]string) {
		switch r.Method {
		case http.MethodPost, http.MethodPut, http.MethodPatch:
			for _, name := range slices.Sorted(maps.Keys(r.URL.Query())) {
				answerError(
					r.Context(),
					nil,
					nil,
					w,
					r,
					status.Error(codes.InvalidArgument, unknownParameter(name, nil).Error()),
				)
				return
			}
		}
		next(w, r, params)
	}
}

// unreadable returns the error of a path or query that could not be read, from the text that the gateway passed on. The
// gateway's own texts repeat the input and are not used.
func unreadable(text string) *tokens.Error {
	var e queryError
	if err := json.Unmarshal([]byte(text), &e); err == nil && e.Reason != "" {
		return tokens.Invalid(e.Reason, e.Field, e.Text)
	}
	return tokens.Invalid("QUERY_INVALID", "", "the path or query is not valid")
}
