//go:build ignore

// Print writes the google/api files that the contract imports from the descriptors in the pinned
// google.golang.org/genproto module, so that generating needs no network but the Go module proxy.
//
// It runs from the root of the repository: go run -modfile=tools.mod proto/google/print.go
package main

import (
	"log"
	"os"
	"path/filepath"

	"github.com/jhump/protoreflect/v2/protoprint"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func main() {
	for _, fd := range []protoreflect.FileDescriptor{
		annotations.File_google_api_annotations_proto,
		annotations.File_google_api_field_behavior_proto,
		annotations.File_google_api_http_proto,
	} {
		text, err := (&protoprint.Printer{}).PrintProtoToString(fd)
		if err != nil {
			log.Fatalf("print %s: %v", fd.Path(), err)
		}
		if err := os.WriteFile(filepath.Join("proto", filepath.FromSlash(fd.Path())), []byte(text), 0o644); err != nil {
			log.Fatal(err)
		}
	}
}
