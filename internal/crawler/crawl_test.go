package crawler

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/cockroachdb/datadriven"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/hive"
)

// TestCrawl runs the stories of testdata/crawl:
//
//	put                      files: "-- NAME --" and the content; "parquet N: a bigint, b …" is a
//	                         Parquet file of N rows, "gzip" (zstd, …) compresses what follows,
//	                         "repeat N" repeats it
//	remove                   prefixes, a line each
//	crawler [name=] [path=…] [exclude=(…)] [sample=] [level=] [combine] [merge] [inherit] [threshold=]
//	        [update=] [delete=] [recrawl=] [prefix=] [classifiers=(…)] [database=]
//	crawl [name=]            the report, without times
//	plan [name=]
//	tables
//	table NAME               what the catalog has
//	partitions NAME
//	foreign NAME             a table of somebody else's
//	alter NAME               Glue's API changes a column: "name type" lines
//	opened                   how many files were read since the last time
func TestCrawl(t *testing.T) {
	datadriven.Walk(t, "testdata/crawl", func(t *testing.T, path string) {
		w := newWorld(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			w.t = t
			w.tick(time.Minute)
			w.bucket.now = w.now().Add(-time.Hour)
			return w.script(d)
		})
	})
}

func (w *world) script(d *datadriven.TestData) string {
	ctx := context.Background()
	name := "c"
	d.MaybeScanArgs(w.t, "name", &name)
	var out bytes.Buffer
	switch d.Cmd {
	case "put":
		for section := range strings.SplitSeq("\n"+d.Input, "\n-- ") {
			if file, content, ok := strings.Cut(section, " --"); ok {
				w.bucket.put(unquote(file), w.content(strings.TrimPrefix(content, "\n")))
			}
		}
	case "remove":
		for line := range strings.Lines(d.Input) {
			w.bucket.remove(strings.TrimSpace(line))
		}
	case "crawler":
		def := w.definition(d, name)
		err := w.m.Create(ctx, def)
		if err != nil && strings.Contains(err.Error(), "exists") {
			err = w.m.Update(ctx, def)
		}
		if err != nil {
			return err.Error() + "\n"
		}
	case "classifier":
		c := CSVClassifier{Name: name}
		d.MaybeScanArgs(w.t, "delimiter", &c.Delimiter)
		d.MaybeScanArgs(w.t, "header", &c.ContainsHeader)
		d.MaybeScanArgs(w.t, "columns", &c.Header)
		must(w.t, w.m.CreateClassifier(ctx, Classifier{CSV: &c}))
	case "crawl":
		r, err := w.m.Run(ctx, name)
		if err != nil {
			return err.Error() + "\n"
		}
		_, err = r.WriteTo(&out)
		must(w.t, err)
	case "plan":
		info, err := w.m.Get(name)
		must(w.t, err)
		r, err := w.m.Plan(ctx, info.Definition)
		if err != nil {
			return err.Error() + "\n"
		}
		_, err = r.WriteTo(&out)
		must(w.t, err)
	case "tables":
		for _, n := range w.tables() {
			fmt.Fprintln(&out, n)
		}
	case "table":
		w.writeTable(&out, d.CmdArgs[0].Key)
	case "partitions":
		for _, p := range w.partitions(d.CmdArgs[0].Key) {
			fmt.Fprintf(&out, "%q %s %s\n", p.Values, p.Storage.Location, parametersText(p.Parameters))
		}
	case "foreign":
		t := hive.Table{Type: hive.ExternalTable, Storage: &hive.Storage{Location: "s3://lake/" + d.CmdArgs[0].Key + "/", Columns: []hive.Column{{Name: "theirs", Type: "int"}}}}
		err := w.cat.CreateNamespace(ctx, "files", nil)
		if err != nil && !strings.Contains(err.Error(), "exists") {
			must(w.t, err)
		}
		must(w.t, w.cat.ChangeExternals(ctx, []catalog.ExternalChange{{Table: catalog.Name{Namespace: "files", Table: d.CmdArgs[0].Key}, Define: &t}}))
	case "alter":
		e := w.table(d.CmdArgs[0].Key)
		def := cloneTable(e.Definition)
		for line := range strings.Lines(d.Input) {
			f := strings.Fields(line)
			i := slices.IndexFunc(def.Storage.Columns, func(c hive.Column) bool { return c.Name == f[0] })
			def.Storage.Columns[i].Type, def.Storage.Columns[i].Comment = f[1], "by hand"
		}
		must(w.t, w.cat.ChangeExternals(ctx, []catalog.ExternalChange{{Table: e.Name, IfVersion: e.Version, Define: &def}}))
	case "opened":
		fmt.Fprintf(&out, "%d\n", len(w.bucket.opened()))
	default:
		w.t.Fatalf("command %s", d.Cmd)
	}
	if out.Len() == 0 {
		return "ok\n"
	}
	return out.String()
}

// unquote reads a name, with Go's escapes if it is in quotes.
func unquote(s string) string {
	if strings.HasPrefix(s, `"`) {
		if u, err := strconv.Unquote(s); err == nil {
			return u
		}
	}
	return s
}

