package main

import (
	"context"
	"os"

	"github.com/isthmus-mesh/isthmus/e2e/bench/report"
)

// besideZtunnel is for a ztunnel that the user has.
func besideZtunnel() scenario {
	return scenario{
		name: "ztunnel", about: "server CPU beside ztunnel, where ISTHMUS_ZTUNNEL is given",
		special: func(context.Context, *bench) []report.Row {
			why := "ISTHMUS_ZTUNNEL is not set; ztunnel is in no package registry"
			if os.Getenv("ISTHMUS_ZTUNNEL") != "" {
				why = "a ztunnel needs a control plane for its certificates, which this benchmark does not start yet"
			}
			return []report.Row{
				report.Lacking("server CPU a GB up ÷ ztunnel", report.AtMost(1, 0.85), why),
				report.Lacking("server CPU a GB down ÷ ztunnel", report.AtMost(1, 0.85), why),
				report.Lacking("server CPU an echo ÷ ztunnel", report.AtMost(0.5, 0), why),
				report.Lacking("server CPU an open ÷ ztunnel", report.AtMost(0.4, 0), why),
				report.Lacking("resident an idle forwarded one ÷ ztunnel", report.AtMost(0.45, 0), why),
			}
		},
	}
}
