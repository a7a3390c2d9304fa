package main

import (
	"fmt"
	"regexp"
	"strings"
)

// parts splits a version into what stands before a hyphen, between it and a plus, and after that.
func parts(version string) (core, pre, build string) {
	core, build, _ = strings.Cut(number(version), "+")
	core, pre, _ = strings.Cut(core, "-")
	return core, pre, build
}

// packageVersion is the version as npm and NuGet have it. Both take versions that differ after the plus for the same
// one, so what stands there, +dirty, becomes part of the pre-release.
func packageVersion(version string) string {
	core, pre, build := parts(version)
	var all []string
	for _, part := range []string{pre, build} {
		if part != "" {
			all = append(all, part)
		}
	}
	if len(all) == 0 {
		return core
	}
	return core + "-" + strings.Join(all, ".")
}

var (
	// pseudo is how Go ends the version of a commit without a tag: of which pre-release it is a successor, when, which.
	pseudo = regexp.MustCompile(`^(?:(?:(.+)\.)?0\.)?(\d{14})-([0-9a-f]{12})$`)
	// preRelease is what Python has a form for.
	preRelease = regexp.MustCompile(`^(alpha|beta|a|b|rc)[.-]?(\d*)$`)
)

// pythonVersion is the version as PEP 440 has it. In its order, a commit without a tag is where it is in Go's: before
// the version that its own begins with, and after the pre-release.
func pythonVersion(version string) (string, error) {
	core, pre, build := parts(version)
	local := strings.Split(build, "+")
	if build == "" {
		local = nil
	}
	var dev string
	if m := pseudo.FindStringSubmatch(pre); m != nil {
		pre, dev = m[1], ".dev"+m[2]
		if pre != "" {
			dev = ".post0" + dev
		}
		local = append([]string{m[3]}, local...)
	}
	if pre != "" {
		m := preRelease.FindStringSubmatch(pre)
		if m == nil {
			return "", fmt.Errorf(
				"the version %s has no form that Python knows: a pre-release is called alpha, beta or rc, with a number",
				version,
			)
		}
		if m[2] == "" {
			m[2] = "0"
		}
		core += map[string]string{"alpha": "a", "beta": "b", "a": "a", "b": "b", "rc": "rc"}[m[1]] + m[2]
	}
	if core += dev; len(local) > 0 {
		core += "+" + strings.Join(local, ".")
	}
	return core, nil
}
