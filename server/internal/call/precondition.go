package call

import (
	"net/http"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// Metadata keys of preconditions and of the ETag of responses.
const (
	KeyIfMatch           = "if-match"
	KeyIfNoneMatch       = "if-none-match"
	KeyIfUnmodifiedSince = "if-unmodified-since"

	ReasonNotModified = "NOT_MODIFIED"
	// KeyETag is the metadata key of the current tag in a NOT_MODIFIED.
	KeyETag = "etag"
)

// ConditionHeaders returns the headers of RFC 9110 section 13.1 that make a change conditional. None is ever ignored.
func ConditionHeaders() []string { return []string{"If-Match", "If-None-Match", "If-Unmodified-Since"} }

// Conditional reports whether a request has a precondition.
func Conditional(h http.Header) bool {
	return slices.ContainsFunc(ConditionHeaders(), func(name string) bool { return len(h[name]) > 0 })
}

// Unconditional returns the error for a precondition where none is supported.
func Unconditional() *tokens.Error {
	return tokens.Invalid(
		"PRECONDITION_UNSUPPORTED",
		"",
		"this call takes no precondition; leave out If-Match, If-None-Match, "+
			"If-Unmodified-Since and etag",
	)
}

// precondition reads the caller's precondition: from the headers (over gRPC, metadata of the same names) and from the
// etag of the request. A method that does not support one rejects it. asked reports whether there is one.
func precondition(begun *Call, req any) (p tokens.Precondition, asked bool, err error) {
	match, none := begun.Headers(KeyIfMatch), begun.Headers(KeyIfNoneMatch)
	since, field := begun.Headers(KeyIfUnmodifiedSince), requestTag(req)
	switch {
	case len(match)+len(none)+len(since) == 0 && field == "":
		return p, false, nil
	case !begun.Method.Conditional:
		return p, false, Unconditional()
	case len(since) > 0:
		return p, false, tokens.Invalid(
			"PRECONDITION_UNSUPPORTED",
			"",
			"If-Unmodified-Since is not supported: patd keeps no time of the last change; use If-Match",
		)
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

// BadTag returns the error for a precondition header that cannot be parsed.
func BadTag(field string) *tokens.Error {
	return tokens.Invalid(
		"PRECONDITION_INVALID",
		field,
		`must be * or entity tags in quotes, as they were given, joined by commas (RFC 9110 section 8.8.3)`,
	)
}

// readTags parses lists of entity tags; star: the header is `*`. The list is nil if there is no header. Weak tags match
// nothing by strong comparison, and are left out; by weak comparison weakness is ignored (RFC 9110 section 8.8.3.2).
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

// requestTag returns the etag in a request, in its own field or in that of the record to write.
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
	case interface{ GetWebhook() *patdv1.Webhook }:
		return r.GetWebhook().GetEtag()
	default:
		return ""
	}
}

// answerTag returns the entity tag of the only record in a response, or "".
func answerTag(m any) string {
	if u, ok := m.(interface{ GetUser() *patdv1.User }); ok {
		return u.GetUser().GetEtag()
	}
	return requestTag(m)
}

// unchanged rejects the response to a read if the precondition does not hold for it.
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
	return tokens.Fail(
		tokens.CodeAborted,
		tokens.ReasonPrecondition,
		"a precondition does not hold: it was changed since it was read",
	)
}

// SetTag sets the ETag header of a response with one record.
func SetTag(w http.ResponseWriter, m proto.Message) {
	if tag := answerTag(m.ProtoReflect().Interface()); tag != "" {
		w.Header().Set("Etag", tag)
	}
}
