package wire

import (
	"encoding/json"

	"google.golang.org/protobuf/proto"

	patdv1 "patd/gen/patd/v1"
)

// ImpactOfAll returns the text of a question about an impact with `"all": true` in place of `"users": "all"`, as it may
// be written over REST. Any other text stays as it is.
func ImpactOfAll(text []byte, m proto.Message) []byte {
	if _, ok := m.(*patdv1.GetFeatureImpactRequest); !ok {
		return text
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(text, &fields) != nil || string(fields["users"]) != `"all"` || fields["all"] != nil {
		return text
	}
	delete(fields, "users")
	fields["all"] = json.RawMessage("true")
	out, err := json.Marshal(fields)
	if err != nil {
		return text
	}
	return out
}
