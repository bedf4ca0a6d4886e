package main

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/emptypb"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

func TestVersionIsTheOneThatWasLinkedIn(t *testing.T) {
	t.Parallel()
	info, err := startHost(t, "").GetPluginInfo(t.Context(), &emptypb.Empty{})
	if err != nil || info.Version != hostVersion {
		t.Errorf("GetPluginInfo: %v, %v", info, err)
	}
	printed, err := exec.Command(hostBinary, "-version").Output()
	if err != nil || strings.TrimSpace(string(printed)) != hostVersion {
		t.Errorf("-version: %s, %v", printed, err)
	}
}

func TestAboutWithoutAProgramDescribesTheAmbientPython(t *testing.T) {
	t.Parallel()
	about, err := startHost(t, "").About(t.Context(), &pulumirpc.AboutRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(about.Version, "3.") || about.Executable == "" {
		t.Errorf("about: %v", about)
	}
}

func TestOptionsThatNobodyReadsAreRefused(t *testing.T) {
	t.Parallel()
	e := startEngine(t)
	h := startHost(t, e.address)
	for _, c := range []struct {
		name  string
		value any
		want  string
	}{
		{"virtualenvironment", "x", "is unknown: choose toolchain, typechecker, virtualenv"},
		{"toolchain", "conda", "cannot be conda: choose pip, poetry, uv"},
		{"toolchain", 1, "cannot be 1: choose pip, poetry, uv"},
		{"typechecker", "pyre", "cannot be pyre: choose mypy, pyright"},
		{"virtualenv", true, "cannot be true: choose the path of a folder"},
	} {
		info := project(t, map[string]string{"__main__.py": ""}, map[string]any{c.name: c.value})
		_, err := h.Run(t.Context(), runRequest(e, info))
		contains(t, fmt.Sprint(err), "runtime option "+c.name+" in "+info.RootDirectory, c.want)
	}
}

func TestTheFlagsOfTheEngineAreUnderstood(t *testing.T) {
	t.Parallel()
	// What `pulumi --logflow --logtostderr -v=3 --tracing FILE` passes on.
	output, err := exec.Command(hostBinary, "--logtostderr", "-v=3", "--tracing", "file:trace", "-version").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}
