// Package architecture holds the project's layers by a test: a package imports
// only lower layers, never a sibling, and heavy dependencies stay where they
// belong. The table is explained in docs/ARCHITECTURE.md.
package architecture

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/tapehouse/tapehouse/"

// layers gives each package of the module its layer.
var layers = map[string]int{
	"internal/fsys": 0, "internal/record": 0, "internal/calendar": 0, "internal/terminal": 0,
	"internal/s3test": 0, "internal/readertest": 0, "internal/pgtest": 0,
	"internal/auth": 1,
	"internal/wal":  1, "internal/columnar": 1, "internal/lake": 1, "packs": 1,
	"internal/capacity": 0, "internal/hive": 1, "internal/prefix": 1, "internal/object": 1, "internal/serde": 1, "internal/jq": 1,
	"internal/catalog": 2, "internal/ledger": 2,
	"internal/engine": 3, "internal/external": 3,
	"internal/delivery": 4, "internal/maintain": 4, "internal/view": 4,
	"internal/transform": 4, "internal/crawler": 4,
	"internal/warehouse": 5,
	"internal/market":    6, "internal/backup": 6,
	"internal/awsapi":   6,
	"internal/firehose": 7, "internal/pgwire": 7, "internal/console": 7,
	"internal/glue": 7, "internal/icebergrest": 7,
	"internal/producer": 7, "internal/exchange": 7,
	"internal/server":  8,
	"internal/checker": 8, "internal/benchmark": 9, "internal/demo": 9,
	"cmd/tapehouse": 10, "deploy": 10,
	"internal/architecture": 11,
}

// confined names, for each heavy dependency, the packages that may import it.
var confined = map[string][]string{
	"github.com/duckdb/":                                      {"internal/engine"},
	"github.com/apache/iceberg-go":                            {"internal/catalog", "internal/lake", "internal/checker"},
	"github.com/apache/arrow-go":                              {"internal/columnar", "internal/catalog", "internal/checker", "internal/serde", "internal/external"},
	"github.com/jackc/pgx/v5/pgproto3":                        {"internal/pgwire"},
	"github.com/jackc/pgx/v5/stdlib":                          {"internal/catalog"},
	"github.com/xdg-go/scram":                                 {"internal/pgwire", "internal/auth"},
	"modernc.org/sqlite":                                      {"internal/catalog"},
	"github.com/spf13/cobra":                                  {"cmd/tapehouse"},
	"github.com/aws/":                                         {"internal/lake"},
	"github.com/goccy/go-yaml":                                {"internal/server", "internal/calendar", "packs"},
	"github.com/cloudwego/base64x":                            {"internal/firehose", "internal/producer"},
	"github.com/itchyny/gojq":                                 {"internal/jq"},
	"github.com/klauspost/compress":                           {"internal/columnar", "internal/object", "internal/external", "internal/crawler"},
	"github.com/klauspost/cpuid":                              {"internal/auth"},
	"github.com/prometheus/client_golang/prometheus/promhttp": {"internal/console"},
}

// testPackages are imported by tests alone.
var testPackages = []string{"internal/s3test", "internal/readertest", "internal/pgtest"}

func TestImportsPointDown(t *testing.T) {
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch d.Name() {
			case ".git", "tools", "bench", "testdata", "testservers", "bin", "tapehouse-data", ".interop":
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(filepath.Dir(rel))
		layer, ok := layers[pkg]
		if !ok {
			t.Errorf("%s: package %s has no layer: give it one in this test and in docs/ARCHITECTURE.md", rel, pkg)
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		test := strings.HasSuffix(path, "_test.go")
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if own, ok := strings.CutPrefix(imp, module); ok {
				to, ok := layers[own]
				if !ok {
					t.Errorf("%s imports %s, which has no layer", rel, own)
				} else if contains(testPackages, own) && !test {
					t.Errorf("%s imports %s, which is for tests", rel, own)
				} else if to >= layer && own != pkg && !test {
					t.Errorf("%s (layer %d) imports %s (layer %d): imports point down, never sideways or up", rel, layer, own, to)
				}
				continue
			}
			if test {
				continue // tests may hold a package against any peer
			}
			for dep, homes := range confined {
				if strings.HasPrefix(imp, dep) && !contains(homes, pkg) {
					t.Errorf("%s imports %s, which only %v may", rel, imp, homes)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func contains(homes []string, pkg string) bool {
	for _, h := range homes {
		if h == pkg {
			return true
		}
	}
	return false
}