// content makes a file of its description.
func (w *world) content(text string) string {
	first, rest, _ := strings.Cut(text, "\n")
	f := strings.Fields(first)
	switch {
	case len(f) == 0:
		return text
	case f[0] == "parquet":
		rows, err := strconv.Atoi(strings.TrimSuffix(f[1], ":"))
		must(w.t, err)
		_, columns, _ := strings.Cut(first, ": ")
		var fields []arrow.Field
		for c := range strings.SplitSeq(columns, ", ") {
			name, typ, _ := strings.Cut(c, " ")
			fields = append(fields, arrow.Field{Name: name, Type: arrowType(w.t, typ)})
		}
		return parquetFile(w.t, rows, fields...)
	case f[0] == "repeat":
		n, err := strconv.Atoi(f[1])
		must(w.t, err)
		return strings.Repeat(rest, n)
	case slices.Contains([]string{gzipC, zstdC, snappy}, f[0]):
		return compressed(w.t, f[0], w.content(rest))
	}
	return text
}

func (w *world) definition(d *datadriven.TestData, name string) Definition {
	def := Definition{Name: name, Database: "files"}
	var paths []string
	d.MaybeScanArgs(w.t, "path", &paths)
	if len(paths) == 0 {
		paths = []string{"s3://lake/"}
	}
	var sample int
	d.MaybeScanArgs(w.t, "sample", &sample)
	var exclude []string
	d.MaybeScanArgs(w.t, "exclude", &exclude)
	for _, p := range paths {
		def.Targets = append(def.Targets, Target{Path: p, Exclusions: exclude, SampleSize: sample})
	}
	d.MaybeScanArgs(w.t, "update", &def.Policy.UpdateBehavior)
	d.MaybeScanArgs(w.t, "delete", &def.Policy.DeleteBehavior)
	d.MaybeScanArgs(w.t, "recrawl", &def.Recrawl)
	d.MaybeScanArgs(w.t, "prefix", &def.TablePrefix)
	d.MaybeScanArgs(w.t, "database", &def.Database)
	d.MaybeScanArgs(w.t, "classifiers", &def.Classifiers)
	var grouping, output, other []string
	var level, threshold int
	if d.MaybeScanArgs(w.t, "level", &level); level > 0 {
		grouping = append(grouping, fmt.Sprintf(`"TableLevelConfiguration":%d`, level))
	}
	if d.HasArg("combine") {
		grouping = append(grouping, `"TableGroupingPolicy":"CombineCompatibleSchemas"`)
	}
	if d.HasArg("merge") {
		output = append(output, `"Tables":{"AddOrUpdateBehavior":"MergeNewColumns"}`)
	}
	if d.HasArg("inherit") {
		output = append(output, `"Partitions":{"AddOrUpdateBehavior":"InheritFromTable"}`)
	}
	if d.MaybeScanArgs(w.t, "threshold", &threshold); threshold > 0 {
		other = append(other, fmt.Sprintf(`,"TableThreshold":%d`, threshold))
	}
	def.Configuration = fmt.Sprintf(`{"Version":1.0,"CrawlerOutput":{%s},"Grouping":{%s}%s}`, strings.Join(output, ","), strings.Join(grouping, ","), strings.Join(other, ""))
	return def
}

func (w *world) writeTable(out *bytes.Buffer, name string) {
	e := w.table(name)
	d := e.Definition
	fmt.Fprintf(out, "version %d at %s\n", e.Version, d.Storage.Location)
	for _, c := range d.Storage.Columns {
		fmt.Fprintf(out, "  %s %s\n", c.Name, strings.TrimSpace(c.Type+" "+c.Comment))
	}
	for _, c := range d.PartitionKeys {
		fmt.Fprintf(out, "  by %s %s\n", c.Name, c.Type)
	}
	serde := d.Storage.Serde
	if serde == nil {
		serde = &hive.Serde{}
	}
	fmt.Fprintf(out, "  %s %s\n", serde.Library[strings.LastIndexByte(serde.Library, '.')+1:], parametersText(serde.Parameters))
	fmt.Fprintf(out, "  %s\n", parametersText(d.Parameters))
}

func parametersText(p map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(p)) {
		v := p[k]
		switch k {
		case paramDeprecated:
			v = "…"
		case paramSerializer, paramDeserializer, paramTypeOfData, paramOrdered, paramQuoted, paramCrawler, paramRecordSize, "serialization.format":
			continue
		}
		out = append(out, fmt.Sprintf("%s=%s", k, strings.Trim(strconv.Quote(v), `"`)))
	}
	return strings.Join(out, " ")
}

// TestTableParameters holds all that Glue's crawler writes, which the stories leave
// out.
func TestTableParameters(t *testing.T) {
	w := newWorld(t)
	w.bucket.put("orders/a.csv", "id,price\n1,2.50\n2,3.50\n")
	w.define(Definition{})
	w.crawl("c")
	d := w.table("orders").Definition
	want := map[string]string{"classification": "csv", "compressionType": "none", "typeOfData": "file", "delimiter": ",", "columnsOrdered": "true", "areColumnsQuoted": "false",
		"skip.header.line.count": "1", "objectCount": "1", "recordCount": "2", "averageRecordSize": "11", "sizeKey": "23", "UPDATED_BY_CRAWLER": "c",
		"CrawlerSchemaSerializerVersion": "1.0", "CrawlerSchemaDeserializerVersion": "1.0"}
	if !maps.Equal(d.Parameters, want) {
		t.Errorf("parameters\n got %v\nwant %v", d.Parameters, want)
	}
	if d.Type != hive.ExternalTable || d.Storage.InputFormat != hive.TextInput || d.Storage.OutputFormat != hive.TextOutput || d.Storage.Serde.Library != hive.LazySerde || d.Storage.NumberOfBuckets != -1 || d.Storage.Compressed {
		t.Errorf("%+v", d.Storage)
	}
}
