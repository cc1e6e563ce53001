package glue

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/awsapi"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/crawler"
)

// crawlersPage is how many crawlers or crawls an answer lists when the request does
// not say.
const crawlersPage = 100

type crawlerTargets struct {
	S3Targets []s3Target
}

type s3Target struct {
	Path       string
	Exclusions []string `json:",omitempty"`
	SampleSize *int     `json:",omitempty"`

	// Terraform's provider sends these empty.
	ConnectionName   string `json:",omitempty"`
	EventQueueARN    string `json:"EventQueueArn,omitempty"`
	DlqEventQueueARN string `json:"DlqEventQueueArn,omitempty"`
}

type schemaChangePolicy struct {
	UpdateBehavior string `json:",omitempty"`
	DeleteBehavior string `json:",omitempty"`
}

type recrawlPolicy struct {
	RecrawlBehavior string `json:",omitempty"`
}

type lineageConfiguration struct{ CrawlerLineageSettings string }

type lakeFormation struct {
	UseLakeFormationCredentials bool
	AccountID                   string `json:"AccountId,omitempty"`
}

type crawlerInput struct {
	Name                       string
	Role                       *string
	DatabaseName               *string
	Description                *string
	Targets                    *crawlerTargets
	Schedule                   *string
	Classifiers                *[]string
	TablePrefix                *string
	SchemaChangePolicy         *schemaChangePolicy
	RecrawlPolicy              *recrawlPolicy
	LineageConfiguration       *lineageConfiguration
	LakeFormationConfiguration *lakeFormation
	Configuration              *string
}

type createCrawlerInput struct {
	crawlerInput
	Tags map[string]string
}

// apply puts what the input names into a definition.
func (in *crawlerInput) apply(d *crawler.Definition) error {
	if in.LineageConfiguration != nil && in.LineageConfiguration.CrawlerLineageSettings == "ENABLE" {
		return invalid("CrawlerLineageSettings ENABLE is not supported: the report of each crawl says which files a table is of.")
	}
	if in.LakeFormationConfiguration != nil && in.LakeFormationConfiguration.UseLakeFormationCredentials {
		return invalid("UseLakeFormationCredentials is not supported: there is no Lake Formation here; the server reads the buckets with its own credentials.")
	}
	set := func(to *string, from *string) {
		if from != nil {
			*to = *from
		}
	}
	set(&d.Role, in.Role)
	if in.DatabaseName != nil {
		d.Database = strings.ToLower(*in.DatabaseName)
	}
	set(&d.Description, in.Description)
	set(&d.Schedule, in.Schedule)
	set(&d.TablePrefix, in.TablePrefix)
	set(&d.Configuration, in.Configuration)
	if in.Targets != nil {
		d.Targets = nil
		for _, t := range in.Targets.S3Targets {
			if t.ConnectionName != "" {
				return invalid("ConnectionName is not supported: the server reads buckets with its own credentials, and directories on its disk.")
			}
			if t.EventQueueARN+t.DlqEventQueueARN != "" {
				return invalid("Event queues are not needed: with RecrawlBehavior CRAWL_EVENT_MODE the server watches the folders itself.")
			}
			target := crawler.Target{Path: t.Path, Exclusions: t.Exclusions}
			if !strings.Contains(t.Path, "://") { // Glue takes bucket/folder too
				target.Path = "s3://" + t.Path
			}
			if t.SampleSize != nil {
				if *t.SampleSize < 1 {
					return invalid("SampleSize must be 1 to 249.")
				}
				target.SampleSize = *t.SampleSize
			}
			d.Targets = append(d.Targets, target)
		}
	}
	if in.Classifiers != nil {
		d.Classifiers = *in.Classifiers
	}
	if p := in.SchemaChangePolicy; p != nil {
		d.Policy = crawler.SchemaChangePolicy{UpdateBehavior: p.UpdateBehavior, DeleteBehavior: p.DeleteBehavior}
	}
	if in.RecrawlPolicy != nil {
		d.Recrawl = in.RecrawlPolicy.RecrawlBehavior
	}
	return nil
}

// crawlerTagsKey is the document of a crawler's tags.
func crawlerTagsKey(name string) string { return "crawler/" + name }

