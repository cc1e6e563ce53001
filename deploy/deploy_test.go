// Package deploy holds what stands in this directory to the program: the alerts
// and the dashboard name metrics that a running server has, every alert has its
// section in the runbook and fires in a test, and the unit and the container
// file refer to what is there.
package deploy

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/tapehouse/tapehouse/internal/producer"
	"github.com/tapehouse/tapehouse/internal/server"
)

type ruleFile struct {
	Groups []struct {
		Name  string `yaml:"name"`
		Rules []struct {
			Alert       string            `yaml:"alert"`
			Expr        string            `yaml:"expr"`
			For         string            `yaml:"for"`
			Labels      map[string]string `yaml:"labels"`
			Annotations map[string]string `yaml:"annotations"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

func read(t *testing.T, name ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(name...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func alerts(t *testing.T) ruleFile {
	t.Helper()
	var f ruleFile
	if err := yaml.UnmarshalWithOptions([]byte(read(t, "prometheus", "alerts.yml")), &f, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	return f
}

// expressions are those of the dashboard, by panel.
func expressions(t *testing.T) map[string][]string {
	t.Helper()
	var board struct {
		Panels []struct {
			ID      int
			Type    string
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "grafana", "tapehouse.json")), &board); err != nil {
		t.Fatal(err)
	}
	out, ids := map[string][]string{}, map[int]bool{}
	for _, p := range board.Panels {
		if ids[p.ID] {
			t.Errorf("panel %q: the id %d stands twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks nothing", p.Title)
		}
		for _, target := range p.Targets {
			out[p.Title] = append(out[p.Title], target.Expr)
		}
	}
	return out
}

var metricRE = regexp.MustCompile(`\b(?:tapehouse|process|go)_[a-z0-9_]+\b`)

// served returns the metric names that a running server exposes after one put,
// and the labels of each.
func served(t *testing.T) map[string]map[string]bool {
	t.Helper()
	cfg := server.DefaultConfig()
	cfg.Data = t.TempDir()
	cfg.Listen = server.ListenConfig{AWS: "127.0.0.1:0", SQL: "127.0.0.1:0", HTTP: "127.0.0.1:0"}
	cfg.Delivery.Quotas = map[string]server.QuotaConfig{"archive": {Records: 1 << 20, Bytes: 1 << 30}}
	s, err := server.Open(t.Context(), cfg, server.Options{Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	key := s.Credentials().Keys[0]
	c, err := producer.New(producer.Config{Endpoint: "http://" + s.Addresses().AWS, AccessKey: key.ID, Secret: key.Secret})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// A stream into objects, with everything that has metrics of its own.
	bucket := map[string]any{"RoleARN": "arn:aws:iam::000000000000:role/r", "BucketARN": "arn:aws:s3:::archive"}
	destination := maps.Clone(bucket)
	destination["S3BackupMode"], destination["S3BackupConfiguration"] = "Enabled", bucket
	destination["ProcessingConfiguration"] = map[string]any{"Enabled": true, "Processors": []any{map[string]any{"Type": "Lambda",
		"Parameters": []any{map[string]any{"ParameterName": "LambdaArn", "ParameterValue": "sql:SELECT symbol FROM records AS r(symbol varchar)"}}}}}
	if err := c.Call(t.Context(), "CreateDeliveryStream", map[string]any{"DeliveryStreamName": "archive", "DeliveryStreamType": "DirectPut", "ExtendedS3DestinationConfiguration": destination}, nil); err != nil {
		t.Fatal(err)
	}
	// It fits no table: one put is acknowledged and counted, and nothing else.
	if _, err := c.PutBatch(t.Context(), "executions", [][]byte{[]byte("{}")}); err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Addresses().HTTP+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]map[string]bool{"up": {"job": true, "instance": true}}
	for line := range strings.Lines(string(text)) {
		name := metricRE.FindString(line)
		if strings.HasPrefix(line, "#") || name == "" || !strings.HasPrefix(line, name) {
			continue
		}
		if out[name] == nil {
			out[name] = map[string]bool{"job": true, "instance": true} // the scrape adds these
		}
		for _, l := range labelRE.FindAllStringSubmatch(line, -1) {
			out[name][l[1]] = true
			out[name][l[1]+"="+l[2]] = true
		}
	}
	return out
}

var (
	labelRE    = regexp.MustCompile(`([a-z_]+)="([^"]*)"`)
	selectorRE = regexp.MustCompile(`((?:tapehouse|process|go)_[a-z0-9_]+)(?:\{([^}]*)\})?`)
	matcherRE  = regexp.MustCompile(`([a-z_]+)(=~|!~|!=|=)"([^"]*)"`)
)

