package main

import (
	"archive/zip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// library1 returns the release, if it has a library.
func library1(tb testing.TB, name string) *built {
	tb.Helper()
	for _, l := range libraries {
		if l.name != name {
			continue
		}
		if err := l.check(tree); err != nil {
			missing(tb, err.Error())
		}
	}
	return release1(tb)
}

// TestTwoBuildsAreTheSameBytes builds the same commit again in another directory, all of it but the jars: that these
// are the same bytes is held by TestTheJarIsReproducible of sdk/java.
func TestTwoBuildsAreTheSameBytes(t *testing.T) {
	t.Parallel()
	b := release1(t)
	var with []library
	jars := false
	for _, l := range b.r.libraries {
		if l.name == "java" {
			jars = true
		} else {
			with = append(with, l)
		}
	}
	again, err := build(with)
	if err != nil {
		t.Fatal(err)
	}
	one, two := sums(t, b.dir), sums(t, again.dir)
	for name := range one {
		// Two files name the jars too.
		if strings.HasSuffix(name, ".jar") || strings.HasSuffix(name, ".pom") || jars && lists(name) {
			delete(one, name)
			delete(two, name)
		}
	}
	for name, sum := range one {
		if two[name] != sum {
			t.Errorf("%s differs", name)
		}
	}
	want := 9
	if jars {
		want = 7
	}
	for _, l := range with {
		want += map[string]int{"typescript": 1, "python": 2, "csharp": 2}[l.name]
	}
	if len(one) != len(two) || len(one) != want {
		t.Errorf("%d and %d files; want %d", len(one), len(two), want)
	}
}

// lists reports whether a file of a release names all others.
func lists(name string) bool {
	return name == "SHA256SUMS" || strings.Contains(name, "provenance")
}

// unzip reads a zip file, by the names in it.
func unzip(tb testing.TB, name string) map[string][]byte {
	tb.Helper()
	z, err := zip.OpenReader(name)
	if err != nil {
		tb.Fatal(err)
	}
	defer z.Close()
	out := map[string][]byte{}
	for _, f := range z.File {
		from, err := f.Open()
		if err != nil {
			tb.Fatal(err)
		}
		if out[f.Name], err = io.ReadAll(from); err != nil {
			tb.Fatal(err)
		}
		_ = from.Close()
	}
	return out
}

// TestJarsHaveTheVersionOfTheTag looks into them.
func TestJarsHaveTheVersionOfTheTag(t *testing.T) {
	t.Parallel()
	b := library1(t, "java")
	for name := range javaArtifacts {
		jar, err := zip.OpenReader(b.only(t, name+"-0.98.7.jar"))
		if err != nil {
			t.Fatal(err)
		}
		var classes int
		for _, f := range jar.File {
			if strings.HasSuffix(f.Name, ".class") {
				classes++
			}
			if at := f.Modified.UTC(); at.Unix()/2 != b.r.at.Unix()/2 {
				t.Errorf("%s: %s is of %v, not of the commit's time, %v", name, f.Name, at, b.r.at)
			}
		}
		_ = jar.Close()
		pom, err := os.ReadFile(b.only(t, name+"-0.98.7.pom"))
		if err != nil || classes == 0 || !strings.Contains(string(pom), "<version>0.98.7</version>") {
			t.Errorf("%s: %d classes, %v\n%s", name, classes, err, pom)
		}
	}
}

// program writes a program, runs it in its directory, and compares what it writes.
func program(t *testing.T, dir, name, text, want string, env []string, command ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if out, err := cmd.Output(); err != nil || string(out) != want {
		t.Errorf("%v, wrote %q, want %q\n%s", err, out, want, &stderr)
	}
}

// TestTheNpmPackageIsInstalledAndUsed installs it into an empty project, without a registry.
func TestTheNpmPackageIsInstalledAndUsed(t *testing.T) {
	t.Parallel()
	b := library1(t, "typescript")
	file := b.only(t, "patd-npm-0.98.7.tgz")
	files := untar(t, file, true)
	for name := range files {
		if below := strings.TrimPrefix(name, "package/"); below != "package.json" && below != "README.md" &&
			(path.Dir(below) != "dist" && path.Dir(below) != "dist/generated" || !strings.HasSuffix(below, ".js") && !strings.HasSuffix(below, ".d.ts")) {
			t.Errorf("%s is in the package", name)
		}
	}
	var manifest struct {
		Version string
		Exports map[string]string
	}
	if err := json.Unmarshal(
		files["package/package.json"],
		&manifest,
	); err != nil || manifest.Version != "0.98.7" ||
		len(manifest.Exports) == 0 {
		t.Fatalf("%v\n%s", err, files["package/package.json"])
	}
	for entry, to := range manifest.Exports {
		types := strings.TrimSuffix(path.Join("package", to), ".js") + ".d.ts"
		if len(files[path.Join("package", to)]) == 0 || len(files[types]) == 0 {
			t.Errorf("%s has no code or no types", entry)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "package.json"), []byte(`{"private": true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	err := tool(
		t.Context(),
		dir,
		nil,
		"npm",
		"install",
		"--offline",
		"--no-audit",
		"--no-fund",
		"--cache",
		filepath.Join(dir, "cache"),
		file,
	)
	if err != nil {
		t.Fatal(err)
	}
	program(t, dir, "use.mjs", `import { Verifier } from "patd";
import { Manage } from "patd/manage";
import { tokenFile } from "patd/node";
import { FakePatd } from "patd/testing";

const patd = new FakePatd();
const { id, secret } = patd.mint({ user: "alice", scopes: ["reports.read"] });
console.log((await patd.verify(secret, { scopes: ["reports.read"] })).decision);
patd.revoke(id);
console.log((await patd.verify(secret, { scopes: ["reports.read"] })).decision);
console.log([Verifier, Manage, tokenFile].map((f) => typeof f).join());
`, "ALLOW\nREVOKED\nfunction,function,function\n", nil, "node", "use.mjs")
}

// TestTheWheelIsInstalledAndUsed installs it into an empty environment, beside what it needs.
func TestTheWheelIsInstalledAndUsed(t *testing.T) {
	t.Parallel()
	b := library1(t, "python")
	wheel := b.only(t, "patd-0.98.7-py3-none-any.whl")
	files := unzip(t, wheel)
	if _, typed := files["patd/py.typed"]; !typed || len(files["patd/generated/operations.py"]) == 0 {
		t.Errorf("the wheel has %q", sorted(files))
	}
	source := untar(t, b.only(t, "patd-0.98.7.tar.gz"), true)
	for name, in := range map[string]map[string][]byte{"the wheel": files, "the source distribution": source} {
		for file := range in {
			if strings.Contains(file, "tests/") || strings.Contains(file, "venv") ||
				strings.Contains(file, "__pycache__") {
				t.Errorf("%s has %s", name, file)
			}
		}
	}
	if len(source["patd-0.98.7/src/patd/py.typed"]) != len(files["patd/py.typed"]) ||
		len(source["patd-0.98.7/pyproject.toml"]) == 0 {
		t.Errorf("the source distribution has %q", sorted(source))
	}
	dir := t.TempDir()
	with, err := filepath.Abs(filepath.Join(tree, venv, "bin", "python"))
	if err != nil {
		t.Fatal(err)
	}
	python := filepath.Join(dir, "empty", "bin", "python")
	for _, args := range [][]string{
		{"-m", "venv", "--without-pip", "empty"},
		{"-m", "pip", "--disable-pip-version-check", "--python", python, "install", "--quiet", "--no-index", "--no-deps", wheel},
		// What the wheel needs is beside it, of the versions that it asks for.
		{"-c", `import pathlib, sysconfig
site, = pathlib.Path("empty/lib").glob("python*/site-packages")
(site / "needs.pth").write_text(sysconfig.get_path("purelib"))`},
	} {
		if err := tool(t.Context(), dir, nil, with, args...); err != nil {
			t.Fatal(err)
		}
	}
	program(t, dir, "use.py", `import pathlib
from importlib.metadata import requires, version

import patd
from patd.testing import FakePatd

print(version("patd"), requires("patd")[:2])
print("empty" in pathlib.Path(patd.__file__).parts, patd.Verifier.__name__)
fake = FakePatd()
alice = fake.mint("alice", ["reports.read"])
print(fake.verify(alice.secret, scopes=["reports.read"]).decision.name)
fake.revoke(alice.id)
print(fake.verify(alice.secret, scopes=["reports.read"]).decision.name)
`, "0.98.7 ['httpx>=0.27,<1', 'sniffio>=1.3,<2']\nTrue Verifier\nALLOW\nREVOKED\n", nil, python, "use.py")
}

// TestTheNuGetPackagesAreRestoredAndUsed adds them to an empty project, from a directory.
func TestTheNuGetPackagesAreRestoredAndUsed(t *testing.T) {
	t.Parallel()
	b := library1(t, "csharp")
	core := unzip(t, b.only(t, "Patd.0.98.7.nupkg"))
	spec := string(core["Patd.nuspec"])
	if !strings.Contains(spec, "<version>0.98.7</version>") ||
		!strings.Contains(spec, `<dependency id="System.Text.Json" version="`) {
		t.Errorf("the manifest is\n%s", spec)
	}
	for _, framework := range []string{"netcoreapp3.1", "netstandard2.0"} {
		if len(core["lib/"+framework+"/Patd.dll"]) == 0 || len(core["lib/"+framework+"/Patd.xml"]) == 0 {
			t.Errorf("the package has nothing for %s", framework)
		}
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"use.csproj": `<Project Sdk="Microsoft.NET.Sdk">
  <PropertyGroup><OutputType>Exe</OutputType><TargetFramework>netcoreapp3.1</TargetFramework></PropertyGroup>
  <ItemGroup><PackageReference Include="Patd.AspNetCore" Version="0.98.7" /></ItemGroup>
</Project>
`,
		"Program.cs": `using System;
using System.Threading.Tasks;
using Patd;
using Patd.AspNetCore;

internal static class Program
{
    private static async Task Main()
    {
        var fake = new FakePatd();
        var secret = fake.Mint(new FakeToken { User = "alice", Scopes = new[] { "reports.read" } }, out var id);
        var call = new VerifyCall { Scopes = new[] { "reports.read" } };
        Console.WriteLine((await fake.VerifyAsync(secret, call)).Decision);
        fake.Revoke(id);
        Console.WriteLine((await fake.VerifyAsync(secret, call)).Decision);
        Console.WriteLine(PatdDefaults.Scheme + " " + typeof(TokenVerifier).Assembly.GetName().Version);
    }
}
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := *b.r
	r.work = t.TempDir() // with a home of its own, where no package is yet
	if err := r.dotnetBuild(t.Context(), dir, "use.csproj", b.dir, "-o", "out"); err != nil {
		t.Fatal(err)
	}
	program(t, dir, "none", "", "Allow\nRevoked\nPatd 0.98.7.0\n", r.dotnetEnvironment(),
		r.installed(dotnetRoot+"/dotnet"), filepath.Join("out", "use.dll"))
}

// TestVersionsOfEachKind has what Go makes of tags and of commits without one.
func TestVersionsOfEachKind(t *testing.T) {
	for version, want := range map[string][2]string{
		"v0.98.7":                            {"0.98.7", "0.98.7"},
		"v1.2.3-rc.1":                        {"1.2.3-rc.1", "1.2.3rc1"},
		"v1.2.3-beta":                        {"1.2.3-beta", "1.2.3b0"},
		"v0.98.7+dirty":                      {"0.98.7-dirty", "0.98.7+dirty"},
		"v0.0.0-20261130070447-5a53e7899abc": {"0.0.0-20261130070447-5a53e7899abc", "0.0.0.dev20261130070447+5a53e7899abc"},
		"v0.0.0-20261130070447-5a53e7899abc+dirty":  {"0.0.0-20261130070447-5a53e7899abc.dirty", "0.0.0.dev20261130070447+5a53e7899abc.dirty"},
		"v1.2.4-0.20261130070447-5a53e7899abc":      {"1.2.4-0.20261130070447-5a53e7899abc", "1.2.4.dev20261130070447+5a53e7899abc"},
		"v1.2.3-rc.1.0.20261130070447-5a53e7899abc": {"1.2.3-rc.1.0.20261130070447-5a53e7899abc", "1.2.3rc1.post0.dev20261130070447+5a53e7899abc"},
		"v1.2.3-nightly": {"1.2.3-nightly", ""},
	} {
		python, err := pythonVersion(version)
		if got := [2]string{packageVersion(version), python}; got != want || (err != nil) != (want[1] == "") {
			t.Errorf("%s: %q, %v; want %q", version, got, err, want)
		}
	}
}

// TestALibraryWithoutItsToolsIsRefusedAtOnce holds that the error says what is missing, and how to go on without.
func TestALibraryWithoutItsToolsIsRefusedAtOnce(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	empty := t.TempDir()
	for _, l := range libraries {
		err := l.check(empty)
		if err == nil || !strings.Contains(err.Error(), "-"+l.name+"=false") ||
			!strings.Contains(err.Error(), l.needs) {
			t.Errorf("%s: %v", l.name, err)
		}
		args := []string{"-root", empty, "-out", filepath.Join(empty, "dist")}
		for _, other := range libraries {
			args = append(args, fmt.Sprintf("-%s=%v", other.name, other.name == l.name))
		}
		if got := run(context.Background(), args, io.Discard); got == nil || err == nil || got.Error() != err.Error() {
			t.Errorf("%q: %v, want %v", args, got, err)
		}
	}
	if entries, err := os.ReadDir(empty); err != nil || len(entries) > 0 {
		t.Errorf("it left %v, %v", entries, err)
	}
}