func (h *Handler) createCrawler(ctx context.Context, c *awsapi.Call, in *createCrawlerInput) (any, error) {
	d := crawler.Definition{Name: in.Name}
	if err := in.apply(&d); err != nil {
		return nil, err
	}
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	if err := h.crawlers.Create(ctx, d); err != nil {
		return nil, crawlerError(err)
	}
	if len(in.Tags) > 0 {
		err := edit(ctx, h, kindTags, crawlerTagsKey(in.Name), func(tags *map[string]string) error {
			*tags = in.Tags
			return nil
		}, func(*map[string]string) bool { return false })
		if err != nil {
			return nil, err
		}
	}
	h.log(c, "glue crawler created", "crawler", in.Name)
	return nil, nil
}

func (h *Handler) updateCrawler(ctx context.Context, c *awsapi.Call, in *crawlerInput) (any, error) {
	was, err := h.crawlers.Get(in.Name)
	if err != nil {
		return nil, crawlerError(err)
	}
	d := was.Definition
	if err := in.apply(&d); err != nil {
		return nil, err
	}
	if err := h.crawlers.Update(ctx, d); err != nil {
		return nil, crawlerError(err)
	}
	h.log(c, "glue crawler updated", "crawler", in.Name)
	return nil, nil
}

type nameInput struct{ Name string }

func (h *Handler) deleteCrawler(ctx context.Context, c *awsapi.Call, in *nameInput) (any, error) {
	if err := h.crawlers.Delete(ctx, in.Name); err != nil {
		return nil, crawlerError(err)
	}
	err := edit(ctx, h, kindTags, crawlerTagsKey(in.Name), func(tags *map[string]string) error {
		*tags = nil
		return nil
	}, func(*map[string]string) bool { return true })
	h.log(c, "glue crawler deleted", "crawler", in.Name)
	return nil, err
}

// crawlerOutput is a crawler as Glue shows it.
type crawlerOutput struct {
	Name                 string
	Role                 string `json:",omitempty"`
	Targets              crawlerTargets
	DatabaseName         string
	Description          string `json:",omitempty"`
	Classifiers          []string
	RecrawlPolicy        recrawlPolicy
	SchemaChangePolicy   schemaChangePolicy
	LineageConfiguration lineageConfiguration
	State                string
	TablePrefix          string          `json:",omitempty"`
	Schedule             *scheduleOutput `json:",omitempty"`
	CrawlElapsedTime     int64           // ms
	CreationTime         *epoch
	LastUpdated          *epoch
	LastCrawl            *lastCrawl `json:",omitempty"`
	Version              int64
	Configuration        string `json:",omitempty"`
	LakeFormation        struct {
		UseLakeFormationCredentials bool
		AccountID                   string `json:"AccountId"`
	} `json:"LakeFormationConfiguration"`
}

type scheduleOutput struct{ ScheduleExpression, State string }

type lastCrawl struct {
	Status        string
	ErrorMessage  string `json:",omitempty"`
	MessagePrefix string
	StartTime     *epoch
}

func showCrawler(i *crawler.Info) crawlerOutput {
	out := crawlerOutput{Name: i.Name, Role: i.Role, DatabaseName: i.Database, Description: i.Description, Classifiers: i.Classifiers,
		RecrawlPolicy: recrawlPolicy{i.Recrawl}, SchemaChangePolicy: schemaChangePolicy{i.Policy.UpdateBehavior, i.Policy.DeleteBehavior},
		LineageConfiguration: lineageConfiguration{"DISABLE"}, State: i.State, TablePrefix: i.TablePrefix, CrawlElapsedTime: i.Elapsed.Milliseconds(),
		CreationTime: epochOf(i.CreatedAt), LastUpdated: epochOf(i.UpdatedAt), Version: i.Version, Configuration: i.Configuration,
		Targets: crawlerTargets{S3Targets: []s3Target{}}}
	if out.Classifiers == nil {
		out.Classifiers = []string{}
	}
	for _, t := range i.Targets {
		s := s3Target{Path: t.Path, Exclusions: t.Exclusions}
		if t.SampleSize > 0 {
			s.SampleSize = &t.SampleSize
		}
		out.Targets.S3Targets = append(out.Targets.S3Targets, s)
	}
	if i.Schedule != "" {
		out.Schedule = &scheduleOutput{i.Schedule, i.ScheduleState}
	}
	if l := i.LastCrawl; l != nil {
		out.LastCrawl = &lastCrawl{l.State, l.Error, l.ID, epochOf(l.StartedAt)}
	}
	return out
}