// hold checks one expression: each metric exists, has the labels that are asked
// for, and, where a value is given, that value from the start: an increase of a
// series that was not there before is none.
func hold(t *testing.T, where, expr string, metrics map[string]map[string]bool) {
	t.Helper()
	found := false
	for _, m := range selectorRE.FindAllStringSubmatch(expr, -1) {
		found = true
		labels := metrics[m[1]]
		if labels == nil {
			t.Errorf("%s: no running server has a metric %s", where, m[1])
			continue
		}
		for _, l := range matcherRE.FindAllStringSubmatch(m[2], -1) {
			if !labels[l[1]] {
				t.Errorf("%s: %s has no label %s", where, m[1], l[1])
			}
			for _, value := range strings.Split(l[3], "|") {
				if l[1] != "job" && !strings.ContainsAny(value, "$.*") && !labels[l[1]+"="+value] {
					t.Errorf("%s: %s never has %s=%q at the start, so that a first increase is not seen", where, m[1], l[1], value)
				}
			}
		}
	}
	if !found && !strings.Contains(expr, "up{") {
		t.Errorf("%s: %q asks for no metric of ours", where, expr)
	}
}

func TestMetricsExist(t *testing.T) {
	metrics := served(t)
	if len(metrics) < 80 {
		t.Fatalf("only %d metrics", len(metrics))
	}
	for _, g := range alerts(t).Groups {
		for _, r := range g.Rules {
			hold(t, "alert "+r.Alert, r.Expr, metrics)
		}
	}
	for panel, exprs := range expressions(t) {
		for _, e := range exprs {
			hold(t, "panel "+panel, e, metrics)
		}
	}
	for _, page := range []string{"runbook.md", "security.md", filepath.Join("formats", "credentials.md")} {
		for _, name := range metricRE.FindAllString(read(t, "..", "docs", page), -1) {
			// The failed checks are there only while a check fails.
			if metrics[name] == nil && name != "tapehouse_market_failed_checks" {
				t.Errorf("docs/%s: no running server has a metric %s", page, name)
			}
		}
	}
}

var sectionRE = regexp.MustCompile(`(?m)^## (Tapehouse[A-Za-z]+)\n\n\*(page|ticket)\*\n`)

// Every alert has a section of the runbook that says the same severity and
// answers the five questions, and every section has an alert.
func TestRunbook(t *testing.T) {
	runbook := read(t, "..", "docs", "runbook.md")
	sections := map[string]string{} // alert → severity
	for _, m := range sectionRE.FindAllStringSubmatch(runbook, -1) {
		sections[m[1]] = m[2]
	}
	for _, g := range alerts(t).Groups {
		for _, r := range g.Rules {
			severity := r.Labels["severity"]
			if severity != "page" && severity != "ticket" {
				t.Errorf("%s: severity %q", r.Alert, severity)
			}
			if sections[r.Alert] != severity {
				t.Errorf("%s is a %s, the runbook says %q", r.Alert, severity, sections[r.Alert])
			}
			delete(sections, r.Alert)
			if want := "docs/runbook.md#" + strings.ToLower(r.Alert); !strings.HasSuffix(r.Annotations["runbook_url"], want) {
				t.Errorf("%s names %s, not %s", r.Alert, r.Annotations["runbook_url"], want)
			}
			for _, a := range []string{"summary", "description"} {
				if r.Annotations[a] == "" {
					t.Errorf("%s has no %s", r.Alert, a)
				}
			}
			_, text, _ := strings.Cut(runbook, "\n## "+r.Alert+"\n")
			text, _, _ = strings.Cut(text, "\n## ")
			for _, part := range []string{"**Means.** ", "**Users feel.** ", "**Look.**", "```sh\n", "**Mend.** ", "**Escalate.** "} {
				if !strings.Contains(text, part) {
					t.Errorf("the runbook's section %s has no %q", r.Alert, part)
				}
			}
		}
	}
	for name := range sections {
		t.Errorf("the runbook has a section %s, and no alert has that name", name)
	}
	anchors := map[string]bool{"scopes": true}
	for _, m := range regexp.MustCompile(`(?m)^## (.+)$`).FindAllStringSubmatch(runbook, -1) {
		anchors[strings.ToLower(m[1])] = true
	}
	for _, page := range []string{"runbook.md", "security.md"} {
		for _, m := range regexp.MustCompile(`\]\((?:runbook\.md)?#([a-z-]+)\)`).FindAllStringSubmatch(read(t, "..", "docs", page), -1) {
			if !anchors[m[1]] {
				t.Errorf("docs/%s leads to #%s, which is not there", page, m[1])
			}
		}
	}
}

