package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

// The tests start the host as the engine does, as a process, and talk to it over its protocol. The programs they run
// are real ones.

var (
	hostBinary   string // the executor lies beside it
	hostVersion  = "1.2.3-test"
	testPython   string // an interpreter whose environment has the Pulumi SDK
	sitePackages string // the folder where that environment has it
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	folder, err := os.MkdirTemp("", "language-host-test-")
	if err == nil {
		defer os.RemoveAll(folder)
		err = prepare(folder)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func prepare(folder string) error {
	virtualenv := os.Getenv("LANGUAGE_HOST_TEST_VENV")
	if virtualenv == "" {
		return fmt.Errorf("set LANGUAGE_HOST_TEST_VENV to a virtual environment with pulumi, mypy and uv")
	}
	testPython = filepath.Join(virtualenv, "bin", "python")
	if err := os.Setenv("PATH", filepath.Join(virtualenv, "bin")+":"+os.Getenv("PATH")); err != nil {
		return err
	}
	output := func(name string, args ...string) (string, error) {
		cmd := exec.Command(name, args...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		return strings.TrimSpace(string(out)), err
	}
	var err error
	sitePackages, err = output(testPython, "-c",
		"import os, mypy, pulumi; print(os.path.dirname(os.path.dirname(pulumi.__file__)))")
	if err != nil {
		return fmt.Errorf("LANGUAGE_HOST_TEST_VENV=%s lacks pulumi or mypy: %w", virtualenv, err)
	}
	if _, err = output("uv", "--version"); err != nil {
		return fmt.Errorf("LANGUAGE_HOST_TEST_VENV=%s lacks uv: %w", virtualenv, err)
	}
	// A host that was built already is tested as it is; its tests need no Go then.
	if hostBinary = os.Getenv("LANGUAGE_HOST_TEST_BINARY"); hostBinary != "" {
		hostVersion = os.Getenv("LANGUAGE_HOST_TEST_VERSION")
		return nil
	}
	hostBinary = filepath.Join(folder, "pulumi-language-python")
	if _, err = output("go", "build", "-ldflags", "-X main.version="+hostVersion, "-o", hostBinary, "."); err != nil {
		return err
	}
	sdk, err := output("go", "list", "-m", "-f", "{{.Dir}}", "github.com/pulumi/pulumi/sdk/v3")
	if err != nil {
		return err
	}
	executor, err := os.ReadFile(filepath.Join(sdk, "python", "cmd", "pulumi-language-python-exec"))
	if err != nil {
		return err
	}
	return os.WriteFile(hostBinary+"-exec", executor, 0o600)
}

// host is a running pulumi-language-python.
type host struct {
	pulumirpc.LanguageRuntimeClient
	process *exec.Cmd
	output  *buffer
	ended   chan struct{} // closed when the process has ended
}

// startHost starts a host for the engine at the given address, with variables added to those of the test.
func startHost(t *testing.T, engine string, variables ...string) *host {
	t.Helper()
	var args []string
	if engine != "" {
		args = []string{engine}
	}
	h := &host{process: exec.Command(hostBinary, args...), output: &buffer{}, ended: make(chan struct{})}
	h.process.Env = append(os.Environ(), append([]string{
		"UV_OFFLINE=1", "UV_PYTHON=" + testPython, "UV_PROJECT_ENVIRONMENT=", "VIRTUAL_ENV=",
	}, variables...)...)
	h.process.Stdout, h.process.Stderr = h.output, h.output
	if err := h.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = h.process.Wait()
		close(h.ended)
	}()
	t.Cleanup(func() {
		_ = h.process.Process.Signal(os.Interrupt)
		select {
		case <-h.ended:
		case <-time.After(10 * time.Second):
			_ = h.process.Process.Kill()
			t.Error("an interrupted host does not end")
		}
		if t.Failed() {
			t.Log("output of the host:\n" + h.output.String())
		}
	})
	eventually(t, "the host says where it listens", func() bool { return strings.Contains(h.output.String(), "\n") })
	port, _, _ := strings.Cut(h.output.String(), "\n")
	h.LanguageRuntimeClient = pulumirpc.NewLanguageRuntimeClient(dial(t, "127.0.0.1:"+port))
	return h
}

func dial(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// project writes files, by relative path, into a new folder and describes it as a program with the given options.
func project(t *testing.T, files map[string]string, options map[string]any) *pulumirpc.ProgramInfo {
	t.Helper()
	folder := t.TempDir()
	write(t, folder, files)
	encoded, err := structpb.NewStruct(options)
	if err != nil {
		t.Fatal(err)
	}
	return &pulumirpc.ProgramInfo{
		RootDirectory: folder, ProgramDirectory: folder, EntryPoint: ".", Options: encoded,
	}
}

func write(t *testing.T, folder string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// withSDK is a pip environment of its own that also sees the Pulumi SDK. It returns its site-packages folder.
func withSDK(t *testing.T, virtualenv string, args ...string) string {
	t.Helper()
	command := append([]string{"-m", "venv"}, args...)
	if out, err := exec.Command(testPython, append(command, virtualenv)...).CombinedOutput(); err != nil {
		t.Fatalf("no virtual environment: %v\n%s", err, out)
	}
	found, err := filepath.Glob(filepath.Join(virtualenv, "lib", "python3*", "site-packages"))
	if err != nil || len(found) != 1 {
		t.Fatalf("site-packages of %s: %v, %v", virtualenv, found, err)
	}
	write(t, found[0], map[string]string{"sdk.pth": sitePackages + "\n"})
	return found[0]
}

// program describes a program that runs with the tests' own environment.
func program(t *testing.T, source string) *pulumirpc.ProgramInfo {
	t.Helper()
	return project(t, map[string]string{"__main__.py": source},
		map[string]any{"toolchain": "pip", "virtualenv": os.Getenv("LANGUAGE_HOST_TEST_VENV")})
}

func cancellable(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, cancel
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("not within 30 s: %s", what)
}

// awaitFile returns what a program has written, without surrounding space, as soon as it has.
func awaitFile(t *testing.T, path string) string {
	t.Helper()
	var content []byte
	eventually(t, path+" is written", func() bool {
		var err error
		content, err = os.ReadFile(path)
		return err == nil && len(content) > 0
	})
	return strings.TrimSpace(string(content))
}

// running tells whether a process runs; one that has ended and is not yet waited for does not.
func running(pid string) bool {
	state, _ := exec.Command("ps", "-o", "stat=", "-p", pid).Output() // fails when there is no such process
	return len(state) > 0 && state[0] != 'Z'
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is missing in:\n%s", part, text)
		}
	}
}

// buffer is a bytes.Buffer that can be written and read at once.
type buffer struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}
