package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// leakService serves patd.v1.LeakService.
type leakService struct {
	patdv1.UnimplementedLeakServiceServer
	service *tokens.Service
}

var _ patdv1.LeakServiceServer = leakService{}

// ReportLeaks ends every live secret among those reported. Its answer never says whether there was one, but which items were
// malformed.
func (s leakService) ReportLeaks(ctx context.Context, r *patdv1.ReportLeaksRequest) (*patdv1.ReportLeaksResponse, error) {
	found := make([]tokens.Secret, len(r.GetSecrets()))
	for i, text := range r.GetSecrets() {
		found[i] = tokens.NewSecret(text)
	}
	if err := s.service.ReportLeaks(ctx, actorOf(ctx), found); err != nil {
		return nil, err
	}
	return &patdv1.ReportLeaksResponse{Malformed: malformed(r)}, nil
}

// lostText is what is read in place of a character that is none (U+FFFD), and of an item that is no text.
const lostText = string(utf8.RuneError)

// malformed lists the items of a report that hold lostText, as no secret does; nil: there is none.
func malformed(r *patdv1.ReportLeaksRequest) *patdv1.ReportLeaksResponse_Malformed {
	var out patdv1.ReportLeaksResponse_Malformed
	for i, text := range r.GetSecrets() {
		if strings.Contains(text, lostText) {
			out.Items = append(out.Items, int32(i))
		}
	}
	if len(out.GetItems()) == 0 {
		return nil
	}
	return &out
}

// readLeaksJSON reads a report that the JSON decoder refuses, for the sake of the items that are well formed; false: the report
// as a whole is malformed.
func readLeaksJSON(text []byte, m proto.Message) bool {
	r, ok := m.(*patdv1.ReportLeaksRequest)
	if !ok {
		return false
	}
	in := json.NewDecoder(bytes.NewReader(text))
	takes := func(want json.Token) bool {
		got, err := in.Token()
		return err == nil && got == want
	}
	if !takes(json.Delim('{')) || !takes("secrets") || !takes(json.Delim('[')) {
		return false
	}
	var items []string
	for in.More() {
		var raw json.RawMessage
		if err := in.Decode(&raw); err != nil {
			return false
		}
		item := lostText
		if raw[0] == '"' && json.Unmarshal(raw, &item) != nil {
			item = lostText
		}
		items = append(items, item)
	}
	if !takes(json.Delim(']')) || !takes(json.Delim('}')) {
		return false
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return false
	}
	r.Secrets = items
	return true
}

// readLeaks reads a report on the wire that the decoder refuses, since a text in it is no UTF-8; false: it is malformed as a
// whole.
func readLeaks(b []byte, r *patdv1.ReportLeaksRequest) bool {
	var items []string
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		size := protowire.ConsumeFieldValue(number, kind, b)
		if size < 0 {
			return false
		}
		if number == fieldSecrets && kind == protowire.BytesType {
			item, _ := protowire.ConsumeBytes(b)
			items = append(items, strings.ToValidUTF8(string(item), lostText))
		}
		b = b[size:]
	}
	r.Secrets = items
	return true
}

// fieldSecrets is the number of secrets in proto/patd/v1/leak.proto.
const fieldSecrets = 1
