package server

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

func TestSampleHoldsEveryKey(t *testing.T) {
	var have map[string]any
	if err := yaml.Unmarshal([]byte(Sample), &have); err != nil {
		t.Fatal(err)
	}
	var walk func(path string, typ reflect.Type, m map[string]any)
	walk = func(path string, typ reflect.Type, m map[string]any) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			key := f.Tag.Get("yaml")
			v, ok := m[key]
			if !ok {
				t.Errorf("the sample lacks %s%s", path, key)
				continue
			}
			if f.Type.Kind() == reflect.Struct {
				walk(path+key+".", f.Type, v.(map[string]any))
			}
		}
	}
	walk("", reflect.TypeFor[Config](), have)
	c := DefaultConfig()
	if err := c.Check(); err != nil {
		t.Fatalf("the defaults are refused: %v", err)
	}
}

func TestConfigFileOverDefaults(t *testing.T) {
	c, err := ParseConfig("x.yaml", []byte("log:\n  retention: 48h\n  retention_bytes: 2GiB\nengine: {memory: 128MiB}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if time.Duration(c.Log.Retention) != 48*time.Hour || c.Log.RetentionBytes != 2<<30 || c.Engine.Memory != 128<<20 {
		t.Fatalf("%+v", c)
	}
	if c.Listen.AWS != "127.0.0.1:4566" || c.Log.SegmentBytes != 64<<20 {
		t.Fatalf("defaults were lost: %+v", c)
	}
}

func TestConfigRefusals(t *testing.T) {
	for _, tc := range []struct{ name, yaml, want string }{
		{"unknown key with its line", "data: d\nlisten:\n  awss: 127.0.0.1:1\n", "3"},
		{"bad duration", "log: {retention: soon}\n", "duration"},
		{"bad size", "engine: {memory: lots}\n", "size"},
		{"not yaml", "{{{", "x.yaml"},
	} {
		_, err := ParseConfig("x.yaml", []byte(tc.yaml))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	for _, tc := range []struct{ name, yaml, want string }{
		{"aws off loopback", "listen: {aws: 0.0.0.0:4566}", "TLS"},
		{"sql off loopback", "listen: {sql: 10.0.0.1:5439}", "TLS"},
		{"http off loopback", "listen: {http: ':8080'}", "TLS"},
		{"a name is not loopback", "listen: {http: 'example.org:8080'}", "TLS"},
		{"half of TLS", "tls: {cert: a.pem}", "both"},
		{"port", "listen: {aws: '127.0.0.1:99999'}", "port"},
		{"level", "logging: {level: loud}", "level"},
		{"deadline", "close: {deadline: dawn}", "HH:MM"},
		{"memory", "engine: {memory: 1MiB}", "64MiB"},
	} {
		c, err := ParseConfig("x.yaml", []byte(tc.yaml))
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	for _, addr := range []string{"127.0.0.1:0", "localhost:1", "[::1]:5"} {
		c := DefaultConfig()
		c.Listen.AWS = addr
		if err := c.Check(); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(Sample)
	f.Add("log: {retention: 1h}")
	f.Add("engine: {memory: 9999999999999999999GiB}")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseConfig("fuzz", []byte(s))
		if err == nil {
			_ = c.Check()
		}
	})
}
