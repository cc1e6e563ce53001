package server

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/delivery"
	"github.com/tapehouse/tapehouse/internal/lake"
)

// Sample is the annotated configuration with every key at its default.
//
//go:embed tapehouse.yaml
var Sample string

// CatalogEnv is the environment's variable that wins over the key catalog, so
// that a password need not stand in a file.
const CatalogEnv = "TAPEHOUSE_CATALOG"

// Config is the configuration file. A key that is absent has the default of
// Sample; an unknown key is refused with its line.
type Config struct {
	Data       string            `yaml:"data"`
	Region     string            `yaml:"region"`
	Listen     ListenConfig      `yaml:"listen"`
	TLS        TLSConfig         `yaml:"tls"`
	Catalog    string            `yaml:"catalog"` // URL of a PostgreSQL database, with its password; "": SQLite
	Lake       LakeConfig        `yaml:"lake"`
	Log        LogConfig         `yaml:"log"`
	Ledger     LedgerConfig      `yaml:"ledger"`
	Delivery   DeliveryConfig    `yaml:"delivery"`
	Engine     EngineConfig      `yaml:"engine"`
	External   ExternalConfig    `yaml:"external"`
	SQL        SQLConfig         `yaml:"sql"`
	Maintain   MaintainConfig    `yaml:"maintain"`
	Close      CloseConfig       `yaml:"close"`
	Pack       string            `yaml:"pack"`
	Transforms []TransformConfig `yaml:"transforms"`
	Logging    LoggingConfig     `yaml:"logging"`
}

// ListenConfig holds the three addresses.
type ListenConfig struct {
	AWS  string `yaml:"aws"`
	SQL  string `yaml:"sql"`
	HTTP string `yaml:"http"`
}

// TLSConfig names PEM files; both or neither.
type TLSConfig struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// LakeConfig says where tables and error output lie. All but URL is about S3.
type LakeConfig struct {
	URL             string   `yaml:"url"`
	Endpoint        string   `yaml:"endpoint"`
	Region          string   `yaml:"region"`
	PathStyle       bool     `yaml:"path_style"`
	PlainHTTP       bool     `yaml:"plain_http"`
	AccessKeyID     string   `yaml:"access_key_id"`
	SecretAccessKey string   `yaml:"secret_access_key"`
	Cache           Size     `yaml:"cache"`
	Part            Size     `yaml:"part"`
	Transfers       int      `yaml:"transfers"`
	Attempts        int      `yaml:"attempts"`
	AttemptTimeout  Duration `yaml:"attempt_timeout"`
}

// LogConfig bounds the log.
type LogConfig struct {
	SegmentBytes   Size     `yaml:"segment_bytes"`
	Retention      Duration `yaml:"retention"`
	RetentionBytes Size     `yaml:"retention_bytes"`
}

// LedgerConfig bounds the ledger's window.
type LedgerConfig struct {
	WindowRecords int `yaml:"window_records"`
}

// DeliveryConfig tunes the pumps.
type DeliveryConfig struct {
	TailInterval       Duration `yaml:"tail_interval"`
	CheckpointInterval Duration `yaml:"checkpoint_interval"`
	QueueRows          int      `yaml:"queue_rows"`
	LagRows            int      `yaml:"lag_rows"`
	PutWait            Duration `yaml:"put_wait"`
	InflightBytes      Size     `yaml:"inflight_bytes"`
	// Quotas bound what a stream takes, by its name; "*" is every other.
	Quotas map[string]QuotaConfig `yaml:"quotas"`
	// StreamsMax is how many delivery streams there may be.
	StreamsMax int `yaml:"streams_max"`
}

// QuotaConfig bounds a stream's puts a second; 0 is no bound.
type QuotaConfig struct {
	Records int64 `yaml:"records"`
	Bytes   Size  `yaml:"bytes"`
}

// quota is the bound of a stream.
func (c *DeliveryConfig) quota(stream string) delivery.Quota {
	q, ok := c.Quotas[stream]
	if !ok {
		q = c.Quotas["*"]
	}
	return delivery.Quota{RecordsPerSecond: q.Records, BytesPerSecond: int64(q.Bytes)}
}

// EngineConfig bounds DuckDB.
type EngineConfig struct {
	Memory  Size `yaml:"memory"`
	Threads int  `yaml:"threads"`
	Spill   Size `yaml:"spill"`
}

// ExternalConfig bounds the reading of external tables.
type ExternalConfig struct {
	Staging Size `yaml:"staging"`
}

