package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// sbom writes the bill of materials of an architecture's binary, and so of its image and packages.
func (r *release) sbom(made *artifacts, arch string) error {
	list, err := r.materials(arch)
	if err != nil {
		return err
	}
	return made.create(fmt.Sprintf("patd_%s_linux_%s.cdx.json", fileName(r.version), arch), func(w io.Writer) error {
		_, err := w.Write(list)
		return err
	})
}

// materials is the bill of materials as CycloneDX 1.6: the modules that the Go tool recorded in the binary, with the
// checksums of go.sum, and the standard library.
func (r *release) materials(arch string) ([]byte, error) {
	info, err := buildinfo.ReadFile(r.binaries[arch])
	if err != nil {
		return nil, fmt.Errorf("read what patd was built from: %w", err)
	}
	binary, err := os.ReadFile(r.binaries[arch])
	if err != nil {
		return nil, fmt.Errorf("read the binary: %w", err)
	}
	sum := sha256.Sum256(binary)
	main := cdx.Component{
		Type: cdx.ComponentTypeApplication, BOMRef: "pkg:golang/patd@" + r.version, Name: "patd", Version: r.version,
		PackageURL: "pkg:golang/patd@" + r.version + "?goos=linux&goarch=" + arch,
		Hashes:     &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
	}
	std := cdx.Component{
		Type: cdx.ComponentTypeLibrary, BOMRef: "pkg:golang/std@" + r.goVersion, Name: "std", Version: r.goVersion,
		PackageURL: "pkg:golang/std@" + strings.TrimPrefix(r.goVersion, "go"),
	}
	components, below := []cdx.Component{std}, []string{std.BOMRef}
	for _, m := range info.Deps {
		c, err := component(m)
		if err != nil {
			return nil, err
		}
		components, below = append(components, c), append(below, c.BOMRef)
	}
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{Timestamp: r.at.Format("2006-01-02T15:04:05Z07:00"), Component: &main}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: main.BOMRef, Dependencies: &below}}
	var b bytes.Buffer
	if err := cdx.NewBOMEncoder(&b, cdx.BOMFileFormatJSON).
		SetPretty(true).
		EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return nil, fmt.Errorf("write the bill of materials: %w", err)
	}
	return b.Bytes(), nil
}

// component is a module of the binary.
func component(m *debug.Module) (cdx.Component, error) {
	if m.Replace != nil {
		m = m.Replace
	}
	purl := "pkg:golang/" + m.Path + "@" + m.Version
	c := cdx.Component{Type: cdx.ComponentTypeLibrary, BOMRef: purl, Name: m.Path, Version: m.Version, PackageURL: purl}
	if text, ok := strings.CutPrefix(m.Sum, "h1:"); ok { // of all files of the module, as in go.sum
		sum, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return c, fmt.Errorf("read the checksum of %s: %w", m.Path, err)
		}
		c.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum)}}
	}
	return c, nil
}