func (h *Handler) getCrawler(_ context.Context, _ *awsapi.Call, in *nameInput) (any, error) {
	i, err := h.crawlers.Get(in.Name)
	if err != nil {
		return nil, crawlerError(err)
	}
	return struct{ Crawler crawlerOutput }{showCrawler(&i)}, nil
}

type pageInput struct {
	MaxResults *int
	NextToken  string
}

// page cuts what is listed, sorted by name, to what one answer holds.
func page[T any](all []T, name func(*T) string, in pageInput) (out []T, next string, err error) {
	var after string
	if err := readToken(in.NextToken, &after); err != nil {
		return nil, "", err
	}
	from, found := slices.BinarySearchFunc(all, after, func(v T, after string) int { return strings.Compare(name(&v), after) })
	if found && after != "" {
		from++
	}
	out = all[from:]
	if n := pageOf(in.MaxResults, crawlersPage); len(out) > n {
		out = out[:n]
		next, err = tokenOf(name(&out[n-1]))
	}
	return out, next, err
}

func crawlerName(i *crawler.Info) string { return i.Name }

func (h *Handler) getCrawlers(_ context.Context, _ *awsapi.Call, in *pageInput) (any, error) {
	infos, next, err := page(h.crawlers.List(), crawlerName, *in)
	if err != nil {
		return nil, err
	}
	out := struct {
		Crawlers  []crawlerOutput
		NextToken string `json:",omitempty"`
	}{[]crawlerOutput{}, next}
	for i := range infos {
		out.Crawlers = append(out.Crawlers, showCrawler(&infos[i]))
	}
	return out, nil
}

type batchCrawlersInput struct{ CrawlerNames []string }

func (h *Handler) batchGetCrawlers(_ context.Context, _ *awsapi.Call, in *batchCrawlersInput) (any, error) {
	out := struct {
		Crawlers         []crawlerOutput
		CrawlersNotFound []string
	}{[]crawlerOutput{}, []string{}}
	for _, name := range in.CrawlerNames {
		i, err := h.crawlers.Get(name)
		switch {
		case errors.Is(err, crawler.ErrNotFound):
			out.CrawlersNotFound = append(out.CrawlersNotFound, name)
		case err != nil:
			return nil, crawlerError(err)
		default:
			out.Crawlers = append(out.Crawlers, showCrawler(&i))
		}
	}
	return out, nil
}

type listCrawlersInput struct {
	pageInput
	Tags map[string]string
}

func (h *Handler) listCrawlers(ctx context.Context, _ *awsapi.Call, in *listCrawlersInput) (any, error) {
	all := h.crawlers.List()
	if len(in.Tags) > 0 {
		var err error
		all = slices.DeleteFunc(all, func(i crawler.Info) bool {
			tags, _, e := document[map[string]string](ctx, h, kindTags, crawlerTagsKey(i.Name))
			err = errors.Join(err, e)
			for k, v := range in.Tags {
				if have, ok := tags[k]; !ok || have != v {
					return true
				}
			}
			return false
		})
		if err != nil {
			return nil, err
		}
	}
	infos, next, err := page(all, crawlerName, in.pageInput)
	if err != nil {
		return nil, err
	}
	out := struct {
		CrawlerNames []string
		NextToken    string `json:",omitempty"`
	}{[]string{}, next}
	for i := range infos {
		out.CrawlerNames = append(out.CrawlerNames, infos[i].Name)
	}
	return out, nil
}

func (h *Handler) startCrawler(ctx context.Context, c *awsapi.Call, in *nameInput) (any, error) {
	id, err := h.crawlers.Start(ctx, in.Name)
	if err == nil {
		h.log(c, "glue crawler started", "crawler", in.Name, "crawl", id)
	}
	return nil, crawlerError(err)
}

