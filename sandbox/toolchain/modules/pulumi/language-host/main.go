// Command pulumi-language-python runs Pulumi programs and policy packs written in Python.
//
// It speaks the engine's LanguageRuntime protocol and leaves the work to two parts of the Pulumi SDK: the toolchain
// package (pip, uv or poetry environments) and the pulumi-language-python-exec script, which must lie beside this
// binary. What the protocol offers for generating code (GenerateProject, GenerateProgram, GeneratePackage, Link, Pack)
// is answered with Unimplemented.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/pulumi/pulumi/sdk/v3/go/common/util/logging"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

// version is that of the Pulumi release whose protocol and script the host is built with; the linker sets it.
var version = "0.0.0-unset"

// engineCheckInterval is how often the host asks whether the engine that started it is still there. It bounds how long
// a program outlives an engine that was killed.
const engineCheckInterval = 5 * time.Second

func main() {
	flag.String("tracing", "", "accepted for the engine's sake; the program's environment carries tracing")
	showVersion := flag.Bool("version", false, "print the version and exit")
	flag.Parse()
	if *showVersion {
		fmt.Println(version)
		return
	}
	logging.InitLogging(false, 0, false)
	if err := serve(flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "pulumi-language-python:", err)
		os.Exit(1)
	}
}

// serve answers requests until a signal arrives or the engine is gone. It prints the port it listens on, which is how
// the engine learns of it. The engine's address may be empty: then Handshake brings it.
func serve(engine string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	executor := filepath.Join(filepath.Dir(self), "pulumi-language-python-exec")
	if _, err := os.Stat(executor); err != nil {
		return fmt.Errorf("the script that runs programs is missing: copy it from the Pulumi SDK: %w", err)
	}

	lifetime, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if engine != "" {
		if err := rpcutil.Healthcheck(lifetime, engine, engineCheckInterval, stop); err != nil {
			return fmt.Errorf("engine at %s: %w", engine, err)
		}
	}
	ended := make(chan bool)
	context.AfterFunc(lifetime, func() { close(ended) })

	host := newLanguageHost(lifetime, engine, executor)
	server, err := rpcutil.ServeWithOptions(rpcutil.ServeOptions{
		Cancel: ended,
		Init: func(s *grpc.Server) error {
			pulumirpc.RegisterLanguageRuntimeServer(s, host)
			return nil
		},
		Options: rpcutil.TracingServerInterceptorOptions(nil),
	})
	if err != nil {
		return err
	}
	fmt.Println(server.Port)
	return <-server.Done // after the requests in flight, and so after the processes they run
}
