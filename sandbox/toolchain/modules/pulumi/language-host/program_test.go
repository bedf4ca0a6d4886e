package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

func runRequest(e *engine, info *pulumirpc.ProgramInfo) *pulumirpc.RunRequest {
	return &pulumirpc.RunRequest{
		Info: info, Pwd: info.ProgramDirectory, MonitorAddress: e.address,
		Project: "shop", Stack: "prod", Organization: "acme", Parallel: 4,
	}
}

func TestRunGivesTheProgramItsStack(t *testing.T) {
	t.Parallel()
	e := startEngine(t)
	h := startHost(t, e.address, `PULUMI_CONFIG={"shop:key":"of the surroundings"}`)
	info := program(t, `
import os, pulumi
print("printed by the program")
pulumi.export("seen", [
    pulumi.get_project(), pulumi.get_stack(), pulumi.get_organization(), pulumi.runtime.is_dry_run(),
    pulumi.Config().get("key"), pulumi.runtime.is_config_secret("shop:key"), os.path.basename(os.getcwd()),
])
`)
	for _, c := range []struct {
		config map[string]string
		secret []string
		want   string
	}{
		{map[string]string{"shop:key": "value"}, []string{"shop:key"}, `"value", true`},
		{nil, nil, `null, false`},
	} {
		req := runRequest(e, info)
		req.DryRun, req.Config, req.ConfigSecretKeys = true, c.config, c.secret
		response, err := h.Run(t.Context(), req)
		if err != nil || response.Error != "" || response.Bail {
			t.Fatalf("Run: %v, %v", response, err)
		}
		got, err := e.outputs.Fields["seen"].MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf(`["shop", "prod", "acme", true, %s, %q]`,
			c.want, filepath.Base(info.ProgramDirectory))
		if squeezed := strings.ReplaceAll(string(got), " ", ""); squeezed != strings.ReplaceAll(want, " ", "") {
			t.Errorf("the program saw %s, want %s", got, want)
		}
	}
	contains(t, h.output.String(), "printed by the program")
}

func TestRunTellsHowAProgramFailed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		source, message, logged string
		bail                    bool
	}{
		"exit code": {source: `raise SystemExit(7)`, message: "program exited with non-zero exit code: 7"},
		"signal": {
			source: `import os, signal; os.kill(os.getpid(), signal.SIGKILL)`, message: "program was ended by a signal: killed",
		},
		"exception":  {source: `raise ValueError("deliberate")`, bail: true, logged: "ValueError: deliberate"},
		"no program": {source: "", bail: true, logged: "unable to find main python program"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := startEngine(t)
			h := startHost(t, e.address)
			info := program(t, c.source)
			if c.source == "" {
				if err := os.Remove(filepath.Join(info.ProgramDirectory, "__main__.py")); err != nil {
					t.Fatal(err)
				}
			}
			response, err := h.Run(t.Context(), runRequest(e, info))
			if err != nil {
				t.Fatal(err)
			}
			if response.Error != c.message || response.Bail != c.bail {
				t.Errorf("got %v, want error %q and bail %v", response, c.message, c.bail)
			}
			contains(t, strings.Join(e.errors, "\n"), c.logged)
		})
	}
}

func TestRunRefusesAProgramThatDoesNotTypecheck(t *testing.T) {
	t.Parallel()
	e := startEngine(t)
	h := startHost(t, e.address)
	info := program(t, "print('the program ran')\nnumber: int = 'text'\n")
	info.Options.Fields["typechecker"] = structpb.NewStringValue("mypy")
	_, err := h.Run(t.Context(), runRequest(e, info))
	contains(t, fmt.Sprint(err), "mypy refuses the program")
	contains(t, h.output.String(), "Incompatible types in assignment")
	if strings.Contains(h.output.String(), "the program ran") {
		t.Error("the program ran")
	}

	write(t, info.ProgramDirectory, map[string]string{"__main__.py": "number: int = 1\n"})
	if response, err := h.Run(t.Context(), runRequest(e, info)); err != nil || response.Error != "" {
		t.Errorf("the corrected program: %v, %v", response, err)
	}

	info.Options.Fields["typechecker"] = structpb.NewStringValue("pyright")
	_, err = h.Run(t.Context(), runRequest(e, info))
	contains(t, fmt.Sprint(err), "typechecker needs the Python package pyright", "`pulumi install`")
}

