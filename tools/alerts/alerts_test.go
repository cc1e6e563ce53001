// Package alerts evaluates the alert rules of deploy/prometheus with
// Prometheus's own library, so that they are tested where promtool is missing.
// It is a module of its own: the product does not depend on Prometheus.
package alerts

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/teststorage"
	"gopkg.in/yaml.v3"
)

var deploy = filepath.Join("..", "..", "deploy")

var promQL = parser.NewParser(parser.Options{})

// unitTests is the part of promtool's format that alerts_test.yml uses; other
// members are refused, so that none is passed over.
type unitTests struct {
	RuleFiles          []string       `yaml:"rule_files"`
	EvaluationInterval model.Duration `yaml:"evaluation_interval"`
	Tests              []unitTest     `yaml:"tests"`
}

type unitTest struct {
	Name        string         `yaml:"name"`
	Interval    model.Duration `yaml:"interval"`
	InputSeries []struct {
		Series string `yaml:"series"`
		Values string `yaml:"values"`
	} `yaml:"input_series"`
	PromQL []struct {
		Expr    string         `yaml:"expr"`
		At      model.Duration `yaml:"eval_time"`
		Samples []struct {
			Labels string  `yaml:"labels"`
			Value  float64 `yaml:"value"`
		} `yaml:"exp_samples"`
	} `yaml:"promql_expr_test"`
}

func rules(t *testing.T, file string) []rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile(file, false, model.UTF8Validation, promQL, slog.New(slog.DiscardHandler))
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	var out []rulefmt.Rule
	for _, g := range groups.Groups {
		out = append(out, g.Rules...)
	}
	if len(out) == 0 {
		t.Fatal("no rules")
	}
	return out
}

func TestRules(t *testing.T) {
	text, err := os.Open(filepath.Join(deploy, "prometheus", "alerts_test.yml"))
	if err != nil {
		t.Fatal(err)
	}
	defer text.Close()
	d := yaml.NewDecoder(text)
	d.KnownFields(true)
	var file unitTests
	if err := d.Decode(&file); err != nil {
		t.Fatal(err)
	}
	var all []rulefmt.Rule
	for _, name := range file.RuleFiles {
		all = append(all, rules(t, filepath.Join(deploy, "prometheus", name))...)
	}
	fired := map[string]bool{}
	for _, test := range file.Tests {
		t.Run(test.Name, func(t *testing.T) {
			for alert := range run(t, all, time.Duration(file.EvaluationInterval), test) {
				fired[alert] = true
			}
		})
	}
	for _, r := range all {
		if !fired[r.Alert] {
			t.Errorf("no test fires %s", r.Alert)
		}
	}
}

// run evaluates the rules over the series of one test, step by step, as a server
// would, and checks what is expected. It returns the alerts that fired.
func run(t *testing.T, all []rulefmt.Rule, every time.Duration, test unitTest) map[string]bool {
	ctx := t.Context()
	storage := teststorage.New(t)
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, Parser: promQL})
	t.Cleanup(func() { _ = engine.Close() })
	zero := time.Unix(0, 0).UTC()
	add := func(at time.Time, value float64, l labels.Labels) {
		t.Helper()
		a := storage.Appender(ctx)
		if _, err := a.Append(0, l, at.UnixMilli(), value); err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		if err := a.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	type input struct {
		labels labels.Labels
		values []parser.SequenceValue
	}
	var inputs []input
	for _, s := range test.InputSeries {
		l, values, err := promQL.ParseSeriesDesc(s.Series + " " + s.Values)
		if err != nil {
			t.Fatalf("%s: %v", s.Series, err)
		}
		inputs = append(inputs, input{l, values})
	}
	query := func(expr string, at time.Time) promql.Vector {
		t.Helper()
		q, err := engine.NewInstantQuery(ctx, storage, nil, expr, at)
		if err != nil {
			t.Fatalf("%s: %v", expr, err)
		}
		defer q.Close()
		result := q.Exec(ctx)
		v, err := result.Vector()
		if err != nil {
			t.Fatalf("%s: %v", expr, err)
		}
		return slices.Clone(v)
	}
	var end time.Duration
	for _, q := range test.PromQL {
		end = max(end, time.Duration(q.At))
	}
	since := map[string]time.Time{} // when each pending alert became active
	fired := map[string]bool{}
	for after := time.Duration(0); after <= end; after += every {
		at := zero.Add(after)
		for _, in := range inputs {
			i := int(after / time.Duration(test.Interval))
			if after%time.Duration(test.Interval) == 0 && i < len(in.values) && !in.values[i].Omitted {
				add(at, in.values[i].Value, in.labels)
			}
		}
		active := map[string]time.Time{}
		for _, r := range all {
			for _, sample := range query(r.Expr, at) {
				b := labels.NewBuilder(sample.Metric).Del(labels.MetricName)
				for name, value := range r.Labels {
					b.Set(name, value)
				}
				b.Set("alertname", r.Alert)
				key := b.Labels().String()
				began, ok := since[key]
				if !ok {
					began = at
				}
				active[key] = began
				state := "pending"
				if at.Sub(began) >= time.Duration(r.For) {
					state, fired[r.Alert] = "firing", true
				}
				add(at, 1, b.Set(labels.MetricName, "ALERTS").Set("alertstate", state).Labels())
			}
		}
		since = active
		for _, q := range test.PromQL {
			if time.Duration(q.At) != after {
				continue
			}
			var got, want []string
			for _, s := range query(q.Expr, at) {
				if s.T == at.UnixMilli() && s.Metric.Get("alertstate") != "" && !isActive(active, s.Metric) {
					continue // an alert that has ended: Prometheus would mark it stale
				}
				got = append(got, fmt.Sprint(s.Metric, s.F))
			}
			for _, s := range q.Samples {
				l, err := promQL.ParseMetric(s.Labels)
				if err != nil {
					t.Fatalf("%s: %v", s.Labels, err)
				}
				want = append(want, fmt.Sprint(l, s.Value))
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("at %s, %s:\n got %s\nwant %s", after, q.Expr, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
			}
		}
	}
	return fired
}

// isActive reports whether the alert of an ALERTS sample is active now.
func isActive(active map[string]time.Time, m labels.Labels) bool {
	_, ok := active[labels.NewBuilder(m).Del(labels.MetricName, "alertstate").Labels().String()]
	return ok
}

// Every expression of the dashboard is PromQL.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(deploy, "grafana", "tapehouse.json"))
	if err != nil {
		t.Fatal(err)
	}
	var board any
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	replace := strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h", "$instance", "tape1", "$stream", "executions")
	n := 0
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, member := range v {
				if s, ok := member.(string); ok && name == "expr" {
					n++
					if _, err := promQL.ParseExpr(replace.Replace(s)); err != nil {
						t.Errorf("%s: %v", s, err)
					}
				}
				walk(member)
			}
		case []any:
			for _, member := range v {
				walk(member)
			}
		}
	}
	walk(board)
	if n < 10 {
		t.Errorf("only %d expressions found", n)
	}
}