func (h *Handler) stopCrawler(_ context.Context, c *awsapi.Call, in *nameInput) (any, error) {
	err := h.crawlers.Stop(in.Name)
	if err == nil {
		h.log(c, "glue crawler stopped", "crawler", in.Name)
	}
	return nil, crawlerError(err)
}

type scheduleInput struct {
	CrawlerName string
	Schedule    string
}

func (h *Handler) updateCrawlerSchedule(ctx context.Context, _ *awsapi.Call, in *scheduleInput) (any, error) {
	return nil, crawlerError(h.crawlers.SetSchedule(ctx, in.CrawlerName, in.Schedule))
}

type crawlerNameInput struct{ CrawlerName string }

func (h *Handler) startCrawlerSchedule(ctx context.Context, _ *awsapi.Call, in *crawlerNameInput) (any, error) {
	err := h.crawlers.StartSchedule(ctx, in.CrawlerName)
	switch {
	case errors.Is(err, crawler.ErrScheduled):
		return nil, awsapi.BadRequest("SchedulerRunningException", err.Error())
	case errors.Is(err, crawler.ErrInvalid):
		return nil, awsapi.BadRequest("NoScheduleException", err.Error())
	}
	return nil, crawlerError(err)
}

func (h *Handler) stopCrawlerSchedule(ctx context.Context, _ *awsapi.Call, in *crawlerNameInput) (any, error) {
	err := h.crawlers.StopSchedule(ctx, in.CrawlerName)
	if errors.Is(err, crawler.ErrScheduled) || errors.Is(err, crawler.ErrInvalid) {
		return nil, awsapi.BadRequest("SchedulerNotRunningException", err.Error())
	}
	return nil, crawlerError(err)
}

type crawlerMetricsInput struct {
	pageInput
	CrawlerNameList []string
}

type crawlerMetrics struct {
	CrawlerName          string
	TimeLeftSeconds      float64
	StillEstimating      bool
	LastRuntimeSeconds   float64
	MedianRuntimeSeconds float64
	TablesCreated        int
	TablesUpdated        int
	TablesDeleted        int
}

func (h *Handler) getCrawlerMetrics(_ context.Context, _ *awsapi.Call, in *crawlerMetricsInput) (any, error) {
	infos := h.crawlers.List()
	if len(in.CrawlerNameList) > 0 {
		infos = slices.DeleteFunc(infos, func(i crawler.Info) bool { return !slices.Contains(in.CrawlerNameList, i.Name) })
	}
	infos, next, err := page(infos, crawlerName, in.pageInput)
	if err != nil {
		return nil, err
	}
	out := struct {
		CrawlerMetricsList []crawlerMetrics
		NextToken          string `json:",omitempty"`
	}{[]crawlerMetrics{}, next}
	for i := range infos {
		m, err := h.crawlers.Metrics(infos[i].Name)
		if errors.Is(err, crawler.ErrNotFound) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, crawlerError(err)
		}
		out.CrawlerMetricsList = append(out.CrawlerMetricsList, crawlerMetrics{m.Crawler, m.TimeLeft.Seconds(), m.Estimating, m.LastRuntime.Seconds(), m.MedianRuntime.Seconds(), m.Created, m.Updated, m.Deleted})
	}
	return out, nil
}

type crawlsFilter struct{ FieldName, FilterOperator, FieldValue string }

type listCrawlsInput struct {
	pageInput
	CrawlerName string
	Filters     []crawlsFilter
}

// crawlHistory is a crawl as Glue shows it.
type crawlHistory struct {
	CrawlID       string `json:"CrawlId"`
	State         string
	StartTime     *epoch
	EndTime       *epoch `json:",omitempty"`
	Summary       string `json:",omitempty"` // JSON
	ErrorMessage  string `json:",omitempty"`
	MessagePrefix string
	DPUHour       float64
}

