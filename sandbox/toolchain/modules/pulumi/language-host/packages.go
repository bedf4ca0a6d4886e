package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

// GetRequiredPackages lists the resource plugins that the installed Python packages ask for, each in a
// pulumi-plugin.json beside its modules.
func (h *languageHost) GetRequiredPackages(
	ctx context.Context, req *pulumirpc.GetRequiredPackagesRequest,
) (*pulumirpc.GetRequiredPackagesResponse, error) {
	ctx, cancel, _ := h.inSession(ctx)
	defer cancel()
	env, err := h.environment(req.Info, false)
	if err != nil {
		return nil, err
	}
	folders, err := env.importPath(ctx)
	if err != nil {
		return nil, err
	}
	response := &pulumirpc.GetRequiredPackagesResponse{}
	seen := map[string]bool{}
	for _, folder := range folders {
		entries, _ := os.ReadDir(folder) // Python's path may name what does not exist or is a file
		for _, entry := range entries {
			file := filepath.Join(folder, entry.Name(), "pulumi-plugin.json")
			if _, err := os.Stat(file); err != nil || seen[entry.Name()] {
				continue
			}
			seen[entry.Name()] = true // of two packages with one name Python imports the first
			declared, err := plugin.LoadPulumiPluginJSON(file)
			if err != nil {
				return nil, fmt.Errorf("%s cannot be read, reinstall the package: %w", file, err)
			}
			if required := requiredPackage(declared, entry.Name(), entries); required != nil {
				response.Packages = append(response.Packages, required)
			}
		}
	}
	return response, nil
}

// requiredPackage returns the plugin that a Python package declares, or nil if it declares to need none. A name or
// version that it leaves out is that of the package, whose metadata is among the entries of the same folder. Without
// any version it returns nil, too: the engine finds the plugin when the program registers the first resource.
func requiredPackage(
	declared *plugin.PulumiPluginJSON, module string, entries []fs.DirEntry,
) *pulumirpc.PackageDependency {
	name, version := declared.Name, strings.TrimPrefix(declared.Version, "v")
	if name == "" {
		name = strings.ReplaceAll(strings.TrimPrefix(module, "pulumi_"), "_", "-")
	}
	if version == "" {
		version = semanticVersion(distributionVersion(module, entries))
	}
	if !declared.Resource || version == "" {
		return nil
	}
	return &pulumirpc.PackageDependency{
		Kind:             string(apitype.ResourcePlugin),
		Name:             name,
		Version:          "v" + version,
		Server:           declared.Server,
		Parameterization: parameterization(declared.Parameterization),
		Extension:        parameterization(declared.ExtensionParameterization),
	}
}

func parameterization(declared *plugin.PulumiParameterizationJSON) *pulumirpc.PackageParameterization {
	if declared == nil {
		return nil
	}
	return &pulumirpc.PackageParameterization{
		Name: declared.Name, Version: declared.Version, Value: declared.Value,
	}
}

// distributionVersion returns the version in the name of a package's .dist-info folder, or nothing.
// https://packaging.python.org/en/latest/specifications/recording-installed-packages/#the-dist-info-directory
func distributionVersion(module string, entries []fs.DirEntry) string {
	for _, entry := range entries {
		name, isMetadata := strings.CutSuffix(entry.Name(), ".dist-info")
		if version, found := strings.CutPrefix(name, module+"-"); found && isMetadata {
			return version
		}
	}
	return ""
}

// pythonVersion matches the versions that have a semantic counterpart: at most three numbers and no epoch.
// https://packaging.python.org/en/latest/specifications/version-specifiers/
var pythonVersion = regexp.MustCompile(
	`^(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:(a|b|rc)(\d+))?(?:\.(post\d+))?(?:\.(dev\d+))?$`)

// semanticVersion translates a Python version: 1.2 is 1.2.0, 1.2.3a4 is 1.2.3-alpha.4, 1.2.3.post4.dev5 is
// 1.2.3+post4dev5. It returns nothing for a version without a counterpart.
func semanticVersion(version string) string {
	part := pythonVersion.FindStringSubmatch(version)
	if part == nil {
		return ""
	}
	for i := 2; i <= 3; i++ {
		if part[i] == "" {
			part[i] = "0"
		}
	}
	result := strings.Join(part[1:4], ".")
	if part[4] != "" {
		result += "-" + map[string]string{"a": "alpha", "b": "beta", "rc": "rc"}[part[4]] + "." + part[5]
	}
	if build := part[6] + part[7]; build != "" {
		result += "+" + build
	}
	return result
}

// GetProgramDependencies lists the Python packages of a program: those it names itself or, if asked for transitive
// ones, all of them. With uv and poetry they come from the lock file, with pip from `pip list`.
func (h *languageHost) GetProgramDependencies(
	ctx context.Context, req *pulumirpc.GetProgramDependenciesRequest,
) (*pulumirpc.GetProgramDependenciesResponse, error) {
	ctx, cancel, _ := h.inSession(ctx)
	defer cancel()
	env, err := h.environment(req.Info, false)
	if err != nil {
		return nil, err
	}
	packages, err := env.toolchain.ListPackages(ctx, req.TransitiveDependencies)
	if err != nil {
		return nil, fmt.Errorf("the dependencies of %s cannot be listed (`pulumi install` installs them): %w",
			env.options.ProgramDir, err)
	}
	response := &pulumirpc.GetProgramDependenciesResponse{}
	for _, p := range packages {
		response.Dependencies = append(response.Dependencies,
			&pulumirpc.DependencyInfo{Name: p.Name, Version: p.Version})
	}
	return response, nil
}
