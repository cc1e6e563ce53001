package glue

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/crawler"
)

// drop writes a file where crawlers look.
func (w *world) drop(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.files, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// crawl starts a crawler and waits for its end.
func (w *world) crawl(name string) {
	w.t.Helper()
	if got := w.call("StartCrawler", `{"Name":"`+name+`"}`); got != "{}" {
		w.t.Fatal(got)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		i, err := w.crawlers.Get(name)
		if err != nil {
			w.t.Fatal(err)
		}
		if i.State == crawler.StateReady {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the crawler is %s", i.State)
		}
	}
}

func TestCrawlers(t *testing.T) {
	w := newWorld(t)
	const create = `{"Name":"symbols","Role":"arn:aws:iam::000000000000:role/glue","DatabaseName":"Files","Targets":{"S3Targets":[{"Path":"s3://lake/symbols/","Exclusions":["*.tmp"]}]},` +
		`"Description":"listed","TablePrefix":"x_","Tags":{"team":"ops"},"Configuration":"{\"Version\":1.0}","LineageConfiguration":{"CrawlerLineageSettings":"DISABLE"},"LakeFormationConfiguration":{"UseLakeFormationCredentials":false}}`
	w.steps(
		step{"GetCrawlers", `{}`, `{"Crawlers":[]}`},
		step{"GetCrawler", `{"Name":"symbols"}`, "…EntityNotFoundException: "},
		step{"CreateCrawler", `{"Name":"symbols","Role":"r","DatabaseName":"files","Targets":{}}`, "…InvalidInputException: "},
		step{"CreateCrawler", `{"Name":"symbols","Role":"r","DatabaseName":"files","Targets":{"JdbcTargets":[{"Path":"db/%"}]}}`, "InvalidInputException: " + onlyFiles},
		step{"CreateCrawler", `{"Name":"symbols","Role":"r","DatabaseName":"files","Targets":{"S3Targets":[{"Path":"s3://elsewhere/"}]}}`, "…there is no bucket"},
		step{"CreateCrawler", strings.Replace(create, "DISABLE", "ENABLE", 1), "…CrawlerLineageSettings ENABLE is not supported"},
		step{"CreateCrawler", strings.Replace(create, `Credentials":false`, `Credentials":true`, 1), "…UseLakeFormationCredentials is not supported"},
		step{"CreateCrawler", create, "{}"},
		step{"CreateCrawler", create, "…AlreadyExistsException: "},
		step{"GetTags", `{"ResourceArn":"arn:aws:glue:us-east-1:000000000000:crawler/symbols"}`, `{"Tags":{"team":"ops"}}`},
		step{"TagResource", `{"ResourceArn":"arn:aws:glue:us-east-1:000000000000:crawler/symbols","TagsToAdd":{"a":"b"}}`, `{}`},
		step{"UntagResource", `{"ResourceArn":"arn:aws:glue:us-east-1:000000000000:crawler/symbols","TagsToRemove":["team"]}`, `{}`},
		step{"GetTags", `{"ResourceArn":"arn:aws:glue:us-east-1:000000000000:crawler/symbols"}`, `{"Tags":{"a":"b"}}`},
		step{"GetTags", `{"ResourceArn":"arn:aws:glue:us-east-1:000000000000:crawler/none"}`, "…EntityNotFoundException: "},
		step{"ListCrawlers", `{"Tags":{"a":"b"}}`, `{"CrawlerNames":["symbols"]}`},
		step{"ListCrawlers", `{"Tags":{"a":"c"}}`, `{"CrawlerNames":[]}`},
		step{"GetCrawler", `{"Name":"symbols"}`, `…"Targets":{"S3Targets":[{"Path":"s3://lake/symbols/","Exclusions":["*.tmp"]}]},"DatabaseName":"files","Description":"listed","Classifiers":[],"RecrawlPolicy":{"RecrawlBehavior":"CRAWL_EVERYTHING"},` +
			`"SchemaChangePolicy":{"UpdateBehavior":"UPDATE_IN_DATABASE","DeleteBehavior":"DEPRECATE_IN_DATABASE"}`},
		step{"StopCrawler", `{"Name":"symbols"}`, "…CrawlerNotRunningException: "},
		step{"StartCrawler", `{"Name":"none"}`, "…EntityNotFoundException: "},
	)
	w.drop("symbols/listing=a/s.csv", "symbol,lot\nABC,100\nDEF,1\n")
	w.drop("symbols/listing=b/s.csv", "symbol,lot\nGHI,10\n")
	w.drop("symbols/listing=b/x.tmp", "not a table")
	w.crawl("symbols")
	w.steps(
		step{"GetTable", `{"DatabaseName":"files","Name":"x_symbols"}`, `…"Location":"s3://lake/symbols/"`},
		step{"GetPartitions", `{"DatabaseName":"files","TableName":"x_symbols","Expression":"listing = 'b'"}`, `…"Values":["b"]`},
		step{"ListCrawls", `{"CrawlerName":"symbols"}`, `…"State":"COMPLETED"`},
		step{"ListCrawls", `{"CrawlerName":"symbols"}`, `…TABLE\":{\"ADD\":{\"Count\":1,\"Details\":{\"names\":[\"x_symbols\"]}}}`},
		step{"ListCrawls", `{"CrawlerName":"symbols","Filters":[{"FieldName":"STATE","FilterOperator":"EQ","FieldValue":"FAILED"}]}`, `{"Crawls":[]}`},
		step{"ListCrawls", `{"CrawlerName":"symbols","Filters":[{"FieldName":"START_TIME","FilterOperator":"GT","FieldValue":"0"}]}`, `…COMPLETED`},
		step{"ListCrawls", `{"CrawlerName":"symbols","Filters":[{"FieldName":"START_TIME","FilterOperator":"GT","FieldValue":"x"}]}`, `…is no number`},
		step{"GetCrawler", `{"Name":"symbols"}`, `…"LastCrawl":{"Status":"SUCCEEDED"`},
		step{"GetCrawlerMetrics", `{}`, `…"TablesCreated":1`},
		step{"GetCrawlerMetrics", `{"CrawlerNameList":["none"]}`, `{"CrawlerMetricsList":[]}`},
		step{"BatchGetCrawlers", `{"CrawlerNames":["symbols","none"]}`, `…"CrawlersNotFound":["none"]`},
		step{"UpdateCrawler", `{"Name":"symbols","Description":"","SchemaChangePolicy":{"UpdateBehavior":"LOG","DeleteBehavior":"LOG"},"RecrawlPolicy":{"RecrawlBehavior":"CRAWL_NEW_FOLDERS_ONLY"}}`, "{}"},
		step{"GetCrawler", `{"Name":"symbols"}`, `…"RecrawlBehavior":"CRAWL_NEW_FOLDERS_ONLY"`},
		step{"UpdateCrawler", `{"Name":"none"}`, "…EntityNotFoundException: "},
		step{"UpdateCrawlerSchedule", `{"CrawlerName":"symbols","Schedule":"cron(0 6 * * ? *)"}`, "{}"},
		step{"GetCrawler", `{"Name":"symbols"}`, `…"Schedule":{"ScheduleExpression":"cron(0 6 * * ? *)","State":"SCHEDULED"}`},
		step{"StartCrawlerSchedule", `{"CrawlerName":"symbols"}`, "…SchedulerRunningException: "},
		step{"StopCrawlerSchedule", `{"CrawlerName":"symbols"}`, "{}"},
		step{"StopCrawlerSchedule", `{"CrawlerName":"symbols"}`, "…SchedulerNotRunningException: "},
		step{"UpdateCrawlerSchedule", `{"CrawlerName":"symbols","Schedule":"cron(* * * * * *)"}`, "…InvalidInputException: "},
		step{"DeleteCrawler", `{"Name":"symbols"}`, "{}"},
		step{"DeleteCrawler", `{"Name":"symbols"}`, "…EntityNotFoundException: "},
		step{"GetTable", `{"DatabaseName":"files","Name":"x_symbols"}`, `…x_symbols`},
	)
}

func TestClassifiers(t *testing.T) {
	w := newWorld(t)
	w.steps(
		step{"CreateClassifier", `{}`, "…Give one classifier"},
		step{"CreateClassifier", `{"GrokClassifier":{"Name":"g","Classification":"c","GrokPattern":"p"}}`, "InvalidInputException: " + noGrok},
		step{"CreateClassifier", `{"CsvClassifier":{"Name":"pipes","Delimiter":"|","ContainsHeader":"ABSENT","Header":["symbol","lot"]}}`, "{}"},
		step{"CreateClassifier", `{"CsvClassifier":{"Name":"pipes"}}`, "…AlreadyExistsException: "},
		step{"CreateClassifier", `{"JsonClassifier":{"Name":"rows","JsonPath":"$.rows[*]"}}`, "{}"},
		step{"CreateClassifier", `{"CsvClassifier":{"Name":"trim","DisableValueTrimming":false}}`, "{}"},
		step{"GetClassifier", `{"Name":"trim"}`, `…"DisableValueTrimming":false`},
		step{"DeleteClassifier", `{"Name":"trim"}`, "{}"},
		step{"GetClassifier", `{"Name":"pipes"}`, `…"Delimiter":"|","ContainsHeader":"ABSENT","Header":["symbol","lot"]`},
		step{"GetClassifiers", `{"MaxResults":1}`, `…"NextToken"`},
		step{"GetClassifiers", `{}`, `…"JsonPath":"$.rows[*]"`},
		step{"UpdateClassifier", `{"CsvClassifier":{"Name":"pipes","Delimiter":";"}}`, "{}"},
		step{"GetClassifier", `{"Name":"pipes"}`, `…"Version":2,"Delimiter":";","ContainsHeader":"ABSENT"`},
		step{"UpdateClassifier", `{"JsonClassifier":{"Name":"pipes","JsonPath":"$"}}`, "…InvalidInputException: "},
		step{"UpdateClassifier", `{"CsvClassifier":{"Name":"none"}}`, "…EntityNotFoundException: "},
		step{"DeleteClassifier", `{"Name":"rows"}`, "{}"},
		step{"GetClassifier", `{"Name":"rows"}`, "…EntityNotFoundException: "},
		step{"CreateCrawler", `{"Name":"c","Role":"r","DatabaseName":"d","Classifiers":["none"],"Targets":{"S3Targets":[{"Path":"s3://lake/x/"}]}}`, "…"},
	)
}

// TestCrawlerPages: pages add up to all crawlers and all crawls.
func TestCrawlerPages(t *testing.T) {
	w := newWorld(t)
	w.drop("x/a.json", `{"a":1}`)
	for _, name := range []string{"c", "a", "b"} {
		if got := w.call("CreateCrawler", `{"Name":"`+name+`","Role":"r","DatabaseName":"d_`+name+`","Targets":{"S3Targets":[{"Path":"lake/x/"}]}}`); got != "{}" {
			t.Fatal(got)
		}
	}
	var names []string
	for token := ""; ; {
		var out struct {
			CrawlerNames []string
			NextToken    string
		}
		if err := json.Unmarshal([]byte(w.call("ListCrawlers", `{"MaxResults":2,"NextToken":"`+token+`"}`)), &out); err != nil {
			t.Fatal(err)
		}
		names = append(names, out.CrawlerNames...)
		if token = out.NextToken; token == "" {
			break
		}
	}
	if got := strings.Join(names, " "); got != "a b c" {
		t.Errorf("crawlers %s", got)
	}
	for range 3 {
		w.crawl("a")
	}
	seen := 0
	for token := ""; ; {
		var out struct {
			Crawls    []struct{ CrawlId string } //nolint:staticcheck // as Glue spells it
			NextToken string
		}
		if err := json.Unmarshal([]byte(w.call("ListCrawls", `{"CrawlerName":"a","MaxResults":2,"NextToken":"`+token+`"}`)), &out); err != nil {
			t.Fatal(err)
		}
		seen += len(out.Crawls)
		if token = out.NextToken; token == "" {
			break
		}
	}
	if seen != 3 {
		t.Errorf("%d crawls in pages, want 3", seen)
	}
}
