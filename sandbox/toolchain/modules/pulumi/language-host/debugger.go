package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

// attachDebugger makes the command run below debugpy, which waits for a debugger before it starts the program, and
// tells the engine where to attach one. If that fails it calls end. The returned function is to be called when the
// command has ended.
func attachDebugger(
	ctx context.Context, end func(), env *environment, engine, name string, cmd *exec.Cmd,
) (func(), error) {
	if err := env.require(ctx, "debugpy", "attaching a debugger"); err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "pulumi-debugpy-")
	if err != nil {
		return nil, err
	}
	endpoints := filepath.Join(folder, "endpoints.json")
	cmd.Env = append(cmd.Env, "DEBUGPY_ADAPTER_ENDPOINTS="+endpoints)
	cmd.Args = slices.Insert(cmd.Args, 1,
		"-Xfrozen_modules=off", "-m", "debugpy", "--listen", "127.0.0.1:0", "--wait-for-client")
	ctx, stop := context.WithCancel(ctx)
	go func() {
		if err := announceDebugger(ctx, engine, name, endpoints); err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "no debugger can be attached:", err)
			end()
		}
	}()
	return func() { stop(); _ = os.RemoveAll(folder) }, nil
}

// announceDebugger waits until debugpy has written down where it listens, and tells the engine.
func announceDebugger(ctx context.Context, engine, name, endpoints string) error {
	var listening struct {
		Client struct {
			Host string
			Port int
		}
	}
	for poll := time.NewTicker(50 * time.Millisecond); ; {
		if written, err := os.ReadFile(endpoints); err == nil && json.Unmarshal(written, &listening) == nil {
			poll.Stop()
			break
		}
		select {
		case <-ctx.Done():
			poll.Stop()
			return ctx.Err()
		case <-poll.C:
		}
	}
	config, err := structpb.NewStruct(map[string]any{
		"name":       name,
		"type":       "python",
		"request":    "attach",
		"connect":    map[string]any{"host": listening.Client.Host, "port": listening.Client.Port},
		"justMyCode": true,
	})
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(engine, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = pulumirpc.NewEngineClient(conn).StartDebugging(ctx, &pulumirpc.StartDebuggingRequest{
		Config:  config,
		Message: fmt.Sprintf("on port %d", listening.Client.Port),
	})
	return err
}
