package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"github.com/pulumi/pulumi/sdk/v3/python/toolchain"
)

// exitErrorShown is the exit code by which pulumi-language-python-exec says that the user has seen the error.
const exitErrorShown = 32

// Run runs a program to its end. What the program prints goes to the host's own output, which the engine shows.
func (h *languageHost) Run(ctx context.Context, req *pulumirpc.RunRequest) (*pulumirpc.RunResponse, error) {
	ctx, cancel, engine := h.inSession(ctx)
	defer cancel()
	if engine == "" {
		return nil, status.Error(codes.FailedPrecondition, "no engine is known: Handshake comes before Run")
	}
	env, err := h.environment(req.Info, false)
	if err != nil {
		return nil, err
	}
	if err := typecheck(ctx, env); err != nil {
		return nil, err
	}
	cmd, err := h.programCommand(ctx, env, engine, req)
	if err != nil {
		return nil, err
	}
	if req.AttachDebugger {
		detach, err := attachDebugger(ctx, cancel, env, engine, "Pulumi: Program (Python)", cmd)
		if err != nil {
			return nil, err
		}
		defer detach()
	}
	err = runInGroup(ctx, cmd, cmd.Wait)
	exit, exited := errors.AsType[*exec.ExitError](err)
	switch {
	case ctx.Err() != nil:
		return nil, status.Error(codes.Canceled, "the program was cancelled")
	case err == nil:
		return &pulumirpc.RunResponse{}, nil
	case exited && exit.ExitCode() == exitErrorShown:
		return &pulumirpc.RunResponse{Bail: true}, nil
	case exited:
		return &pulumirpc.RunResponse{Error: "program " + describe(exit)}, nil
	default:
		return nil, fmt.Errorf("the program cannot be run: %w", err)
	}
}

func (h *languageHost) programCommand(
	ctx context.Context, env *environment, engine string, req *pulumirpc.RunRequest,
) (*exec.Cmd, error) {
	config, err := configVariables(req.Config, req.ConfigSecretKeys)
	if err != nil {
		return nil, err
	}
	args := append([]string{
		h.executor,
		"--monitor", req.MonitorAddress,
		"--engine", engine,
		"--project", req.Project,
		"--root_directory", req.Info.RootDirectory,
		"--stack", req.Stack,
		"--organization", req.Organization,
		"--pwd", req.Pwd,
		"--dry_run", strconv.FormatBool(req.DryRun),
		"--parallel", strconv.Itoa(int(req.Parallel)),
		req.Info.EntryPoint,
	}, req.Args...)
	cmd, err := env.command(ctx, append(config, "PYTHONUNBUFFERED=1"), args...)
	if err != nil {
		return nil, err
	}
	cmd.Dir = req.Info.ProgramDirectory
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd, nil
}

// configVariables returns the variables in which the Python SDK looks for a stack's config. They are set even when the
// config is empty: a host that runs below another program must not pass on that one's.
func configVariables(config map[string]string, secretKeys []string) ([]string, error) {
	if config == nil {
		config = map[string]string{}
	}
	encoded, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	keys, err := json.Marshal(append([]string{}, secretKeys...))
	if err != nil {
		return nil, err
	}
	return []string{"PULUMI_CONFIG=" + string(encoded), "PULUMI_CONFIG_SECRET_KEYS=" + string(keys)}, nil
}

// typecheck runs the type checker that the options name, if any, over the program.
func typecheck(ctx context.Context, env *environment) error {
	program := env.options.ProgramDir
	var args []string
	switch env.options.Typechecker {
	case toolchain.TypeCheckerMypy:
		virtualenv, err := env.toolchain.VirtualEnvPath(ctx)
		if err != nil {
			return err
		}
		args = []string{"mypy", program}
		if inside, err := filepath.Rel(program, virtualenv); err == nil {
			args = append(args, "--exclude", inside)
		}
	case toolchain.TypeCheckerPyright:
		args = []string{"pyright", program}
	default:
		return nil
	}
	if err := env.require(ctx, args[0], "runtime option typechecker"); err != nil {
		return err
	}
	cmd, err := env.command(ctx, nil, append([]string{"-m"}, args...)...)
	if err != nil {
		return err
	}
	cmd.Dir = program
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := runInGroup(ctx, cmd, cmd.Wait); err != nil {
		return fmt.Errorf("%s refuses the program, see above: %w", args[0], err)
	}
	return nil
}
