package main

import (
	"context"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

// engine is the other side of the protocol: what the host and the programs call.
type engine struct {
	pulumirpc.UnimplementedEngineServer
	pulumirpc.UnimplementedResourceMonitorServer

	address  string
	server   *grpc.Server
	debugger chan *pulumirpc.StartDebuggingRequest

	mu      sync.Mutex
	errors  []string         // what programs logged as errors
	outputs *structpb.Struct // what the program exported
}

func startEngine(t *testing.T) *engine {
	t.Helper()
	e := &engine{server: grpc.NewServer(), debugger: make(chan *pulumirpc.StartDebuggingRequest, 1)}
	pulumirpc.RegisterEngineServer(e.server, e)
	pulumirpc.RegisterResourceMonitorServer(e.server, e)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.address = listener.Addr().String()
	go func() { _ = e.server.Serve(listener) }()
	t.Cleanup(e.server.Stop)
	return e
}

func (e *engine) Log(_ context.Context, req *pulumirpc.LogRequest) (*emptypb.Empty, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if req.Severity == pulumirpc.LogSeverity_ERROR {
		e.errors = append(e.errors, req.Message)
	}
	return &emptypb.Empty{}, nil
}

func (e *engine) StartDebugging(_ context.Context, req *pulumirpc.StartDebuggingRequest) (*emptypb.Empty, error) {
	e.debugger <- req
	return &emptypb.Empty{}, nil
}

func (e *engine) SetRootResource(
	context.Context, *pulumirpc.SetRootResourceRequest,
) (*pulumirpc.SetRootResourceResponse, error) {
	return &pulumirpc.SetRootResourceResponse{}, nil
}

func (e *engine) SupportsFeature(
	context.Context, *pulumirpc.SupportsFeatureRequest,
) (*pulumirpc.SupportsFeatureResponse, error) {
	return &pulumirpc.SupportsFeatureResponse{}, nil
}

func (e *engine) RegisterResource(
	_ context.Context, req *pulumirpc.RegisterResourceRequest,
) (*pulumirpc.RegisterResourceResponse, error) {
	return &pulumirpc.RegisterResourceResponse{Urn: "urn:pulumi:stack::project::" + req.Type + "::" + req.Name}, nil
}

func (e *engine) RegisterResourceOutputs(
	_ context.Context, req *pulumirpc.RegisterResourceOutputsRequest,
) (*emptypb.Empty, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.outputs = req.Outputs
	return &emptypb.Empty{}, nil
}
