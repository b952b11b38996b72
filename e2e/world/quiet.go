package world

import (
	"os"
	"runtime"
	"strconv"
	"strings"
)

// Quiet says whether the machine has time for us, as far as its load average of the last minute tells: promises of so many seconds are held
// only there.
func Quiet() bool {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return false
	}
	word, _, _ := strings.Cut(string(text), " ")
	load, err := strconv.ParseFloat(word, 64)
	return err == nil && load < 2*float64(runtime.NumCPU())
}
