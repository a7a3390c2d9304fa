package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"patd/internal/longtest"
)

const root = "../../.."

// built is the contract, as buf makes it for `go generate ./gen/openapi`.
var built = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "contract")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, contract)
	cmd := exec.Command("go", "tool", "-modfile=tools.mod", "buf", "build", "-o", file)
	cmd.Dir, cmd.Stderr = root, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	return os.ReadFile(file)
})

// committed are the files of gen/openapi that this program writes.
func committed(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "gen/openapi", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// copied returns a directory like gen/openapi in the middle of `go generate`: with the contract, which change may
// change, and with what was written before.
func copied(t *testing.T, change func(*contractOf)) string {
	t.Helper()
	longtest.Slow(t)
	text, err := built()
	if err != nil {
		t.Fatalf("build the contract: %v", err)
	}
	if change != nil {
		c := &contractOf{t: t, set: &descriptorpb.FileDescriptorSet{}}
		if err := proto.Unmarshal(text, c.set); err != nil {
			t.Fatal(err)
		}
		change(c)
		if text, err = proto.Marshal(c.set); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	for name, text := range map[string][]byte{
		contract: text, written: committed(t, written), operations: committed(t, operations),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestGeneratedDocumentIsCurrent holds that gen/openapi is what proto/, the table of rights and the files by hand say.
func TestGeneratedDocumentIsCurrent(t *testing.T) {
	t.Parallel()
	dir := copied(t, nil)
	for _, name := range []string{written, operations} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{written, operations} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, committed(t, name)) {
			t.Errorf("gen/openapi/%s is not current; run `make generate` and commit what it writes", name)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, contract)); !os.IsNotExist(err) {
		t.Errorf("the contract is left there: %v", err)
	}
}

// contractOf is the contract, for a test to change.
type contractOf struct {
	t   *testing.T
	set *descriptorpb.FileDescriptorSet
}

// method returns a method of the contract by its full name.
func (c *contractOf) method(full string) *descriptorpb.MethodDescriptorProto {
	c.t.Helper()
	for _, f := range c.set.GetFile() {
		for _, s := range f.GetService() {
			for _, m := range s.GetMethod() {
				if f.GetPackage()+"."+s.GetName()+"."+m.GetName() == full {
					return m
				}
			}
		}
	}
	c.t.Fatalf("the contract has no method %s", full)
	return nil
}

// rule returns the path and verb by which a method is called over REST, to be changed.
func (c *contractOf) rule(full string) *annotations.HttpRule {
	c.t.Helper()
	return proto.GetExtension(c.method(full).GetOptions(), annotations.E_Http).(*annotations.HttpRule)
}

// setRule gives a method a path and verb.
func (c *contractOf) setRule(full string, rule *annotations.HttpRule) {
	c.t.Helper()
	proto.SetExtension(c.method(full).GetOptions(), annotations.E_Http, rule)
}

// addField gives a message one more field.
func (c *contractOf) addField(message string, f *descriptorpb.FieldDescriptorProto) {
	c.t.Helper()
	for _, file := range c.set.GetFile() {
		for _, m := range file.GetMessageType() {
			if file.GetPackage()+"."+m.GetName() == message {
				f.Number = proto.Int32(5000)
				f.JsonName = f.Name
				m.Field = append(m.Field, f)
				return
			}
		}
	}
	c.t.Fatalf("the contract has no message %s", message)
}

// ratio is a field of a kind that no message has, and that the document has no form for.
func ratio(label descriptorpb.FieldDescriptorProto_Label) *descriptorpb.FieldDescriptorProto {
	return &descriptorpb.FieldDescriptorProto{
		Name: proto.String("ratio"), Type: descriptorpb.FieldDescriptorProto_TYPE_DOUBLE.Enum(), Label: label.Enum(),
	}
}

// TestContractThatCannotBeDescribedIsRefused names the place in each refusal, and holds that nothing is written.
func TestContractThatCannotBeDescribedIsRefused(t *testing.T) {
	t.Parallel()
	const one, many = descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL, descriptorpb.FieldDescriptorProto_LABEL_REPEATED
	for _, c := range []struct {
		name   string
		change func(*contractOf)
		want   string
	}{
		{"a method without a row in the table of rights", func(c *contractOf) {
			c.method("patd.v1.TokenService.GetToken").Name = proto.String("PeekToken")
		}, "patd.v1.TokenService.PeekToken: has no row in the table of rights"},
		{"a verb that is not known", func(c *contractOf) {
			c.rule("patd.v1.TokenService.GetToken").Pattern = &annotations.HttpRule_Custom{
				Custom: &annotations.CustomHttpPattern{Kind: "PEEK", Path: "/v1/peek"},
			}
		}, "patd.v1.TokenService.GetToken: rule "},
		{"one operationId twice", func(c *contractOf) {
			rule := c.rule("patd.v1.TokenService.GetToken")
			for _, path := range []string{"/v1/a", "/v1/b"} {
				rule.AdditionalBindings = append(
					rule.AdditionalBindings,
					&annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: path}},
				)
			}
		}, "patd.v1.TokenService.GetToken: there are two operations getTokenByGet"},
		{"two methods at one path", func(c *contractOf) {
			c.rule("patd.v1.UserService.GetUser").Pattern = c.rule("patd.v1.UserService.ListUsers").GetPattern()
		}, "get is described in two ways"},
		{"a method at a path that is described by hand", func(c *contractOf) {
			c.setRule("patd.v1.TokenService.GetToken", &annotations.HttpRule{
				Pattern: &annotations.HttpRule_Get{Get: "/oauth2/token"},
			})
		}, "/oauth2/token is described in two ways"},
		{"a kind of field that is not known, in the query",
			func(c *contractOf) { c.addField("patd.v1.ListTokensRequest", ratio(one)) },
			"patd.v1.ListTokensRequest.ratio: fields of kind double are not known here"},
		{"in a list in the query",
			func(c *contractOf) { c.addField("patd.v1.ListTokensRequest", ratio(many)) },
			"patd.v1.ListTokensRequest.ratio: fields of kind double are not known here"},
		{"in a body",
			func(c *contractOf) { c.addField("patd.v1.CreateTokenRequest", ratio(one)) },
			"patd.v1.TokenService.CreateToken: patd.v1.CreateTokenRequest.ratio: fields of kind double"},
		{"in a record in a body and a response",
			func(c *contractOf) { c.addField("patd.v1.Feature", ratio(many)) },
			"patd.v1.Feature.ratio: fields of kind double"},
		{"in a response",
			func(c *contractOf) { c.addField("patd.v1.ListTokensResponse", ratio(one)) },
			"patd.v1.ListTokensResponse.ratio: fields of kind double"},
		{"an operation that clients use and that is gone", func(c *contractOf) {
			c.setRule("patd.v1.TokenService.GetToken", nil)
		}, "getToken GET /v1/users/{user}/tokens/{token_id} is gone or has changed, and clients use it: see operations.txt"},
		{"an operation that has moved", func(c *contractOf) {
			c.rule("patd.v1.TokenService.GetToken").Pattern = &annotations.HttpRule_Get{Get: "/v2/tokens/{token_id}"}
		}, "getToken GET /v1/users/{user}/tokens/{token_id} is gone or has changed"},
		{"a file that is missing", func(c *contractOf) {
			c.set.File = slices.DeleteFunc(c.set.File, func(f *descriptorpb.FileDescriptorProto) bool {
				return f.GetPackage() == "google.api"
			})
		}, "read contract.binpb: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := copied(t, c.change)
			refused(t, dir, c.want)
			if _, err := os.Stat(filepath.Join(dir, contract)); err != nil {
				t.Errorf("the contract was removed: %v", err)
			}
		})
	}
	t.Run("no contract", func(t *testing.T) {
		t.Parallel()
		dir := copied(t, nil)
		if err := os.Remove(filepath.Join(dir, contract)); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "contract.binpb: no such file")
	})
	t.Run("no descriptors in it", func(t *testing.T) {
		t.Parallel()
		dir := copied(t, nil)
		if err := os.WriteFile(filepath.Join(dir, contract), []byte("syntax = \"proto3\";"), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "read contract.binpb: ")
	})
}

// refused holds that a run ends with an error that says where, and that both files are as before.
func refused(t *testing.T, dir, want string) {
	t.Helper()
	if err := run(dir); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want an error with %q", err, want)
	}
	for _, name := range []string{written, operations} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(text, committed(t, name)) {
			t.Errorf("%s was written", name)
		}
	}
}
