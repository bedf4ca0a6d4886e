package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"github.com/pulumi/pulumi/sdk/v3/python/toolchain"
)

// environment is the Python environment of a program or plugin.
//
// Resolving a toolchain and getting a command from it start processes each time (`uv --version` and `uv sync`, or
// `poetry env info`), so both are done once in a session.
type environment struct {
	options   toolchain.PythonOptions
	toolchain toolchain.Toolchain

	mu          sync.Mutex // guards what prepare and importPath find out
	interpreter string     // path of Python; empty until prepared
	virtualenv  string     // empty with the ambient Python
	imports     []string   // the folders that Python imports from
}

// environment returns the environment that a program's or plugin's options describe.
func (h *languageHost) environment(info *pulumirpc.ProgramInfo, isPlugin bool) (*environment, error) {
	options, err := parseOptions(info, isPlugin)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if env, known := h.environments[options]; known {
		return env, nil
	}
	resolved, err := toolchain.ResolveToolchain(options)
	if err != nil {
		return nil, err
	}
	env := &environment{options: options, toolchain: resolved}
	h.environments[options] = env
	return env, nil
}

// forget makes later requests look at the environment anew.
func (h *languageHost) forget(env *environment) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.environments, env.options)
}

// command returns a command that runs the environment's Python, with variables added to those of the host. With uv the
// first call brings the environment up to date with the lock file, creating it if need be; with pip and poetry the
// environment must exist.
func (e *environment) command(ctx context.Context, variables []string, args ...string) (*exec.Cmd, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.prepare(ctx); err != nil {
		return nil, err
	}
	return e.python(ctx, variables, args...), nil
}

func (e *environment) python(ctx context.Context, variables []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, e.interpreter, args...)
	cmd.Env = append(os.Environ(), variables...)
	if e.virtualenv != "" {
		cmd.Env = toolchain.ActivateVirtualEnv(cmd.Env, e.virtualenv)
	}
	return cmd
}

func (e *environment) prepare(ctx context.Context) error {
	if e.interpreter != "" {
		return nil
	}
	python, err := e.toolchain.Command(ctx)
	if err != nil {
		return fmt.Errorf("the Python environment of %s cannot be used (`pulumi install` creates it): %w",
			e.options.ProgramDir, err)
	}
	virtualenv, err := e.toolchain.VirtualEnvPath(ctx)
	if err != nil {
		return err
	}
	if virtualenv != "" && !toolchain.IsVirtualEnv(virtualenv) {
		return fmt.Errorf("there is no virtual environment at %s: run `pulumi install` in %s to create it",
			virtualenv, e.options.ProgramDir)
	}
	e.interpreter, e.virtualenv = python.Path, virtualenv
	return nil
}

// importPath returns the folders that the environment's Python imports from, other than the program's own.
func (e *environment) importPath(ctx context.Context) ([]string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.imports != nil {
		return e.imports, nil
	}
	if err := e.prepare(ctx); err != nil {
		return nil, err
	}
	// Unlike a guess from the folder's layout, Python's answer holds for editable installations, for system site
	// packages and for the ambient Python. It costs the start of an interpreter, 20 ms.
	output, err := e.python(ctx, nil, "-c", `import sys; print(*filter(None, sys.path), sep="\n")`).Output()
	if err != nil {
		return nil, fmt.Errorf("%s cannot tell where it imports from: %w", e.interpreter, err)
	}
	e.imports = strings.Split(strings.TrimSpace(string(output)), "\n")
	return e.imports, nil
}

// require returns an error unless the environment has the Python package, which the named feature needs.
func (e *environment) require(ctx context.Context, name, feature string) error {
	imports, err := e.importPath(ctx)
	if err != nil {
		return err
	}
	for _, folder := range imports {
		if _, err := os.Stat(filepath.Join(folder, name)); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s needs the Python package %s: add it to the dependencies of %s and run `pulumi install`",
		feature, name, e.options.ProgramDir)
}