func (h *Handler) listCrawls(_ context.Context, _ *awsapi.Call, in *listCrawlsInput) (any, error) {
	crawls, err := h.crawlers.Crawls(in.CrawlerName)
	if err != nil {
		return nil, crawlerError(err)
	}
	for _, f := range in.Filters {
		wanted, err := f.test()
		if err != nil {
			return nil, err
		}
		crawls = slices.DeleteFunc(crawls, func(c crawler.Crawl) bool { return !wanted(&c) })
	}
	var from int64 // the sequence of the crawl before
	if err := readToken(in.NextToken, &from); err != nil {
		return nil, err
	}
	if from > 0 {
		crawls = slices.DeleteFunc(crawls, func(c crawler.Crawl) bool { return c.Sequence >= from })
	}
	out := struct {
		Crawls    []crawlHistory
		NextToken string `json:",omitempty"`
	}{Crawls: []crawlHistory{}}
	if n := pageOf(in.MaxResults, 20); len(crawls) > n {
		crawls = crawls[:n]
		if out.NextToken, err = tokenOf(crawls[n-1].Sequence); err != nil {
			return nil, err
		}
	}
	for i := range crawls {
		c := &crawls[i]
		summary, err := summaryOf(&c.Summary)
		if err != nil {
			return nil, err
		}
		out.Crawls = append(out.Crawls, crawlHistory{CrawlID: c.ID, State: historyStates[c.State], StartTime: epochOf(c.StartedAt), EndTime: epochOf(c.EndedAt),
			Summary: summary, ErrorMessage: c.Error, MessagePrefix: c.ID})
	}
	return out, nil
}

// historyStates are the states of a crawl as ListCrawls spells them.
var historyStates = map[string]string{
	crawler.CrawlRunning: "RUNNING", crawler.CrawlSucceeded: "COMPLETED", crawler.CrawlFailed: "FAILED", crawler.CrawlCancelled: "STOPPED",
}

// test makes a condition on crawls. Instants are milliseconds since 1970.
func (f *crawlsFilter) test() (func(*crawler.Crawl) bool, error) {
	compare := func(c int) bool {
		switch f.FilterOperator {
		case "GT":
			return c > 0
		case "GE":
			return c >= 0
		case "LT":
			return c < 0
		case "LE":
			return c <= 0
		case "NE":
			return c != 0
		}
		return c == 0
	}
	switch f.FieldName {
	case "CRAWL_ID":
		return func(c *crawler.Crawl) bool { return compare(strings.Compare(c.ID, f.FieldValue)) }, nil
	case "STATE":
		return func(c *crawler.Crawl) bool { return compare(strings.Compare(historyStates[c.State], f.FieldValue)) }, nil
	}
	want, err := strconv.ParseFloat(f.FieldValue, 64)
	if err != nil {
		return nil, invalid("The FieldValue " + strconv.Quote(f.FieldValue) + " is no number: instants are milliseconds since 1970.")
	}
	at := func(t time.Time) bool {
		have := float64(t.UnixMilli())
		switch {
		case have < want:
			return compare(-1)
		case have > want:
			return compare(1)
		}
		return compare(0)
	}
	switch f.FieldName {
	case "START_TIME":
		return func(c *crawler.Crawl) bool { return at(c.StartedAt) }, nil
	case "END_TIME":
		return func(c *crawler.Crawl) bool { return !c.EndedAt.IsZero() && at(c.EndedAt) }, nil
	}
	return func(*crawler.Crawl) bool { return at(time.UnixMilli(0)) }, nil // DPU hours: none are used
}

// summaryOf is the JSON that ListCrawls has of a crawl.
func summaryOf(s *crawler.Summary) (string, error) {
	type changed struct {
		Count   int
		Details *struct {
			Names []string `json:"names"`
		} `json:",omitempty"`
	}
	tables, partitions := map[string]changed{}, map[string]changed{}
	for action, n := range map[string]crawler.Named{"ADD": s.TablesAdded, "UPDATE": s.TablesUpdated, "DELETE": s.TablesDeleted} {
		if n.Count > 0 {
			c := changed{Count: n.Count}
			c.Details = &struct {
				Names []string `json:"names"`
			}{n.Names}
			tables[action] = c
		}
	}
	for action, n := range map[string]int{"ADD": s.PartitionsAdded, "UPDATE": s.PartitionsUpdated, "DELETE": s.PartitionsDeleted} {
		if n > 0 {
			partitions[action] = changed{Count: n}
		}
	}
	out := map[string]map[string]changed{}
	if len(tables) > 0 {
		out["TABLE"] = tables
	}
	if len(partitions) > 0 {
		out["PARTITION"] = partitions
	}
	if len(out) == 0 {
		return "", nil
	}
	b, err := json.Marshal(out)
	return string(b), err
}

