package main

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// The files that the program reads and writes, in the directory of gen/openapi.
const (
	contract   = "contract.binpb" // made by buf, with the comments, and removed
	written    = "openapi.json"
	operations = "operations.txt" // what each operationId stands for
)

// outside describes the endpoints that are not in the contract: paths, components and tags, as in the document.
//
//go:embed outside.json
var outside embed.FS

func main() {
	if err := run("."); err != nil {
		fmt.Fprintln(os.Stderr, "apidoc:", err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

// run reads and writes the files of a directory. A contract that it refuses changes none of them.
func run(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, contract))
	if err != nil {
		return err
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(text, &set); err != nil {
		return fmt.Errorf("read %s: %w", contract, err)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return fmt.Errorf("read %s: %w", contract, err)
	}
	d := newDocument()
	if err := json.Unmarshal(exampleValues, &d.values); err != nil {
		return fmt.Errorf("read examples.json: %w", err)
	}
	for _, f := range set.GetFile() {
		file, err := files.FindFileByPath(f.GetName())
		if err != nil {
			return fmt.Errorf("read %s: %w", contract, err)
		}
		for i := range file.Services().Len() {
			if err := d.service(file.Services().Get(i)); err != nil {
				return err
			}
		}
	}
	if err := d.join("outside.json"); err != nil {
		return err
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(d); err != nil {
		return err
	}
	if err := d.keepIDs(filepath.Join(dir, operations)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, written), out.Bytes(), 0o644); err != nil { //nolint:gosec // it is public
		return err
	}
	return os.Remove(filepath.Join(dir, contract))
}

// keepIDs writes the list of operationIds. Clients are generated with them, so one that is in the list stays what it
// is: to give it up on purpose, remove its line first.
func (d *document) keepIDs(file string) error {
	var lines []string
	for path, item := range d.Paths {
		for verb, op := range item.(object) {
			lines = append(lines, fmt.Sprintf("%s %s %s", op.(object)["operationId"], strings.ToUpper(verb), path))
		}
	}
	slices.Sort(lines)
	before, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for line := range strings.Lines(string(before)) {
		if line = strings.TrimSpace(line); !slices.Contains(lines, line) {
			return fmt.Errorf("%s is gone or has changed, and clients use it: see %s", line, operations)
		}
	}
	return os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644) //nolint:gosec // it is public
}

// comment returns the comment that stands above a thing in the contract.
func comment(d protoreflect.Descriptor) string {
	return paragraphs(d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments)
}