// SQLConfig bounds the SQL listener.
type SQLConfig struct {
	Connections      int      `yaml:"connections"`
	StatementTimeout Duration `yaml:"statement_timeout"`
}

// MaintainConfig says how long snapshots and unreferenced files are kept.
type MaintainConfig struct {
	Interval     Duration `yaml:"interval"`
	SnapshotAge  Duration `yaml:"snapshot_age"`
	SnapshotsMin int      `yaml:"snapshots_min"`
	SnapshotsMax int      `yaml:"snapshots_max"`
	Grace        Duration `yaml:"grace"`
}

// CloseConfig is about the close of a trade date.
type CloseConfig struct {
	Deadline     string `yaml:"deadline"` // HH:MM, exchange time, of the next trade date
	SecondPerson bool   `yaml:"second_person"`
	Webhook      string `yaml:"webhook"`
}

// TransformConfig gives the ARN of a transformation its URL.
type TransformConfig struct {
	ARN       string   `yaml:"arn"`
	URL       string   `yaml:"url"`
	Timeout   Duration `yaml:"timeout"`
	TokenFile string   `yaml:"token_file"`
}

// LoggingConfig chooses the log's level and form.
type LoggingConfig struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

// Duration is a time.Duration written as Go writes it ("200ms", "24h").
type Duration time.Duration

// UnmarshalYAML reads Go's form.
func (d *Duration) UnmarshalYAML(b []byte) error {
	v, err := time.ParseDuration(strings.Trim(strings.TrimSpace(string(b)), `"'`))
	if err != nil {
		return fmt.Errorf("want a duration such as 200ms, 10s or 24h: %w", err)
	}
	if v < 0 {
		return fmt.Errorf("duration %s is negative", v)
	}
	*d = Duration(v)
	return nil
}

// Size is a number of bytes, written as "600MiB", "1GiB" or a plain number.
type Size int64

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"", 1}}

// UnmarshalYAML reads a number with an optional binary unit.
func (s *Size) UnmarshalYAML(b []byte) error {
	text := strings.Trim(strings.TrimSpace(string(b)), `"'`)
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > (1<<62)/u.bytes {
			return fmt.Errorf("want a size such as 64MiB or 1GiB, not %q", text)
		}
		*s = Size(n * u.bytes)
		return nil
	}
	return nil
}

// DefaultConfig is what Sample says.
func DefaultConfig() Config {
	var c Config
	if err := c.decode([]byte(Sample)); err != nil {
		panic("server: the embedded sample does not parse: " + err.Error())
	}
	return c
}

// LoadConfig reads a file over the defaults.
func LoadConfig(path string) (Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	return ParseConfig(path, b)
}

// ParseConfig reads a configuration over the defaults; name stands in errors.
func ParseConfig(name string, b []byte) (Config, error) {
	c := DefaultConfig()
	if err := c.decode(b); err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", name, err)
	}
	return c, nil
}

func (c *Config) decode(b []byte) error {
	err := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict(), yaml.DisallowUnknownField()).Decode(c)
	if errors.Is(err, io.EOF) { // an empty file is all defaults
		return nil
	}
	if err != nil {
		// The library's own form names line, column and the offending text.
		return errors.New(secretsRE.ReplaceAllString(strings.TrimSpace(yaml.FormatError(err, false, true)), "$1…"))
	}
	return nil
}

// secretsRE finds the passwords in the lines of a configuration, which an error
// about a line beside them shows.
var secretsRE = regexp.MustCompile(`(?m)(\b(?:catalog|secret_access_key)\b["']?[ \t]*:[ \t]*)[^\n]*`)

