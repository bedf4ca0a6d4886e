package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

// uvProject is a program whose dependencies are in its own folder: direct, and through it nested. Both are built and
// installed by uv itself, without a network.
var uvProject = map[string]string{
	"__main__.py": "",
	"pyproject.toml": `
[project]
name = "program"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["pulumi-direct"]
[tool.uv]
package = false
[tool.uv.sources]
pulumi-direct = { path = "direct" }
`,
	"direct/pyproject.toml": `
[project]
name = "pulumi-direct"
version = "1.2.3"
requires-python = ">=3.11"
dependencies = ["nested"]
[build-system]
requires = ["uv_build"]
build-backend = "uv_build"
[tool.uv.sources]
nested = { path = "../nested" }
`,
	"direct/src/pulumi_direct/__init__.py":        "",
	"direct/src/pulumi_direct/pulumi-plugin.json": `{"resource": true, "name": "direct"}`,
	"nested/pyproject.toml": `
[project]
name = "nested"
version = "4.5.6"
requires-python = ">=3.11"
[build-system]
requires = ["uv_build"]
build-backend = "uv_build"
`,
	"nested/src/nested/__init__.py": "",
}

func TestRequiredPackagesWithPip(t *testing.T) {
	t.Parallel()
	h := startHost(t, startEngine(t).address)
	info := project(t, nil, map[string]any{"toolchain": "pip", "virtualenv": "environment"})
	installed := withSDK(t, filepath.Join(info.RootDirectory, "environment"), "--without-pip")
	editable := t.TempDir()
	write(t, editable, map[string]string{
		"pulumi_editable/pulumi-plugin.json":             `{"resource": true, "version": "v0.0.1"}`,
		"pulumi_twice/pulumi-plugin.json":                `{"resource": true, "version": "9.9.9"}`,
		"pulumi_editable-0.0.1.dist-info/INSTALLER":      "test",
		"pulumi_of_the_wrong_kind.py/pulumi-plugin.json": `{"resource": false}`,
	})
	write(t, installed, map[string]string{
		"editable.pth": editable + "\n",
		"pulumi_full/pulumi-plugin.json": `{
			"resource": true, "name": "full", "version": "1.0.0", "server": "https://plugins.example.com",
			"parameterization": {"name": "base", "version": "2.0.0", "value": "dmFsdWU="},
			"extensionParameterization": {"name": "more", "version": "3.0.0", "value": "bW9yZQ=="}
		}`,
		"pulumi_two_words/pulumi-plugin.json":           `{"resource": true}`,
		"pulumi_two_words-1.2.3a4.dist-info/METADATA":   "",
		"pulumi_twice/pulumi-plugin.json":               `{"resource": true, "version": "1.0.0"}`,
		"pulumi_none/pulumi-plugin.json":                `{"resource": false, "version": "1.0.0"}`,
		"pulumi_unversioned/pulumi-plugin.json":         `{"resource": true}`,
		"pulumi_unversioned-1!2.0.0.dist-info/METADATA": "",
		"pulumi_without_declaration/__init__.py":        "",
	})
	want := map[string]*pulumirpc.PackageDependency{
		"full": {
			Kind: "resource", Name: "full", Version: "v1.0.0", Server: "https://plugins.example.com",
			Parameterization: &pulumirpc.PackageParameterization{Name: "base", Version: "2.0.0", Value: []byte("value")},
			Extension:        &pulumirpc.PackageParameterization{Name: "more", Version: "3.0.0", Value: []byte("more")},
		},
		"two-words": {Kind: "resource", Name: "two-words", Version: "v1.2.3-alpha.4"},
		"twice":     {Kind: "resource", Name: "twice", Version: "v1.0.0"},
		"editable":  {Kind: "resource", Name: "editable", Version: "v0.0.1"},
	}
	sharedSDK, err := filepath.Glob(filepath.Join(sitePackages, "*", "pulumi-plugin.json"))
	if err != nil {
		t.Fatal(err)
	}
	ofTheTest := slices.DeleteFunc(required(t, h, info), func(p *pulumirpc.PackageDependency) bool {
		return slices.Contains(sharedSDK, filepath.Join(sitePackages, "pulumi_"+p.Name, "pulumi-plugin.json"))
	})
	for _, got := range ofTheTest {
		if !proto.Equal(got, want[got.Name]) {
			t.Errorf("got %v, want %v", got, want[got.Name])
		}
		delete(want, got.Name)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}

	write(t, installed, map[string]string{"pulumi_broken/pulumi-plugin.json": `{"resource"`})
	_, err = h.GetRequiredPackages(t.Context(), &pulumirpc.GetRequiredPackagesRequest{Info: info})
	contains(t, fmt.Sprint(err), "pulumi_broken", "reinstall the package")
}

