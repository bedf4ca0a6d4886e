package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"google.golang.org/grpc"

	"github.com/pulumi/pulumi/sdk/v3"
	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"github.com/pulumi/pulumi/sdk/v3/python/toolchain"
)

// RunPlugin runs a policy pack (kind analyzer) or another plugin to its end, sending what it prints and its exit code.
func (h *languageHost) RunPlugin(
	req *pulumirpc.RunPluginRequest, stream grpc.ServerStreamingServer[pulumirpc.RunPluginResponse],
) error {
	ctx, cancel, engine := h.inSession(stream.Context())
	defer cancel()
	isPolicyPack := req.Kind == string(apitype.AnalyzerPlugin)
	env, err := h.environment(req.Info, !isPolicyPack)
	if err != nil {
		return err
	}
	args, err := pluginArguments(req)
	if err != nil {
		return err
	}
	cmd, err := env.command(ctx, append(req.Env, "PYTHONUNBUFFERED=1"), args...)
	if err != nil {
		return err
	}
	output, stdout, stderr, err := rpcutil.MakeRunPluginStreams(serialized(stream), false)
	if err != nil {
		return err
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr = req.Pwd, stdout, stderr
	if req.AttachDebugger {
		detach, err := attachDebugger(ctx, cancel, env, engine, fmt.Sprintf("Pulumi: Plugin (%s)", req.Name), cmd)
		if err != nil {
			return err
		}
		defer detach()
	}

	wait := cmd.Wait
	if isPolicyPack {
		if wait, err = configurePolicyPack(ctx, cmd, req.Info.ProgramDirectory, stdout); err != nil {
			return err
		}
	}
	err = runInGroup(ctx, cmd, wait)
	code := int32(0)
	if exit, exited := errors.AsType[*exec.ExitError](err); exited {
		code = int32(exit.ExitCode())
	} else if err != nil {
		return fmt.Errorf("the plugin in %s does not run: %w", req.Info.ProgramDirectory, err)
	}
	if err := output.Close(); err != nil {
		return err
	}
	return stream.Send(&pulumirpc.RunPluginResponse{
		Output: &pulumirpc.RunPluginResponse_Exitcode{Exitcode: code},
	})
}

// pluginArguments returns what Python is to run: a folder's __main__.py, or else the package that the folder builds.
func pluginArguments(req *pulumirpc.RunPluginRequest) ([]string, error) {
	folder := req.Info.ProgramDirectory
	if _, err := os.Stat(filepath.Join(folder, "__main__.py")); err == nil {
		if req.Kind == string(apitype.AnalyzerPlugin) {
			return append(append([]string{"-m", "pulumi.policy"}, req.Args...), folder), nil
		}
		return append([]string{folder}, req.Args...), nil
	}
	buildable, err := toolchain.IsBuildablePackage(folder)
	if err != nil {
		return nil, err
	}
	if !buildable {
		return nil, fmt.Errorf("%s is no plugin: it needs a __main__.py or a pyproject.toml with a build system", folder)
	}
	pyproject, err := toolchain.LoadPyproject(folder)
	if err != nil {
		return nil, err
	}
	return append([]string{"-m", "pulumi.run.plugin", pyproject.Project.Name}, req.Args...), nil
}

// configurePolicyPack makes the engine believe that the pack runs, so that it sends the stack's config, and adds that
// to the command's variables, where the Python SDK looks for it. The returned function waits for the running pack.
func configurePolicyPack(ctx context.Context, cmd *exec.Cmd, folder string, stdout io.Writer) (func() error, error) {
	proxy, packStdout, err := sdk.NewPolicyProxy(ctx, stdout)
	if err != nil {
		return nil, err
	}
	stack, err := proxy.AwaitConfiguration(ctx)
	if err != nil {
		return nil, err
	}
	cmd.Dir, cmd.Stdout = folder, packStdout
	if stack != nil {
		config, err := configVariables(stack.Config, stack.ConfigSecretKeys)
		if err != nil {
			return nil, err
		}
		cmd.Env = append(append(cmd.Env, config...),
			"PULUMI_ORGANIZATION="+stack.Organization,
			"PULUMI_PROJECT="+stack.Project,
			"PULUMI_STACK="+stack.Stack,
			"PULUMI_DRY_RUN="+strconv.FormatBool(stack.DryRun),
		)
	}
	// The end of the command's own context ends the pack; the proxy is to wait for that.
	return func() error { return proxy.Attach(context.WithoutCancel(ctx), cmd) }, nil
}