// Every alert is fired by a test, alone. tools/alerts evaluates the tests with
// Prometheus's library; promtool does where it is installed.
func TestEveryAlertIsFired(t *testing.T) {
	var tests struct {
		Tests []struct {
			Name   string `yaml:"name"`
			PromQL []struct {
				Samples []struct {
					Labels string `yaml:"labels"`
				} `yaml:"exp_samples"`
			} `yaml:"promql_expr_test"`
		} `yaml:"tests"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "prometheus", "alerts_test.yml")), &tests); err != nil {
		t.Fatal(err)
	}
	fired, quiet := map[string]bool{}, false
	for _, test := range tests.Tests {
		quiet = quiet || test.Name == "healthy" && len(test.PromQL) > 0
		for _, q := range test.PromQL {
			for _, s := range q.Samples {
				for _, l := range labelRE.FindAllStringSubmatch(s.Labels, -1) {
					if l[1] == "alertname" {
						fired[l[2]] = true
					}
				}
			}
		}
	}
	for _, g := range alerts(t).Groups {
		for _, r := range g.Rules {
			if !fired[r.Alert] {
				t.Errorf("no test fires %s", r.Alert)
			}
		}
	}
	if !quiet {
		t.Error("no test holds that a healthy server is silent")
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("SKIPPED: no promtool on this machine (Debian: apt-get install prometheus): the rules were not tried with it; make alerts tries them with Prometheus's library")
	}
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = "prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

func TestContainerfile(t *testing.T) {
	text := strings.ReplaceAll(read(t, "Containerfile"), "\\\n", " ")
	var stages, froms []string
	users := ""
	has := map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Fields(line)
		has[fields[0]] = true
		switch fields[0] {
		case "FROM":
			froms = append(froms, fields[1])
			if len(fields) == 4 && fields[2] == "AS" {
				stages = append(stages, fields[3])
			}
			users = ""
		case "COPY":
			sources := fields[1 : len(fields)-1]
			if from, ok := strings.CutPrefix(sources[0], "--from="); ok {
				if !slices.Contains(stages, from) {
					t.Errorf("%s: no stage is called %s", line, from)
				}
				continue
			}
			for _, s := range sources {
				if _, err := os.Stat(filepath.Join("..", s)); err != nil {
					t.Errorf("%s: %v", line, err)
				}
			}
		case "RUN", "ARG", "WORKDIR", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD":
		case "USER":
			users = fields[1]
		default:
			t.Errorf("unknown instruction %s", line)
		}
		for _, list := range regexp.MustCompile(`\[.*\]`).FindAllString(line, 1) {
			var args []string
			if err := json.Unmarshal([]byte(list), &args); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
	for _, want := range []string{"HEALTHCHECK", "VOLUME", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD"} {
		if !has[want] {
			t.Errorf("no %s", want)
		}
	}
	if users == "" || users == "0" || users == "root" {
		t.Errorf("it runs as %q", users)
	}
	// The builder has the Go that go.mod asks for, and the C library of what runs.
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "..", "go.mod"))
	if len(froms) != 2 || !strings.HasSuffix(froms[0], "golang:"+version[1]+"-bookworm") || !strings.Contains(froms[1], "debian:bookworm") {
		t.Errorf("from %v, go.mod asks for Go %s", froms, version[1])
	}
	// What the files of the embedded packs need is copied, and the image's
	// configuration is one.
	cfg, err := server.LoadConfig(filepath.Join("container", "tapehouse.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.Check(); err != nil || cfg.Data != "/var/lib/tapehouse" || !strings.Contains(text, "VOLUME "+cfg.Data) {
		t.Errorf("data %s, %v", cfg.Data, err)
	}
	for _, addr := range []string{cfg.Listen.AWS, cfg.Listen.SQL, cfg.Listen.HTTP} {
		if _, port, _ := strings.Cut(addr, ":"); !regexp.MustCompile(`(?m)^EXPOSE .*\b` + port + `\b`).MatchString(text) {
			t.Errorf("the port %s is not exposed", port)
		}
	}
}

func TestSystemdUnit(t *testing.T) {
	unit := read(t, "systemd", "tapehouse.service")
	for _, want := range []string{"User=tapehouse", "ProtectSystem=strict", "NoNewPrivileges=yes", "CapabilityBoundingSet=\n", "StateDirectory=tapehouse", "WorkingDirectory=/var/lib/tapehouse",
		"ExecStart=/usr/local/bin/tapehouse serve --config /etc/tapehouse/tapehouse.yaml"} {
		if !strings.Contains(unit, want) {
			t.Errorf("no %s", want)
		}
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("SKIPPED: no systemd-analyze on this machine: the unit was not verified with it")
	}
	// verify wants the program to be there: any will do.
	name := filepath.Join(t.TempDir(), "tapehouse.service")
	if err := os.WriteFile(name, []byte(strings.ReplaceAll(unit, "/usr/local/bin/tapehouse", "/bin/true")), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", name).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "tapehouse.service") { // other lines are about the machine's own units
			t.Error(line)
		}
	}
	if err != nil {
		t.Logf("systemd-analyze verify: %v\n%s", err, out)
	}
}
