package main

import (
	"bytes"
	"context"
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
	work := filepath.Join(r.work, "java")
	version := "<version>" + number(r.version) + "</version>"
	edit := func(name string, text []byte) []byte {
		if strings.Contains(name, "/src/test/") {
			return nil
		}
		if strings.HasSuffix(name, "/pom.xml") {
			return bytes.ReplaceAll(text, []byte(javaVersion), []byte(version))
		}
		return text
	}
	if err := r.copySource(ctx, work, edit, "sdk/java"); err != nil {
		return err
	}
	build := filepath.Join(work, "sdk", "java")
	if err := tool(ctx, build, []string{"MAVEN_OPTS=-Xmx256m"}, "mvn", "-B", "-q", "-T1", "package", "-DskipTests",
		"-Dproject.build.outputTimestamp="+r.at.Format(time.RFC3339)); err != nil {
		return err
	}
	files := map[string]string{"patd-parent-" + fileName(r.version) + ".pom": "pom.xml"}
	for name, module := range javaArtifacts {
		files[name+"-"+fileName(r.version)+".jar"] = filepath.Join(module, "target", name+"-"+number(r.version)+".jar")
		files[name+"-"+fileName(r.version)+".pom"] = filepath.Join(module, "pom.xml")
	}
	for _, name := range sorted(files) {
		if err := made.add(name, filepath.Join(build, files[name])); err != nil {
			return err
		}
	}
	return nil
}
