package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"github.com/pulumi/pulumi/sdk/v3/python/toolchain"
)

// parseOptions reads the `runtime.options` of a Pulumi.yaml, PulumiPolicy.yaml or PulumiPlugin.yaml. An option or a
// value that is not known is an error: it is the misspelling of one that somebody relies on.
//
// A plugin, unlike a program or a policy pack, never runs with the ambient Python: unless its options say otherwise,
// its environment is the folder venv.
func parseOptions(info *pulumirpc.ProgramInfo, isPlugin bool) (toolchain.PythonOptions, error) {
	options := toolchain.PythonOptions{Root: info.RootDirectory, ProgramDir: info.ProgramDirectory}
	given := info.Options.AsMap()
	for _, name := range slices.Sorted(maps.Keys(given)) {
		value, isText := given[name].(string)
		refused := func(choices ...string) error {
			return fmt.Errorf("runtime option %s in %s cannot be %v: choose %s",
				name, info.RootDirectory, given[name], strings.Join(choices, ", "))
		}
		switch name {
		case "virtualenv":
			if !isText {
				return options, refused("the path of a folder, relative to that one")
			}
			options.Virtualenv = value
		case "toolchain":
			switch value {
			case "pip":
				options.Toolchain = toolchain.Pip
			case "uv":
				options.Toolchain = toolchain.Uv
			case "poetry":
				options.Toolchain = toolchain.Poetry
			default:
				return options, refused("pip", "poetry", "uv")
			}
		case "typechecker":
			switch value {
			case "mypy":
				options.Typechecker = toolchain.TypeCheckerMypy
			case "pyright":
				options.Typechecker = toolchain.TypeCheckerPyright
			default:
				return options, refused("mypy", "pyright")
			}
		default:
			return options, fmt.Errorf("runtime option %s in %s is unknown: choose toolchain, typechecker, virtualenv",
				name, info.RootDirectory)
		}
	}
	usesPip := options.Toolchain == toolchain.Auto || options.Toolchain == toolchain.Pip
	if isPlugin && usesPip && options.Virtualenv == "" {
		options.Virtualenv = "venv"
	}
	return options, nil
}
