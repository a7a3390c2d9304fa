package main

import (
	"archive/zip"
	"compress/flate"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// nuget is a package for NuGet. Those of `dotnet pack` have a random name and the time of the clock in them.
type nuget struct {
	id, version, commit string
	dir, project        string // of the library, and below it
	groups              []nugetGroup
}

// nugetGroup is what a package has for a framework.
type nugetGroup struct {
	folder, framework string
	packages          []nugetPackage
	shared            string // the shared framework that it needs
}

type nugetPackage struct {
	ID      string `xml:"id,attr"`
	Version string `xml:"version,attr"`
}

// nuspec is the manifest of a package.
type nuspec struct {
	XMLName     xml.Name `xml:"http://schemas.microsoft.com/packaging/2013/05/nuspec.xsd package"`
	ID          string   `xml:"metadata>id"`
	Version     string   `xml:"metadata>version"`
	Authors     string   `xml:"metadata>authors"`
	Description string   `xml:"metadata>description"`
	Readme      string   `xml:"metadata>readme"`
	Repository  struct {
		Type   string `xml:"type,attr"`
		Commit string `xml:"commit,attr"`
	} `xml:"metadata>repository"`
	Needs  []nuspecGroup `xml:"metadata>dependencies>group"`
	Shared []nuspecGroup `xml:"metadata>frameworkReferences>group,omitempty"`
}

type nuspecGroup struct {
	Framework string         `xml:"targetFramework,attr"`
	Packages  []nugetPackage `xml:"dependency"`
	Shared    []nuspecShared `xml:"frameworkReference"`
}

type nuspecShared struct {
	Name string `xml:"name,attr"`
}

// What the Open Packaging Conventions ask for: the type of each part, and which one describes the package.
const (
	contentTypes = xml.Header + `<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
  <Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml" />
  <Default Extension="nuspec" ContentType="application/octet" />
  <Default Extension="dll" ContentType="application/octet" />
  <Default Extension="xml" ContentType="application/octet" />
  <Default Extension="md" ContentType="application/octet" />
</Types>
`
	relationships = xml.Header + `<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
  <Relationship Type="http://schemas.microsoft.com/packaging/2010/07/manifest" Target="/%s.nuspec" Id="R0" />
</Relationships>
`
)

var describes = regexp.MustCompile(`<Description>([^<]+)</Description>`)

// manifest describes the package.
func (n nuget) manifest() ([]byte, error) {
	project, err := os.ReadFile(filepath.Join(n.dir, n.project, n.id+".csproj"))
	if err != nil {
		return nil, fmt.Errorf("read the project: %w", err)
	}
	about := describes.FindSubmatch(project)
	if about == nil {
		return nil, fmt.Errorf("%s has no description", n.project)
	}
	s := nuspec{
		ID:          n.id,
		Version:     n.version,
		Authors:     "patd maintainers",
		Description: string(about[1]),
		Readme:      "README.md",
	}
	s.Repository.Type, s.Repository.Commit = "git", n.commit
	for _, g := range n.groups {
		s.Needs = append(s.Needs, nuspecGroup{Framework: g.framework, Packages: g.packages})
		if g.shared != "" {
			s.Shared = append(s.Shared, nuspecGroup{Framework: g.framework, Shared: []nuspecShared{{g.shared}}})
		}
	}
	text, err := xml.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, err
	}
	return append([]byte(xml.Header), append(text, '\n')...), nil
}

// write makes the package, of files in the order of their names and of the time of the release.
func (n nuget) write(made *artifacts, at time.Time) error {
	manifest, err := n.manifest()
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"[Content_Types].xml": []byte(
			contentTypes,
		),
		"_rels/.rels":    fmt.Appendf(nil, relationships, n.id),
		n.id + ".nuspec": manifest,
	}
	from := map[string]string{"README.md": "README.md"}
	for _, g := range n.groups {
		for _, ending := range []string{".dll", ".xml"} {
			from["lib/"+g.folder+"/"+n.id+ending] = filepath.Join(n.project, "bin", "Release", g.folder, n.id+ending)
		}
	}
	for name, path := range from {
		if files[name], err = os.ReadFile(filepath.Join(n.dir, path)); err != nil {
			return fmt.Errorf("read what was built: %w", err)
		}
	}
	return made.create(n.id+"."+n.version+".nupkg", func(w io.Writer) error {
		z := zip.NewWriter(w)
		z.RegisterCompressor(
			zip.Deflate,
			func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestCompression) },
		)
		for _, name := range sorted(files) {
			f, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: at})
			if err != nil {
				return err
			}
			if _, err := f.Write(files[name]); err != nil {
				return err
			}
		}
		return z.Close()
	})
}
