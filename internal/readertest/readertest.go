// Package readertest has programs that nobody here wrote read the files and
// tables that tests make: pyarrow and DuckDB as Python has them, ClickHouse as
// a library of Node, PyIceberg. tools/interop.sh fetches them.
//
// What they read comes back as text that is exact and the same whatever read it,
// so that a test compares values and never a rounding:
//
//	boolean               true, false
//	int, long             digits
//	decimal(p, s)         digits, with all s decimals
//	double                its IEEE 754 bits, 16 hexadecimal digits
//	string                itself
//	date                  days since 1970-01-01
//	timestamp, …tz        microseconds since the epoch
//	binary                hexadecimal digits
package readertest

import (
	"bufio"
	"bytes"
	_ "embed" // the readers' programs
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Variables of the environment that tools/interop.sh sets: a Python with the
// packages of tools/interop/requirements.txt, and the node_modules that has chdb.
const (
	PythonEnv = "TAPEHOUSE_PYTHON"
	ChdbEnv   = "TAPEHOUSE_CHDB"
)

// ParquetReaders are the readers of Parquet files, for Read.
var ParquetReaders = []string{"pyarrow", "duckdb", "clickhouse"}

// Content is what a reader found, rows in the order of the file.
type Content struct {
	Columns []string
	Rows    [][]any           // a string, or nil for null
	Sums    map[string]string // of each column of integers or decimals, by the reader's own aggregation; "" if all are null
}

//go:embed read.py
var python string

//go:embed read.js
var node string

// Read has a reader read a file:
//
//	pyarrow, duckdb, clickhouse   the path of a Parquet file
//	pyiceberg                     the database of a catalog (a file of SQLite, or a URL for psycopg2), the catalog's name, the table's name with its namespace
//	clickhouse-iceberg            the directory of an Iceberg table
//
// A reader that is not on this machine skips the test.
func Read(t *testing.T, reader string, args ...string) Content {
	t.Helper()
	var cmd *exec.Cmd
	switch reader {
	case "clickhouse", "clickhouse-iceberg":
		modules := os.Getenv(ChdbEnv)
		program, err := exec.LookPath("node")
		if err != nil || modules == "" {
			t.Skipf("SKIPPED: no Node, or %s does not name a node_modules with chdb: ClickHouse did not read what was written", ChdbEnv)
		}
		cmd = exec.CommandContext(t.Context(), program, append([]string{"-e", node, reader}, args...)...)
		cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
		if reader == "clickhouse-iceberg" {
			cmd.Dir = filepath.Dir(args[0]) // ClickHouse reads tables below where it runs only
		}
	default:
		program := os.Getenv(PythonEnv)
		if program == "" {
			program = "python3"
		}
		modules := reader
		if reader == "pyiceberg" && strings.Contains(args[0], "://") {
			modules += ", psycopg2"
		}
		if out, err := exec.CommandContext(t.Context(), program, "-c", "import "+modules).CombinedOutput(); err != nil {
			out = bytes.TrimSpace(out)
			t.Skipf("SKIPPED: %s has no %s: it did not read what was written: %s", program, modules, out[bytes.LastIndexByte(out, '\n')+1:])
		}
		cmd = exec.CommandContext(t.Context(), program, append([]string{"-c", python, reader}, args...)...)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", reader, err, stderr.String())
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 64<<20)
	var c Content
	for first := true; lines.Scan(); first = false {
		if first {
			err = json.Unmarshal(lines.Bytes(), &c)
		} else {
			var row []any
			err = json.Unmarshal(lines.Bytes(), &row)
			c.Rows = append(c.Rows, row)
		}
		if err != nil {
			t.Fatalf("%s: %v in %.200s", reader, err, lines.Bytes())
		}
	}
	if err := lines.Err(); err != nil || len(c.Columns) == 0 {
		t.Fatalf("%s: %v, %d columns", reader, err, len(c.Columns))
	}
	return c
}
