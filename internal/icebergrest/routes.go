package icebergrest

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// about says what stands in an operation's path.
type about int

const (
	aboutNothing about = iota
	aboutNamespace
	aboutTable
)

// operation is one endpoint of the protocol.
type operation struct {
	name    string // for metrics and logs
	method  string
	path    string // as the protocol writes it
	action  string // of the service "glue" that a grant must allow; "": run asks itself
	about   about
	all     bool // about all tables of the namespace
	bodyMax int64
	missing string // the type of an error about what does not exist
	open    bool   // needs no authentication
	refusal string // not supported: why, and what to do instead
	run     func(*Handler, context.Context, *call) error

	segments []string // of path, behind the prefix
	prefixed bool
}

const (
	namespacesPath = "/v1/{prefix}/namespaces"
	namespacePath  = namespacesPath + "/{namespace}"
	tablesPath     = namespacePath + "/tables"
	tablePath      = tablesPath + "/{table}"
	viewsPath      = namespacePath + "/views"
)

const (
	viewsRefused       = "Views are not served here: create a materialized view, and query it, by SQL (port 5439)."
	credentialsRefused = "Credentials of files are not handed out. Give the client its own access to the lake's bucket, or to its directory."
	planRefused        = "Scans are not planned here. Let the client plan them from the table's metadata."
	functionsRefused   = "Functions are not served here."
)

// operations is the whole of what is served, and what is refused by name. It is
// filled by init, because an operation, getConfig, lists it.
var operations []operation

func init() {
	operations = compile([]operation{
		{name: "getToken", method: http.MethodPost, path: "/v1/oauth/tokens", bodyMax: 16 << 10, open: true, run: (*Handler).token},
		{name: "getConfig", method: http.MethodGet, path: "/v1/config", run: (*Handler).config},

		{name: "listNamespaces", method: http.MethodGet, path: namespacesPath, action: "GetDatabases", missing: typeNoSuchNamespace, run: (*Handler).listNamespaces},
		{name: "createNamespace", method: http.MethodPost, path: namespacesPath, bodyMax: smallBytesMax, missing: typeNoSuchNamespace, run: (*Handler).createNamespace},
		{name: "loadNamespace", method: http.MethodGet, path: namespacePath, about: aboutNamespace, action: "GetDatabase", missing: typeNoSuchNamespace, run: (*Handler).loadNamespace},
		{name: "namespaceExists", method: http.MethodHead, path: namespacePath, about: aboutNamespace, action: "GetDatabase", missing: typeNoSuchNamespace, run: (*Handler).namespaceExists},
		{name: "dropNamespace", method: http.MethodDelete, path: namespacePath, about: aboutNamespace, action: "DeleteDatabase", missing: typeNoSuchNamespace, run: (*Handler).dropNamespace},
		{name: "updateProperties", method: http.MethodPost, path: namespacePath + "/properties", about: aboutNamespace, action: "UpdateDatabase", bodyMax: smallBytesMax, missing: typeNoSuchNamespace, run: (*Handler).updateNamespace},

		{name: "listTables", method: http.MethodGet, path: tablesPath, about: aboutNamespace, all: true, action: "GetTables", missing: typeNoSuchNamespace, run: (*Handler).listTables},
		{name: "createTable", method: http.MethodPost, path: tablesPath, about: aboutNamespace, bodyMax: bodyBytesMax, missing: typeNoSuchNamespace, run: (*Handler).createTable},
		{name: "registerTable", method: http.MethodPost, path: namespacePath + "/register", about: aboutNamespace, bodyMax: smallBytesMax, missing: typeNoSuchNamespace, run: (*Handler).registerTable},
		{name: "loadTable", method: http.MethodGet, path: tablePath, about: aboutTable, action: "GetTable", missing: typeNoSuchTable, run: (*Handler).loadTable},
		{name: "tableExists", method: http.MethodHead, path: tablePath, about: aboutTable, action: "GetTable", missing: typeNoSuchTable, run: (*Handler).tableExists},
		{name: "updateTable", method: http.MethodPost, path: tablePath, about: aboutTable, bodyMax: bodyBytesMax, missing: typeNoSuchTable, run: (*Handler).commitTable},
		{name: "dropTable", method: http.MethodDelete, path: tablePath, about: aboutTable, action: "DeleteTable", missing: typeNoSuchTable, run: (*Handler).dropTable},
		{name: "renameTable", method: http.MethodPost, path: "/v1/{prefix}/tables/rename", bodyMax: smallBytesMax, missing: typeNoSuchTable, run: (*Handler).renameTable},
		{name: "reportMetrics", method: http.MethodPost, path: tablePath + "/metrics", about: aboutTable, action: "GetTable", bodyMax: smallBytesMax, missing: typeNoSuchTable, run: (*Handler).report},
		{name: "commitTransaction", method: http.MethodPost, path: "/v1/{prefix}/transactions/commit", bodyMax: bodyBytesMax, missing: typeNoSuchTable, run: (*Handler).commitTransaction},

		{name: "views", path: viewsPath, refusal: viewsRefused},
		{name: "views", path: viewsPath + "/{view}", refusal: viewsRefused},
		{name: "views", path: "/v1/{prefix}/views/rename", refusal: viewsRefused},
		{name: "views", path: namespacePath + "/register-view", refusal: viewsRefused},
		{name: "functions", path: namespacePath + "/functions", refusal: functionsRefused},
		{name: "functions", path: namespacePath + "/functions/{function}", refusal: functionsRefused},
		{name: "credentials", path: tablePath + "/credentials", refusal: credentialsRefused},
		{name: "credentials", path: "/v1/aws/s3/sign", refusal: credentialsRefused},
		{name: "credentials", path: tablePath + "/sign", refusal: credentialsRefused},
		{name: "planning", path: tablePath + "/plan", refusal: planRefused},
		{name: "planning", path: tablePath + "/plan/{plan-id}", refusal: planRefused},
		{name: "planning", path: tablePath + "/tasks", refusal: planRefused},
	})
}

