package call

import (
	"net/http"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// Metadata keys of preconditions and of the tag that answers carry.
const (
	KeyIfMatch           = "if-match"
	KeyIfNoneMatch       = "if-none-match"
	KeyIfUnmodifiedSince = "if-unmodified-since"

	ReasonNotModified = "NOT_MODIFIED"
	// KeyETag is the metadata key of a NOT_MODIFIED that says the present tag.
	KeyETag = "etag"
)

// ConditionHeaders are the headers of RFC 9110 section 13.1 that a change could rest on: none of them is ever passed over.
func ConditionHeaders() []string { return []string{"If-Match", "If-None-Match", "If-Unmodified-Since"} }

// Conditional reports whether a request has a precondition.
func Conditional(h http.Header) bool {
	return slices.ContainsFunc(ConditionHeaders(), func(name string) bool { return len(h[name]) > 0 })
}

// Unconditional is the refusal of a precondition where none is supported.
func Unconditional() *tokens.Error {
	return tokens.Invalid("PRECONDITION_UNSUPPORTED", "", "this call takes no precondition; leave out If-Match, If-None-Match, "+
		"If-Unmodified-Since and etag")
}

// precondition reads what the caller asks of the present state: from the headers, over gRPC the metadata of their names, and
// from the etag of the request. A method that takes none refuses it. asked reports whether there is any.
func precondition(begun *Call, req any) (p tokens.Precondition, asked bool, err error) {
	match, none := begun.Headers(KeyIfMatch), begun.Headers(KeyIfNoneMatch)
	since, field := begun.Headers(KeyIfUnmodifiedSince), requestTag(req)
	switch {
	case len(match)+len(none)+len(since) == 0 && field == "":
		return p, false, nil
	case !begun.Method.Conditional:
		return p, false, Unconditional()
	case len(since) > 0:
		return p, false, tokens.Invalid("PRECONDITION_UNSUPPORTED", "", "If-Unmodified-Since is not supported: patd keeps no time of the last change; use If-Match")
	}
	if p.Match, p.MatchAny, err = readTags(KeyIfMatch, match, false); err != nil {
		return p, false, err
	}
	if p.NoneMatch, p.MatchNone, err = readTags(KeyIfNoneMatch, none, true); err != nil {
		return p, false, err
	}
	if field == "" {
		return p, true, nil
	}
	tag, _, err := readTags("etag", []string{field}, false)
	if err != nil || field == "*" || len(tag) > 1 {
		return p, false, BadTag("etag")
	}
	if p.Match != nil {
		tag = slices.DeleteFunc(tag, func(t string) bool { return !slices.Contains(p.Match, t) })
	}
	p.Match = tag
	return p, true, nil
}

// BadTag is the refusal of a header of preconditions that cannot be read.
func BadTag(field string) *tokens.Error {
	return tokens.Invalid("PRECONDITION_INVALID", field, `must be * or entity tags in quotes, as they were given, joined by commas (RFC 9110 section 8.8.3)`)
}

// readTags reads lists of entity tags; star: the header is `*`. The list is nil where there is no header. By strong comparison
// weak tags are equal to none and left out; by weak comparison their weakness does not count (RFC 9110 section 8.8.3.2).
func readTags(field string, values []string, weakly bool) (tags []string, star bool, err error) {
	if len(values) == 0 {
		return nil, false, nil
	}
	text := strings.Trim(strings.Join(values, ","), " \t,")
	if text == "*" {
		return nil, true, nil
	}
	if text == "" {
		return nil, false, BadTag(field)
	}
	tags = []string{}
	for text != "" {
		rest, weak := strings.CutPrefix(text, "W/")
		if !strings.HasPrefix(rest, `"`) {
			return nil, false, BadTag(field)
		}
		end := strings.IndexByte(rest[1:], '"')
		if end < 0 || strings.ContainsFunc(rest[1:end+1], func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, false, BadTag(field)
		}
		if !weak || weakly {
			tags = append(tags, rest[:end+2])
		}
		rest = strings.TrimLeft(rest[end+2:], " \t")
		if rest != "" && rest[0] != ',' {
			return nil, false, BadTag(field)
		}
		text = strings.TrimLeft(rest, " \t,")
	}
	return tags, false, nil
}

// requestTag is the etag that a request names, in a field of its own or of the record that it writes.
func requestTag(req any) string {
	switch r := req.(type) {
	case interface{ GetEtag() string }:
		return r.GetEtag()
	case interface{ GetToken() *patdv1.Token }:
		return r.GetToken().GetEtag()
	case interface{ GetFeature() *patdv1.Feature }:
		return r.GetFeature().GetEtag()
	case interface{ GetAudience() *patdv1.Audience }:
		return r.GetAudience().GetEtag()
	default:
		return ""
	}
}

// answerTag is the entity tag of the one record that an answer holds; empty: there is none.
func answerTag(m any) string {
	if u, ok := m.(interface{ GetUser() *patdv1.User }); ok {
		return u.GetUser().GetEtag()
	}
	return requestTag(m)
}

// unchanged refuses an answer to a reading call whose precondition does not hold of it.
func unchanged(p tokens.Precondition, answer any) error {
	tag := answerTag(answer)
	if p.Holds(tag) {
		return nil
	}
	if (tokens.Precondition{Match: p.Match, MatchAny: p.MatchAny}).Holds(tag) {
		e := tokens.Fail(tokens.CodeAborted, ReasonNotModified, "it is as the caller knows it")
		e.Metadata = map[string]string{KeyETag: tag}
		return e
	}
	return tokens.Fail(tokens.CodeAborted, tokens.ReasonPrecondition, "a precondition does not hold: it was changed since it was read")
}

// SetTag sets the ETag header of an answer that holds one record.
func SetTag(w http.ResponseWriter, m proto.Message) {
	if tag := answerTag(m.ProtoReflect().Interface()); tag != "" {
		w.Header().Set("Etag", tag)
	}
}