func TestRunNeedsAnEngine(t *testing.T) {
	t.Parallel()
	e := startEngine(t)
	h := startHost(t, "")
	req := runRequest(e, program(t, "print('ran')"))
	if _, err := h.Run(t.Context(), req); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("Run before Handshake: %v", err)
	}
	for range 2 { // a second engine finds a host that the first one has cancelled
		if _, err := h.Handshake(t.Context(), &pulumirpc.LanguageHandshakeRequest{EngineAddress: e.address}); err != nil {
			t.Fatal(err)
		}
		if response, err := h.Run(t.Context(), req); err != nil || response.Error != "" {
			t.Errorf("Run after Handshake: %v, %v", response, err)
		}
		if _, err := h.Cancel(t.Context(), &emptypb.Empty{}); err != nil {
			t.Fatal(err)
		}
	}
}

// stubborn is a program with two children, one of which ignores interrupts, that would run for a long time.
const stubborn = `
import os, subprocess, time
plain = subprocess.Popen(["sleep", "60"])
deaf = subprocess.Popen(["sh", "-c", "trap '' INT; echo deaf > deaf; sleep 60 & wait; sleep 60"])
while not os.path.exists("deaf"):
    time.sleep(0.01)
with open("pids.part", "w") as file:
    print(os.getpid(), plain.pid, deaf.pid, file=file)
os.rename("pids.part", "pids")
try:
    time.sleep(60)
finally:
    open("tidied", "w").close()
`

func TestAnEndedProgramLeavesNoProcess(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(h *host, e *engine, endRequest func()) error{
		"Cancel": func(h *host, _ *engine, _ func()) error {
			_, err := h.Cancel(t.Context(), &emptypb.Empty{})
			return err
		},
		"end of the request": func(_ *host, _ *engine, endRequest func()) error {
			endRequest()
			return nil
		},
		"interrupted host": func(h *host, _ *engine, _ func()) error {
			return h.process.Process.Signal(os.Interrupt)
		},
		"vanished engine": func(_ *host, e *engine, _ func()) error {
			e.server.Stop()
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := startEngine(t)
			h := startHost(t, e.address)
			info := program(t, stubborn)
			ctx, endRequest := cancellable(t)
			ended := make(chan error, 1)
			go func() {
				_, err := h.Run(ctx, runRequest(e, info))
				ended <- err
			}()
			pids := awaitFile(t, filepath.Join(info.ProgramDirectory, "pids"))
			if err := end(h, e, endRequest); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; status.Code(err) != codes.Canceled {
				t.Errorf("Run ended with %v, want Canceled", err)
			}
			for _, pid := range strings.Fields(pids) {
				eventually(t, "process "+pid+" has ended", func() bool { return !running(pid) })
			}
			if _, err := os.Stat(filepath.Join(info.ProgramDirectory, "tidied")); err != nil {
				t.Error("the program could not tidy up:", err)
			}
		})
	}
}

func TestAProgramCanBeDebugged(t *testing.T) {
	t.Parallel()
	e := startEngine(t)
	h := startHost(t, e.address)
	req := runRequest(e, program(t, "print('the program ran')"))
	req.AttachDebugger = true
	ctx, endRequest := cancellable(t)
	ended := make(chan error, 1)
	go func() {
		_, err := h.Run(ctx, req)
		ended <- err
	}()
	select {
	case announced := <-e.debugger:
		connect := announced.Config.Fields["connect"].GetStructValue().AsMap()
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("%v:%v", connect["host"], connect["port"]), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	case err := <-ended:
		t.Fatal("the program ended without a debugger:", err)
	}
	if strings.Contains(h.output.String(), "the program ran") {
		t.Error("the program did not wait for the debugger")
	}
	endRequest()
	<-ended
}
