package main

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/check"
)

// These are the parts of SARIF 2.1.0 that findings need.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool    sarifTool     `json:"tool"`
		Results []sarifResult `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name           string      `json:"name"`
		Version        string      `json:"version"`
		InformationURI string      `json:"informationUri"`
		Rules          []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID                   string             `json:"id"`
		Name                 string             `json:"name"`
		ShortDescription     sarifText          `json:"shortDescription"`
		FullDescription      sarifText          `json:"fullDescription"`
		Help                 sarifText          `json:"help"`
		HelpURI              string             `json:"helpUri"`
		DefaultConfiguration sarifConfiguration `json:"defaultConfiguration"`
		Properties           sarifProperties    `json:"properties"`
	}
	sarifText struct {
		Text     string `json:"text"`
		Markdown string `json:"markdown,omitempty"`
	}
	sarifConfiguration struct {
		Level string `json:"level"`
	}
	sarifProperties struct {
		Tags []string `json:"tags"`
	}
	sarifResult struct {
		RuleID       string            `json:"ruleId"`
		RuleIndex    int               `json:"ruleIndex"`
		Level        string            `json:"level"`
		Message      sarifText         `json:"message"`
		Locations    []sarifLocation   `json:"locations"`
		Fingerprints map[string]string `json:"partialFingerprints"`
		// Suppressions are nil unless a result of the run is suppressed: SARIF wants them at all results, or at none.
		Suppressions []sarifSuppression `json:"suppressions,omitzero"`
	}
	sarifLocation struct {
		Physical *sarifPhysical `json:"physicalLocation,omitempty"`
		Logical  []sarifLogical `json:"logicalLocations"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   sarifRegion   `json:"region"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine int `json:"startLine"`
	}
	sarifLogical struct {
		Name               string `json:"name"`
		FullyQualifiedName string `json:"fullyQualifiedName"`
		Kind               string `json:"kind"`
	}
	sarifSuppression struct {
		Kind          string `json:"kind"`
		Status        string `json:"status"`
		Justification string `json:"justification"`
	}
)

// home is where the project is, and checkDocs where the reference of checks is.
const (
	home      = "https://github.com/isthmus-mesh/isthmus"
	checkDocs = home + "/blob/main/docs/checks.md"
)

// newSARIF is a document for code hosts.
func newSARIF(d *checkDocument, checks []check.Check) *sarifLog {
	run := sarifRun{
		Tool:    sarifTool{sarifDriver{Name: "isthmus", Version: buildVersion().Version, InformationURI: home, Rules: []sarifRule{}}},
		Results: []sarifResult{},
	}
	index := map[string]int{}
	for i := range checks {
		c := &checks[i]
		index[c.Code] = i
		help := sarifText{
			Text:     fmt.Sprintf("%s\n\n%s\n\nFix: %s", c.Matter, c.Harm, c.Fix),
			Markdown: fmt.Sprintf("%s\n\n%s\n\n**Fix:** %s", c.Matter, c.Harm, c.Fix),
		}
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{
			ID: c.Code, Name: pascal(c.Title), ShortDescription: sarifText{Text: c.Title}, FullDescription: sarifText{Text: c.Matter + " " + c.Harm}, Help: help,
			HelpURI: checkDocs + "#" + strings.ToLower(c.Code), DefaultConfiguration: sarifConfiguration{sarifLevel(c.Severities[0])},
			Properties: sarifProperties{append([]string{"istio", "ambient"}, c.Pains...)},
		})
	}
	for _, list := range [][]checkFinding{d.Findings, d.Ignored} {
		for i := range list {
			run.Results = append(run.Results, list[i].sarif(index))
		}
	}
	for i := range run.Results {
		if r := &run.Results[i]; len(d.Ignored) > 0 && r.Suppressions == nil {
			r.Suppressions = []sarifSuppression{}
		}
	}
	return &sarifLog{Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run}}
}

func (f *checkFinding) sarif(index map[string]int) sarifResult {
	text := f.Message
	if f.Fix != "" {
		text += "\n\nFix: " + f.Fix
	}
	if f.Patch != "" {
		text += "\n\n" + f.Patch
	}
	object := f.Object.String()
	at := sarifLocation{Logical: []sarifLogical{{Name: f.Object.Name, FullyQualifiedName: strings.TrimSuffix(object+" "+f.Field, " "), Kind: "resource"}}}
	if f.File != "" && f.File != standardInput {
		at.Physical = &sarifPhysical{sarifArtifact{(&url.URL{Path: filepath.ToSlash(filepath.Clean(f.File))}).String()}, sarifRegion{max(1, f.Line)}}
	}
	r := sarifResult{
		RuleID: f.Code, RuleIndex: index[f.Code], Level: sarifLevel(f.Severity), Message: sarifText{Text: text}, Locations: []sarifLocation{at},
		Fingerprints: map[string]string{"object/v1": strings.Join([]string{f.Code, f.Object.Group, object, f.Field}, " ")},
	}
	if f.Ignored != "" {
		r.Suppressions = []sarifSuppression{{"inSource", "accepted", f.Ignored}}
	}
	return r
}

func sarifLevel(s v1alpha1.Severity) string {
	switch s {
	case v1alpha1.SeverityError:
		return "error"
	case v1alpha1.SeverityWarning:
		return "warning"
	}
	return "note"
}

// pascal is a title as one word.
func pascal(title string) string {
	var b strings.Builder
	for _, word := range strings.FieldsFunc(title, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') }) {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}