func TestUvEnvironmentFollowsTheLockFile(t *testing.T) {
	t.Parallel()
	h := startHost(t, startEngine(t).address)
	info := project(t, uvProject, map[string]any{"toolchain": "uv"})
	if got := required(t, h, info); len(got) != 1 || got[0].Name != "direct" || got[0].Version != "v1.2.3" {
		t.Errorf("required packages: %v", got)
	}
	for transitive, want := range map[bool][]string{
		false: {"pulumi-direct 1.2.3"},
		true:  {"nested 4.5.6", "pulumi-direct 1.2.3"},
	} {
		if got := dependencies(t, h, info, transitive); !slices.Equal(got, want) {
			t.Errorf("dependencies, transitive %v: %v, want %v", transitive, got, want)
		}
	}
	about, err := h.About(t.Context(), &pulumirpc.AboutRequest{Info: info})
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(info.RootDirectory, ".venv", "bin", "python"); about.Executable != want {
		t.Errorf("executable %s, want %s", about.Executable, want)
	}
	if about.Metadata["toolchain"] != "Uv" || about.Version == "" {
		t.Errorf("about: %v", about)
	}
}

func required(t *testing.T, h *host, info *pulumirpc.ProgramInfo) []*pulumirpc.PackageDependency {
	t.Helper()
	response, err := h.GetRequiredPackages(t.Context(), &pulumirpc.GetRequiredPackagesRequest{Info: info})
	if err != nil {
		t.Fatal(err)
	}
	return response.Packages
}

func dependencies(t *testing.T, h *host, info *pulumirpc.ProgramInfo, transitive bool) []string {
	t.Helper()
	response, err := h.GetProgramDependencies(t.Context(), &pulumirpc.GetProgramDependenciesRequest{
		Info: info, TransitiveDependencies: transitive,
	})
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, d := range response.Dependencies {
		listed = append(listed, d.Name+" "+d.Version)
	}
	slices.Sort(listed)
	return listed
}

func TestMissingEnvironmentSaysWhatToDo(t *testing.T) {
	t.Parallel()
	e := startEngine(t)
	withUv := startHost(t, e.address)
	withoutUv := startHost(t, e.address, "PATH=/usr/bin:/bin")
	for name, c := range map[string]struct {
		host    *host
		options map[string]any
		want    []string
	}{
		"pip": {withUv, map[string]any{"toolchain": "pip", "virtualenv": "gone"}, []string{
			"there is no virtual environment at ", "/gone", "run `pulumi install`",
		}},
		"uv without a project": {withUv, map[string]any{"toolchain": "uv"}, []string{"/.venv", "run `pulumi install`"}},
		"no uv": {withoutUv, map[string]any{"toolchain": "uv"}, []string{
			"Could not find `uv` executable", "Install uv",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			info := project(t, map[string]string{"__main__.py": ""}, c.options)
			_, err := c.host.GetRequiredPackages(t.Context(), &pulumirpc.GetRequiredPackagesRequest{Info: info})
			contains(t, fmt.Sprint(err), c.want...)
			_, err = c.host.Run(t.Context(), runRequest(e, info))
			contains(t, fmt.Sprint(err), c.want...)
		})
	}
}

func TestSemanticVersion(t *testing.T) {
	t.Parallel()
	for python, want := range map[string]string{
		"1":                "1.0.0",
		"1.2":              "1.2.0",
		"1.2.3":            "1.2.3",
		"1.2.3a4":          "1.2.3-alpha.4",
		"1.2.3b4":          "1.2.3-beta.4",
		"1.2.3rc4":         "1.2.3-rc.4",
		"1.2.3.post4":      "1.2.3+post4",
		"1.2.3.dev5":       "1.2.3+dev5",
		"1.2.3.post4.dev5": "1.2.3+post4dev5",
		"1!1.2.3":          "",
		"1.2.3.4":          "",
		"1.2.3+local":      "",
		"":                 "",
	} {
		if got := semanticVersion(python); got != want {
			t.Errorf("semanticVersion(%q) = %q, want %q", python, got, want)
		}
	}
}