// crawlerErrors maps the crawler's decisions to Glue's exceptions.
var crawlerErrors = []struct {
	kind error
	code string
}{
	{crawler.ErrNotFound, codeNotFound}, {crawler.ErrExists, codeExists}, {crawler.ErrInvalid, codeInvalid},
	{crawler.ErrRunning, "CrawlerRunningException"}, {crawler.ErrNotRunning, "CrawlerNotRunningException"}, {crawler.ErrStopping, "CrawlerStoppingException"},
	{crawler.ErrTooMany, codeLimit}, {catalog.ErrConflict, "VersionMismatchException"},
}

func crawlerError(err error) error {
	for _, e := range crawlerErrors {
		if errors.Is(err, e.kind) {
			return awsapi.BadRequest(e.code, err.Error())
		}
	}
	return err
}

// Classifiers.

type csvClassifierInput struct {
	Name                     string
	Delimiter                *string
	QuoteSymbol              *string
	ContainsHeader           *string
	Header                   *[]string
	DisableValueTrimming     *bool
	AllowSingleColumn        *bool
	CustomDatatypeConfigured *bool
	CustomDatatypes          *[]string
	Serde                    *string
}

type jsonClassifierInput struct {
	Name     string
	JSONPath string `json:"JsonPath"`
}

type classifierInput struct {
	JSONClassifier *jsonClassifierInput `json:"JsonClassifier"`
	CSVClassifier  *csvClassifierInput  `json:"CsvClassifier"`
}

// apply puts what the input names into a classifier, which is empty or the one that
// is there.
func (in *classifierInput) apply(c *crawler.Classifier) error {
	switch {
	case (in.JSONClassifier == nil) == (in.CSVClassifier == nil):
		return invalid("Give one classifier: CsvClassifier or JsonClassifier.")
	case in.JSONClassifier != nil:
		was := c.JSON
		c.JSON = &crawler.JSONClassifier{Name: in.JSONClassifier.Name, JSONPath: in.JSONClassifier.JSONPath}
		if was != nil && c.JSON.JSONPath == "" {
			c.JSON.JSONPath = was.JSONPath
		}
		return nil
	}
	v := in.CSVClassifier
	if c.CSV == nil {
		c.CSV = &crawler.CSVClassifier{DisableValueTrimming: true} // AWS's default
	}
	csv := *c.CSV // another reader may have the one that is there
	csv.Name = v.Name
	for _, p := range []struct{ to, from *string }{{&csv.Delimiter, v.Delimiter}, {&csv.QuoteSymbol, v.QuoteSymbol}, {&csv.ContainsHeader, v.ContainsHeader}, {&csv.Serde, v.Serde}} {
		if p.from != nil {
			*p.to = *p.from
		}
	}
	if v.Header != nil {
		csv.Header = *v.Header
	}
	if v.DisableValueTrimming != nil {
		csv.DisableValueTrimming = *v.DisableValueTrimming
	}
	if v.AllowSingleColumn != nil {
		csv.AllowSingleColumn = *v.AllowSingleColumn
	}
	if v.CustomDatatypes != nil {
		csv.CustomDatatypes = *v.CustomDatatypes
	}
	if v.CustomDatatypeConfigured != nil && !*v.CustomDatatypeConfigured {
		csv.CustomDatatypes = nil
	}
	c.CSV = &csv
	return nil
}

func (in *classifierInput) name() string {
	switch {
	case in.CSVClassifier != nil:
		return in.CSVClassifier.Name
	case in.JSONClassifier != nil:
		return in.JSONClassifier.Name
	}
	return ""
}

func (h *Handler) createClassifier(ctx context.Context, _ *awsapi.Call, in *classifierInput) (any, error) {
	var c crawler.Classifier
	if err := in.apply(&c); err != nil {
		return nil, err
	}
	return nil, crawlerError(h.crawlers.CreateClassifier(ctx, c))
}

