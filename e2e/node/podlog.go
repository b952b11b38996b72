package node

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// logPath is where a container's output goes. Pods of one name share it.
func (p *Player) logPath(namespace, name, container string) string {
	return filepath.Join(p.cfg.Dir, "logs", namespace+"_"+name+"_"+container+".log")
}

func (w *pod) openLog(container string) (*os.File, error) {
	obj, _ := w.current()
	f, err := os.OpenFile(w.player.logPath(obj.Namespace, obj.Name, container), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}

func (w *pod) tail(container string, lines int) string {
	obj, _ := w.current()
	return lastLines(w.player.logPath(obj.Namespace, obj.Name, container), lines)
}

// lastLines reads the end of a file; nothing when there is none.
func lastLines(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	b = bytes.TrimRight(b, "\n")
	at := len(b)
	for ; lines > 0 && at > 0; lines-- {
		at = bytes.LastIndexByte(b[:at], '\n')
		if at < 0 {
			return string(b)
		}
	}
	return string(bytes.TrimLeft(b[at:], "\n"))
}
