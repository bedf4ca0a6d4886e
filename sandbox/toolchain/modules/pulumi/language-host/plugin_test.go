package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/emptypb"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

// policyPack serves the analyzer protocol as the Pulumi policy SDK does, and reports in its description the stack that
// it saw when it was loaded.
const policyPack = `
import sys
from concurrent import futures
import grpc, pulumi
from google.protobuf import empty_pb2
from pulumi.runtime.proto import analyzer_pb2, analyzer_pb2_grpc, plugin_pb2

seen = " ".join([pulumi.get_project(), pulumi.get_stack(), str(pulumi.Config("shop").get("key"))])

class Pack(analyzer_pb2_grpc.AnalyzerServicer):
    def GetAnalyzerInfo(self, request, context):
        return analyzer_pb2.AnalyzerInfo(name="pack", displayName=seen)

server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
analyzer_pb2_grpc.add_AnalyzerServicer_to_server(Pack(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port)
print("said by the pack", file=sys.stderr)
server.wait_for_termination()
`

// pluginRun is a RunPlugin call and what came of it so far.
type pluginRun struct {
	stdout, stderr buffer
	exit           chan int32 // receives the exit code
	failed         chan error // receives the error that ended the stream instead
}

func runPlugin(ctx context.Context, t *testing.T, h *host, req *pulumirpc.RunPluginRequest) *pluginRun {
	t.Helper()
	stream, err := h.RunPlugin(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	run := &pluginRun{exit: make(chan int32, 1), failed: make(chan error, 1)}
	go func() {
		for {
			message, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				run.failed <- err
				return
			}
			switch output := message.Output.(type) {
			case *pulumirpc.RunPluginResponse_Stdout:
				_, _ = run.stdout.Write(output.Stdout)
			case *pulumirpc.RunPluginResponse_Stderr:
				_, _ = run.stderr.Write(output.Stderr)
			case *pulumirpc.RunPluginResponse_Exitcode:
				run.exit <- output.Exitcode
			}
		}
	}()
	return run
}

// analyzer returns a client for the policy pack that a call runs.
func (r *pluginRun) analyzer(t *testing.T) pulumirpc.AnalyzerClient {
	t.Helper()
	eventually(t, "the pack says where it listens", func() bool { return strings.Contains(r.stdout.String(), "\n") })
	port, _, _ := strings.Cut(r.stdout.String(), "\n")
	return pulumirpc.NewAnalyzerClient(dial(t, "127.0.0.1:"+port))
}

func policyPackRequest(e *engine, info *pulumirpc.ProgramInfo) *pulumirpc.RunPluginRequest {
	return &pulumirpc.RunPluginRequest{
		Info: info, Pwd: info.RootDirectory, Kind: "analyzer", Name: "pack", Args: []string{e.address},
	}
}

func TestAPolicyPackSeesItsStackAndEndsWithTheCall(t *testing.T) {
	t.Parallel()
	e := startEngine(t)
	h := startHost(t, e.address)
	info := program(t, "import os\nopen('pid', 'w').write(str(os.getpid()))\n"+policyPack)
	ctx, endRequest := cancellable(t)
	run := runPlugin(ctx, t, h, policyPackRequest(e, info))
	pack := run.analyzer(t)
	if _, err := pack.ConfigureStack(t.Context(), &pulumirpc.AnalyzerStackConfigureRequest{
		Project: "shop", Stack: "prod", Config: map[string]string{"shop:key": "value"},
	}); err != nil {
		t.Fatal(err)
	}
	described, err := pack.GetAnalyzerInfo(t.Context(), &emptypb.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	if described.DisplayName != "shop prod value" {
		t.Errorf("the pack saw %q", described.DisplayName)
	}
	eventually(t, "its words arrive", func() bool { return run.stderr.String() == "said by the pack\n" })

	pid := awaitFile(t, filepath.Join(info.ProgramDirectory, "pid"))
	if !running(pid) {
		t.Fatal("the pack does not run")
	}
	endRequest()
	eventually(t, "the pack has ended", func() bool { return !running(pid) })
}

func TestAPolicyPackThatFailsSaysWhy(t *testing.T) {
	t.Parallel()
	e := startEngine(t)
	h := startHost(t, e.address)
	run := runPlugin(t.Context(), t, h, policyPackRequest(e, program(t, `raise ValueError("deliberate")`)))
	if _, err := run.analyzer(t).GetAnalyzerInfo(t.Context(), &emptypb.Empty{}); err == nil {
		t.Error("a pack that does not run answered")
	}
	contains(t, fmt.Sprint(<-run.failed), "does not run")
	contains(t, run.stderr.String(), "ValueError: deliberate")
}

func TestAPluginRunsWhereAndAsAsked(t *testing.T) {
	t.Parallel()
	e := startEngine(t)
	h := startHost(t, e.address)
	info := project(t, map[string]string{"__main__.py": `
import os, sys, pulumi
print(sys.argv[1:], os.getcwd(), os.environ["GIVEN"], os.environ["PATH"].split(os.pathsep)[0])
print("said by the plugin", file=sys.stderr)
sys.exit(3)
`}, nil)
	withSDK(t, filepath.Join(info.RootDirectory, "venv"), "--without-pip")
	pwd := t.TempDir()
	run := runPlugin(t.Context(), t, h, &pulumirpc.RunPluginRequest{
		Info: info, Pwd: pwd, Kind: "resource", Args: []string{"one", "two"},
		Env: []string{"GIVEN=variable", "PATH=" + os.Getenv("PATH")},
	})
	if code := <-run.exit; code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
	want := fmt.Sprintf("['one', 'two'] %s variable %s\n", pwd, filepath.Join(info.RootDirectory, "venv", "bin"))
	if run.stdout.String() != want {
		t.Errorf("the plugin printed %q, want %q", run.stdout.String(), want)
	}
	if run.stderr.String() != "said by the plugin\n" {
		t.Errorf("the plugin said %q", run.stderr.String())
	}
}

func TestAPluginThatIsAPackageRuns(t *testing.T) {
	t.Parallel()
	e := startEngine(t)
	h := startHost(t, e.address)
	info := project(t, map[string]string{
		"pyproject.toml":         "[project]\nname = \"my-plugin\"\n[build-system]\nbuild-backend = \"uv_build\"\n",
		"my_plugin/__init__.py":  "",
		"my_plugin/__main__.py":  "print('the package ran')\n",
		"unrelated/__init__.py":  "",
		"unrelated/something.py": "",
	}, nil)
	packages := withSDK(t, filepath.Join(info.RootDirectory, "venv"), "--without-pip")
	write(t, packages, map[string]string{"plugin.pth": info.RootDirectory + "\n"})
	run := runPlugin(t.Context(), t, h, &pulumirpc.RunPluginRequest{Info: info, Pwd: info.RootDirectory, Kind: "resource"})
	if code := <-run.exit; code != 0 || run.stdout.String() != "the package ran\n" {
		t.Errorf("exit code %d, output %q, errors %q", code, run.stdout.String(), run.stderr.String())
	}
}

func TestAFolderWithoutAPluginIsRefused(t *testing.T) {
	t.Parallel()
	h := startHost(t, startEngine(t).address)
	info := project(t, nil, nil)
	run := runPlugin(t.Context(), t, h, &pulumirpc.RunPluginRequest{Info: info, Pwd: info.RootDirectory, Kind: "resource"})
	contains(t, fmt.Sprint(<-run.failed), info.RootDirectory, "__main__.py", "pyproject.toml")
}