func compile(all []operation) []operation {
	for i := range all {
		o := &all[i]
		rest := strings.TrimPrefix(o.path, "/v1/")
		if rest, o.prefixed = strings.CutPrefix(rest, "{prefix}/"); rest == "" {
			panic("icebergrest: " + o.path)
		}
		o.segments = strings.Split(rest, "/")
		if o.bodyMax == 0 {
			o.bodyMax = smallBytesMax
		}
	}
	return all
}

// endpoints are the operations as getConfig lists them.
func endpoints() []string {
	var out []string
	for _, o := range operations {
		if o.refusal == "" && o.prefixed {
			out = append(out, o.method+" "+o.path)
		}
	}
	return out
}

// route finds the operation and what the path says. The prefix may be left out.
func (c *call) route() (*operation, error) {
	path, ok := strings.CutPrefix(c.r.URL.EscapedPath(), Mount+"/v1/")
	if !ok || len(path) > 4096 {
		return nil, c.noRoute()
	}
	var segments []string
	for s := range strings.SplitSeq(strings.TrimSuffix(path, "/"), "/") {
		text, err := url.PathUnescape(s)
		if err != nil || len(segments) == 8 {
			return nil, c.noRoute()
		}
		segments = append(segments, text)
	}
	var other bool
	for i := range operations {
		o := &operations[i]
		in := segments
		if o.prefixed && len(in) > 1 && in[0] == Warehouse && in[1] != "" {
			in = in[1:]
		}
		if !c.match(o, in) {
			continue
		}
		if o.method == c.r.Method || o.refusal != "" {
			return o, nil
		}
		other = true
	}
	if other {
		return nil, newError(http.StatusMethodNotAllowed, typeUnsupported, "%s is not a method of this resource", bounded(c.r.Method))
	}
	return nil, c.noRoute()
}

func (c *call) noRoute() error {
	return newError(http.StatusNotFound, typeNotFound, "No such resource. The catalog is at %s/v1: the client's uri ends in %s", Mount, Mount)
}

func (c *call) match(o *operation, segments []string) bool {
	if len(segments) != len(o.segments) {
		return false
	}
	for i, want := range o.segments {
		if !strings.HasPrefix(want, "{") && want != segments[i] {
			return false
		}
	}
	if i := slices.Index(o.segments, "{namespace}"); i >= 0 {
		c.namespace = strings.Split(segments[i], "\x1f")
	}
	if i := slices.Index(o.segments, "{table}"); i >= 0 {
		c.table = segments[i]
	}
	return true
}
