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
		{"a quota below nothing", "delivery: {quotas: {executions: {records: -1}}}", "delivery.quotas"},
		{"a catalog elsewhere", "catalog: 'mysql://u:hunter2@127.0.0.1/c'", "postgres://"},
		{"a catalog in the clear", "catalog: 'postgres://u:hunter2@db.example/c'", "sslmode=verify-full"},
		{"a catalog without a database", "catalog: 'postgres://u:hunter2@127.0.0.1'", "no database"},
		{"keys of S3 without S3", "lake: {endpoint: 'https://s3.example.org'}", "lake.endpoint"},
		{"a secret without S3", "lake: {secret_access_key: x}", "lake.secret_access_key"},
		{"a lake that is no S3", "lake: {url: /var/lake}", "s3://BUCKET"},
		{"a bucket's name", "lake: {url: 's3://My_Bucket/x'}", "bucket"},
		{"a prefix's name", "lake: {url: 's3://lake/a b'}", "lake.url"},
		{"half of credentials", "lake: {url: 's3://lake/x', access_key_id: a}", "both"},
		{"an endpoint in the clear", "lake: {url: 's3://lake/x', endpoint: 'http://s3.example.org:9000'}", "plain_http"},
		{"an endpoint that is no URL", "lake: {url: 's3://lake/x', endpoint: 's3.example.org'}", "lake.endpoint"},
		{"an endpoint with a bucket", "lake: {url: 's3://lake/x', endpoint: 'https://s3.example.org/lake'}", "lake.endpoint"},
		{"a small staging", "external: {staging: 1MiB}", "external.staging"},
		{"a small cache", "lake: {url: 's3://lake/x', cache: 1MiB}", "lake.cache"},
		{"small parts", "lake: {url: 's3://lake/x', part: 1MiB}", "lake.part"},
		{"no transfers", "lake: {url: 's3://lake/x', transfers: 0}", "lake.transfers"},
		{"no attempts", "lake: {url: 's3://lake/x', attempts: 0}", "lake.attempts"},
		{"no time", "lake: {url: 's3://lake/x', attempt_timeout: 0s}", "lake.attempt_timeout"},
	} {
		c, err := ParseConfig("x.yaml", []byte(tc.yaml))
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	// An error shows the lines around it, but no secret of theirs.
	for _, text := range []string{
		"data: d\ncatalog: postgres://u:hunter2@127.0.0.1/c\nregoin: x\n",
		"catalog: [postgres://u:hunter2@127.0.0.1/c]\n",
		"lake:\n  secret_access_key: hunter2\n  regoin: x\n",
		"lake: {secret_access_key: hunter2, regoin: x}\n",
		"\"catalog\" : \"postgres://u:hunter2@127.0.0.1/c\"\nx: y\n",
	} {
		if _, err := ParseConfig("x.yaml", []byte(text)); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", text, err)
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