func (h *Handler) updateClassifier(ctx context.Context, _ *awsapi.Call, in *classifierInput) (any, error) {
	c, err := h.crawlers.Classifier(ctx, in.name())
	if err != nil {
		return nil, crawlerError(err)
	}
	if err := in.apply(&c); err != nil {
		return nil, err
	}
	return nil, crawlerError(h.crawlers.UpdateClassifier(ctx, c))
}

type classifierOutput struct {
	CSVClassifier  *csvClassifierOutput  `json:"CsvClassifier,omitempty"`
	JSONClassifier *jsonClassifierOutput `json:"JsonClassifier,omitempty"`
}

type csvClassifierOutput struct {
	Name                     string
	CreationTime             *epoch
	LastUpdated              *epoch
	Version                  int64
	Delimiter                string `json:",omitempty"`
	QuoteSymbol              string `json:",omitempty"`
	ContainsHeader           string
	Header                   []string `json:",omitempty"`
	DisableValueTrimming     bool
	AllowSingleColumn        bool
	CustomDatatypeConfigured bool
	CustomDatatypes          []string `json:",omitempty"`
	Serde                    string   `json:",omitempty"`
}

type jsonClassifierOutput struct {
	Name         string
	CreationTime *epoch
	LastUpdated  *epoch
	Version      int64
	JSONPath     string `json:"JsonPath"`
}

func showClassifier(c *crawler.Classifier) (out classifierOutput) {
	if v := c.CSV; v != nil {
		out.CSVClassifier = &csvClassifierOutput{Name: v.Name, CreationTime: epochOf(c.CreatedAt), LastUpdated: epochOf(c.UpdatedAt), Version: c.Version, Delimiter: v.Delimiter,
			QuoteSymbol: v.QuoteSymbol, ContainsHeader: v.ContainsHeader, Header: v.Header, DisableValueTrimming: v.DisableValueTrimming, AllowSingleColumn: v.AllowSingleColumn,
			CustomDatatypeConfigured: len(v.CustomDatatypes) > 0, CustomDatatypes: v.CustomDatatypes, Serde: v.Serde}
		if v.ContainsHeader == "" {
			out.CSVClassifier.ContainsHeader = crawler.HeaderUnknown
		}
	}
	if v := c.JSON; v != nil {
		out.JSONClassifier = &jsonClassifierOutput{v.Name, epochOf(c.CreatedAt), epochOf(c.UpdatedAt), c.Version, v.JSONPath}
	}
	return out
}

func (h *Handler) getClassifier(ctx context.Context, _ *awsapi.Call, in *nameInput) (any, error) {
	c, err := h.crawlers.Classifier(ctx, in.Name)
	if err != nil {
		return nil, crawlerError(err)
	}
	return struct{ Classifier classifierOutput }{showClassifier(&c)}, nil
}

func (h *Handler) getClassifiers(ctx context.Context, _ *awsapi.Call, in *pageInput) (any, error) {
	all, err := h.crawlers.Classifiers(ctx)
	if err != nil {
		return nil, crawlerError(err)
	}
	slices.SortFunc(all, func(a, b crawler.Classifier) int { return strings.Compare(a.Name(), b.Name()) })
	all, next, err := page(all, (*crawler.Classifier).Name, *in)
	if err != nil {
		return nil, err
	}
	out := struct {
		Classifiers []classifierOutput
		NextToken   string `json:",omitempty"`
	}{[]classifierOutput{}, next}
	for i := range all {
		out.Classifiers = append(out.Classifiers, showClassifier(&all[i]))
	}
	return out, nil
}

func (h *Handler) deleteClassifier(ctx context.Context, _ *awsapi.Call, in *nameInput) (any, error) {
	return nil, crawlerError(h.crawlers.DeleteClassifier(ctx, in.Name))
}

// changeCrawlerTags changes the tags of a crawler.
func (h *Handler) changeCrawlerTags(ctx context.Context, name string, change func(tags map[string]string) error) error {
	if _, err := h.crawlers.Get(name); err != nil {
		return crawlerError(err)
	}
	return edit(ctx, h, kindTags, crawlerTagsKey(name), func(tags *map[string]string) error {
		changed := map[string]string{}
		maps.Copy(changed, *tags)
		*tags = changed
		return change(changed)
	}, func(tags *map[string]string) bool { return len(*tags) == 0 })
}
