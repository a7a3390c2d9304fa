package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// javaArtifacts are the modules of sdk/java by the names of their jars.
var javaArtifacts = map[string]string{
	"patd": "core", "patd-servlet": "servlet", "patd-spring-boot-starter": "spring-boot-starter",
}

// javaVersion is the version that the source has.
const javaVersion = "<version>0.0.0</version>"

// java writes the jars of the library for Java, with the version of the release, and what Maven needs to install them.
func (r *release) java(ctx context.Context, made *artifacts) error {
	source, build := filepath.Join(r.root, "sdk", "java"), filepath.Join(r.work, "java")
	if err := r.copyJava(source, build); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "mvn", "-B", "-q", "-T1", "package", "-DskipTests",
		"-Dproject.build.outputTimestamp="+r.at.Format(time.RFC3339))
	cmd.Dir, cmd.Env = build, append(os.Environ(), "MAVEN_OPTS=-Xmx256m")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the jars, which needs Maven and a JDK of 17 or later (-java=false leaves them out): %w\n%s", err, out)
	}
	files := map[string]string{"patd-parent-" + fileName(r.version) + ".pom": "pom.xml"}
	for name, module := range javaArtifacts {
		files[name+"-"+fileName(r.version)+".jar"] = filepath.Join(module, "target", name+"-"+number(r.version)+".jar")
		files[name+"-"+fileName(r.version)+".pom"] = filepath.Join(module, "pom.xml")
	}
	for _, name := range sorted(files) {
		text, err := os.ReadFile(filepath.Join(build, files[name]))
		if err != nil {
			return fmt.Errorf("read what Maven made: %w", err)
		}
		if err := made.create(name, func(w io.Writer) error {
			_, err := w.Write(text)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// copyJava copies the source of the library, under the version of the release.
func (r *release) copyJava(from, to string) error {
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == "target" || strings.HasSuffix(name, filepath.Join("src", "test")) {
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, name), 0o700)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if d.Name() == "pom.xml" {
			version := "<version>" + number(r.version) + "</version>"
			text = []byte(strings.ReplaceAll(string(text), javaVersion, version))
		}
		return os.WriteFile(filepath.Join(to, name), text, 0o600)
	})
	if err != nil {
		return fmt.Errorf("copy the source of the library for Java: %w", err)
	}
	return nil
}
