package main

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

func install(t *testing.T, h *host, info *pulumirpc.ProgramInfo) (stdout, stderr string, err error) {
	t.Helper()
	stream, err := h.InstallDependencies(t.Context(), &pulumirpc.InstallDependenciesRequest{Info: info})
	if err != nil {
		t.Fatal(err)
	}
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stdout, stderr, nil
		}
		if err != nil {
			return stdout, stderr, err
		}
		stdout += string(message.Stdout)
		stderr += string(message.Stderr)
	}
}

func TestInstallDependenciesWithUv(t *testing.T) {
	t.Parallel()
	h := startHost(t, startEngine(t).address)
	info := project(t, uvProject, map[string]any{"toolchain": "uv", "virtualenv": "environment"})
	stdout, stderr, err := install(t, h, info)
	if err != nil {
		t.Fatal(err, stderr)
	}
	contains(t, stdout, "Installing dependencies", "Finished installing dependencies")
	contains(t, stderr, "+ pulumi-direct==1.2.3", "+ nested==4.5.6") // uv reports on stderr
	found, err := filepath.Glob(filepath.Join(info.RootDirectory, "environment", "lib", "*", "site-packages", "nested"))
	if err != nil || len(found) != 1 {
		t.Errorf("installed: %v, %v", found, err)
	}
}

func TestInstallDependenciesWithPip(t *testing.T) {
	t.Parallel()
	wheels := t.TempDir()
	for _, name := range []string{"setuptools", "wheel", "direct"} { // pip's toolchain upgrades the first two
		writeWheel(t, wheels, name, nil)
	}
	elsewhere := t.TempDir() // what editable packages are installed from
	write(t, elsewhere, map[string]string{"pulumi_editable/pulumi-plugin.json": `{"resource": true, "version": "1.0.0"}`})
	writeWheel(t, wheels, "editable", map[string]string{"editable.pth": elsewhere + "\n"})
	h := startHost(t, startEngine(t).address, "PIP_NO_INDEX=1", "PIP_FIND_LINKS="+wheels)
	info := project(t, map[string]string{"requirements.txt": "direct\n"},
		map[string]any{"toolchain": "pip", "virtualenv": "venv"})

	stdout, stderr, err := install(t, h, info)
	if err != nil {
		t.Fatal(err, stdout, stderr)
	}
	contains(t, stdout, "Successfully installed direct-999")
	if listed := dependencies(t, h, info, true); !slices.Contains(listed, "direct 999") {
		t.Errorf("dependencies: %v", listed)
	}
	if listed := required(t, h, info); len(listed) > 0 {
		t.Errorf("required packages: %v", listed)
	}

	write(t, info.RootDirectory, map[string]string{"requirements.txt": "editable\n"})
	if stdout, stderr, err = install(t, h, info); err != nil {
		t.Fatal(err, stdout, stderr)
	}
	if listed := required(t, h, info); len(listed) != 1 || listed[0].Name != "editable" {
		t.Errorf("required packages after the second installation: %v", listed)
	}

	write(t, info.RootDirectory, map[string]string{"requirements.txt": "there-is-no-such-package\n"})
	_, stderr, err = install(t, h, info)
	contains(t, fmt.Sprint(err), info.RootDirectory, "cannot be installed")
	contains(t, stderr, "No matching distribution found for there-is-no-such-package")
}

// writeWheel makes the smallest thing that pip installs.
// https://packaging.python.org/en/latest/specifications/binary-distribution-format/
func writeWheel(t *testing.T, folder, name string, files map[string]string) {
	t.Helper()
	content := map[string]string{
		name + ".py":                     "",
		name + "-999.dist-info/METADATA": "Metadata-Version: 2.1\nName: " + name + "\nVersion: 999\n",
		name + "-999.dist-info/WHEEL":    "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		name + "-999.dist-info/RECORD":   "",
	}
	maps.Copy(content, files)
	file, err := os.Create(filepath.Join(folder, name+"-999-py3-none-any.whl"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	archive := zip.NewWriter(file)
	for path, text := range content {
		entry, err := archive.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(entry, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
}
