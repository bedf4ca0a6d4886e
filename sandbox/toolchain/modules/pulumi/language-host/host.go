package main

import (
	"context"
	"sync"

	"google.golang.org/protobuf/types/known/emptypb"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"github.com/pulumi/pulumi/sdk/v3/python/toolchain"
)

// languageHost answers the engine. Its methods are in the file named after what they deal with: program.go, plugin.go,
// packages.go, install.go.
type languageHost struct {
	pulumirpc.UnimplementedLanguageRuntimeServer

	lifetime context.Context
	executor string // path of pulumi-language-python-exec

	mu           sync.Mutex
	engine       string          // the engine's address, host:port
	session      context.Context // ends with Cancel
	endSession   context.CancelFunc
	environments map[toolchain.PythonOptions]*environment
}

func newLanguageHost(lifetime context.Context, engine, executor string) *languageHost {
	h := &languageHost{lifetime: lifetime, executor: executor}
	h.begin(engine)
	return h
}

// begin opens a session with the engine at the given address.
func (h *languageHost) begin(engine string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.engine = engine
	h.session, h.endSession = context.WithCancel(h.lifetime)
	h.environments = map[toolchain.PythonOptions]*environment{}
}

// inSession returns a context that ends with the request or with the session, whichever is first, and the address of
// the session's engine.
func (h *languageHost) inSession(request context.Context) (context.Context, context.CancelFunc, string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ctx, cancel := context.WithCancel(request)
	stop := context.AfterFunc(h.session, cancel)
	return ctx, func() { stop(); cancel() }, h.engine
}

// Handshake tells a host that was started by hand (PULUMI_DEBUG_LANGUAGES) which engine it serves from now on.
func (h *languageHost) Handshake(
	_ context.Context, req *pulumirpc.LanguageHandshakeRequest,
) (*pulumirpc.LanguageHandshakeResponse, error) {
	h.begin(req.EngineAddress)
	return &pulumirpc.LanguageHandshakeResponse{}, nil
}

// Cancel ends everything that runs in this session: the process groups of programs and plugins are interrupted and,
// after the grace period, killed.
func (h *languageHost) Cancel(context.Context, *emptypb.Empty) (*emptypb.Empty, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.endSession()
	return &emptypb.Empty{}, nil
}

// GetPluginInfo tells the host's version.
func (h *languageHost) GetPluginInfo(context.Context, *emptypb.Empty) (*pulumirpc.PluginInfo, error) {
	return &pulumirpc.PluginInfo{Version: version}, nil
}

// About tells which Python a program runs with, or which one is the ambient Python when no program is given.
func (h *languageHost) About(ctx context.Context, req *pulumirpc.AboutRequest) (*pulumirpc.AboutResponse, error) {
	ctx, cancel, _ := h.inSession(ctx)
	defer cancel()
	program := req.Info
	if program == nil {
		program = &pulumirpc.ProgramInfo{}
	}
	env, err := h.environment(program, false)
	if err != nil {
		return nil, err
	}
	info, err := env.toolchain.About(ctx)
	if err != nil {
		return nil, err
	}
	return &pulumirpc.AboutResponse{
		Executable: info.PythonExecutable,
		Version:    info.PythonVersion.String(),
		Metadata: map[string]string{
			"toolchain":        toolchain.Name(env.options.Toolchain),
			"toolchainVersion": info.ToolchainVersion.String(),
			"typechecker":      toolchain.TypeCheckerName(env.options.Typechecker),
		},
	}, nil
}