// Check refuses what would start and then fail, or start and be unsafe.
func (c *Config) Check() error {
	if c.Data == "" {
		return errors.New("data: no directory given: use --data DIR or the key data")
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		return errors.New("tls: give both cert and key, or neither")
	}
	for _, l := range []struct{ name, addr string }{{"aws", c.Listen.AWS}, {"sql", c.Listen.SQL}, {"http", c.Listen.HTTP}} {
		loop, err := loopback(l.addr)
		if err != nil {
			return fmt.Errorf("listen.%s: %w", l.name, err)
		}
		if !loop && c.TLS.Cert == "" {
			return fmt.Errorf("listen.%s: %s is not a loopback address, and there is no TLS: set tls.cert and tls.key, or listen on 127.0.0.1", l.name, l.addr)
		}
	}
	if c.Catalog != "" {
		if err := catalog.CheckURL(c.Catalog); err != nil {
			return fmt.Errorf("catalog (or %s): %w; leave it empty for SQLite in the data directory", CatalogEnv, err)
		}
	}
	if err := c.Lake.check(); err != nil {
		return err
	}
	switch {
	case slices.ContainsFunc(slices.Collect(maps.Values(c.Delivery.Quotas)), func(q QuotaConfig) bool { return q.Records < 0 }):
		return errors.New("delivery.quotas: records: not below 0, which is no bound")
	case c.Delivery.StreamsMax <= 0:
		return errors.New("delivery.streams_max: must be above 0; AWS's own quota is 5000")
	case c.Delivery.TailInterval <= 0:
		return errors.New("delivery.tail_interval: must be above 0")
	case c.Engine.Memory < 64<<20:
		return errors.New("engine.memory: DuckDB needs at least 64MiB")
	case c.External.Staging < 64<<20:
		return errors.New("external.staging: at least 64MiB: what a query reads of external tables must fit")
	case c.Log.SegmentBytes < 16<<20:
		return errors.New("log.segment_bytes: at least 16MiB, so that a frame fits")
	}
	seen := map[string]bool{}
	for i, t := range c.Transforms {
		if t.ARN == "" || t.URL == "" {
			return fmt.Errorf("transforms: entry %d needs arn and url", i+1)
		}
		if seen[t.ARN] {
			return fmt.Errorf("transforms: %s stands twice", t.ARN)
		}
		seen[t.ARN] = true
	}
	if _, err := time.Parse("15:04", c.Close.Deadline); err != nil {
		return fmt.Errorf("close.deadline: want HH:MM, not %q", c.Close.Deadline)
	}
	switch c.Logging.Level {
	case "debug", "info", "warn", "error":
	default:
		return fmt.Errorf("logging.level: want debug, info, warn or error, not %q", c.Logging.Level)
	}
	switch c.Logging.Format {
	case "text", "json":
	default:
		return fmt.Errorf("logging.format: want text or json, not %q", c.Logging.Format)
	}
	return nil
}

// check refuses a lake that is half described, or would be read in the clear.
func (c *LakeConfig) check() error {
	if c.URL == "" {
		for _, k := range []struct{ key, value string }{{"endpoint", c.Endpoint}, {"region", c.Region}, {"access_key_id", c.AccessKeyID}, {"secret_access_key", c.SecretAccessKey}} {
			if k.value != "" {
				return fmt.Errorf("lake.%s: it is about S3, and lake.url is empty, which means a local directory: set lake.url to s3://BUCKET/PREFIX, or remove the key", k.key)
			}
		}
		return nil
	}
	if _, _, err := lake.ParseS3URL(c.URL); err != nil {
		return fmt.Errorf("lake.url: %w; leave it empty for the directory lake/ of the data directory", err)
	}
	if (c.AccessKeyID == "") != (c.SecretAccessKey == "") {
		return errors.New("lake: give both access_key_id and secret_access_key, or neither for the SDK's default chain")
	}
	if c.Endpoint != "" {
		u, err := url.Parse(c.Endpoint)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
			return fmt.Errorf("lake.endpoint: want https://HOST or https://HOST:PORT, not %q", c.Endpoint)
		}
		local := u.Hostname() == "localhost"
		if ip, err := netip.ParseAddr(u.Hostname()); err == nil {
			local = ip.IsLoopback()
		}
		if u.Scheme == "http" && !local && !c.PlainHTTP {
			return fmt.Errorf("lake.endpoint: %s would carry the lake's data in the clear: use https, or set lake.plain_http to true", c.Endpoint)
		}
	}
	switch {
	case c.Cache < 64<<20:
		return errors.New("lake.cache: at least 64MiB: what a query reads together must fit")
	case c.Part < 5<<20 || c.Part > 256<<20:
		return errors.New("lake.part: from 5MiB, which is S3's own bound, to 256MiB")
	case c.Transfers < 1 || c.Transfers > 64:
		return errors.New("lake.transfers: from 1 to 64")
	case c.Attempts < 1 || c.Attempts > 100:
		return errors.New("lake.attempts: from 1 to 100")
	case c.AttemptTimeout <= 0:
		return errors.New("lake.attempt_timeout: must be above 0")
	}
	return nil
}

// loopback reports whether addr (host:port) can be reached from this machine
// only. A name other than localhost counts as not.
func loopback(addr string) (bool, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false, fmt.Errorf("want host:port, not %q", addr)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return false, fmt.Errorf("port %q is not a number from 0 to 65535", port)
	}
	if host == "localhost" {
		return true, nil
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback(), nil
}
