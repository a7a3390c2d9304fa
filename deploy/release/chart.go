package main

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// chart writes the Helm chart under the version of the release.
func (r *release) chart(made *artifacts) error {
	files, err := r.chartFiles()
	if err != nil {
		return err
	}
	return made.create("patd-chart-"+fileName(r.version)+".tgz", func(w io.Writer) error {
		z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
		if err != nil {
			return err
		}
		if err := writeTar(z, r.at, files); err != nil {
			return err
		}
		return z.Close()
	})
}

// chartFiles are those of deploy/chart; Chart.yaml gets the version.
func (r *release) chartFiles() (out []file, err error) {
	dir := filepath.Join(r.root, "deploy/chart")
	err = filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		below, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		if below == "Chart.yaml" {
			text = regexp.MustCompile(`(?m)^(version|appVersion): .*$`).
				ReplaceAll(text, []byte(`${1}: "`+number(r.version)+`"`))
			if strings.Count(string(text), number(r.version)) != 2 {
				return fmt.Errorf("%s has no version to replace", name)
			}
		}
		out = append(out, file{name: path.Join("patd", filepath.ToSlash(below)), mode: 0o644, text: text})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the chart: %w", err)
	}
	return out, nil
}
