package main

import (
	"fmt"
	"sync"

	"google.golang.org/grpc"

	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

// InstallDependencies creates the environment of a program or plugin and installs what it depends on, sending what the
// package manager prints.
func (h *languageHost) InstallDependencies(
	req *pulumirpc.InstallDependenciesRequest,
	stream grpc.ServerStreamingServer[pulumirpc.InstallDependenciesResponse],
) error {
	ctx, cancel, _ := h.inSession(stream.Context())
	defer cancel()
	env, err := h.environment(req.Info, req.IsPlugin)
	if err != nil {
		return err
	}
	defer h.forget(env)
	output, stdout, stderr, err := rpcutil.MakeInstallDependenciesStreams(serialized(stream), req.IsTerminal)
	if err != nil {
		return err
	}
	defer output.Close() // may be closed twice
	folder := req.Info.ProgramDirectory
	_, _ = fmt.Fprint(stdout, "Installing dependencies...\n\n")
	err = env.toolchain.InstallDependencies(ctx, folder, req.UseLanguageVersionTools, true, stdout, stderr)
	if err != nil {
		return fmt.Errorf("the dependencies of %s cannot be installed: %w", folder, err)
	}
	_, _ = fmt.Fprint(stdout, "Finished installing dependencies\n\n")
	return output.Close()
}

// serialStream is a stream that several writers may send to at once, which gRPC does not allow by itself.
type serialStream[T any] struct {
	grpc.ServerStreamingServer[T]
	mu sync.Mutex
}

func serialized[T any](stream grpc.ServerStreamingServer[T]) *serialStream[T] {
	return &serialStream[T]{ServerStreamingServer: stream}
}

// Send sends one message at a time.
func (s *serialStream[T]) Send(message *T) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ServerStreamingServer.Send(message)
}
