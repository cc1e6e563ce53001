package warehouse

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"syscall"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
)

// mappings turn the errors of the layers below into SQLSTATEs; the first that
// answers wins.
var mappings = []func(err error, sql string) *Error{mapDenied, mapEngine, mapCatalog, mapFiles}

func mapDenied(err error, sql string) *Error {
	var d *engine.DeniedError
	if !errors.As(err, &d) {
		return nil
	}
	e := errorf(codePrivilege, "permission denied: %s", d.What).hint("docs/sql.md lists what a statement may use")
	if name, ok := strings.CutPrefix(d.What, "function "); ok {
		e = errorf(codeUndefinedFunction, "function %s does not exist", name).hint("docs/sql.md lists the functions")
		return e.at(wordPosition(sql, name))
	}
	return e
}

// engineCodes is the table of the engine's kinds of error.
var engineCodes = map[engine.ErrorKind]struct{ code, hint string }{
	engine.Internal:       {codeInternal, "this is a defect of the server; its log has the details"},
	engine.Syntax:         {codeSyntax, ""},
	engine.Catalog:        {codeUndefinedObject, ""},
	engine.Binder:         {codeSyntax, ""},
	engine.Conversion:     {codeInvalidText, ""},
	engine.OutOfRange:     {codeNumericOutOfRange, "cast the operands to a wider type, for instance numeric(38,4)"},
	engine.DivisionByZero: {codeDivisionByZero, "guard the divisor with NULLIF(x, 0)"},
	engine.Constraint:     {codeNotNullViolation, ""},
	engine.Unsupported:    {codeFeatureNotSupported, "docs/sql.md says what is supported"},
	engine.InvalidInput:   {codeInvalidParameter, ""},
	engine.OutOfMemory:    {codeOutOfMemory, "narrow the query by its partition column, or raise the engine's memory limit"},
	engine.Interrupted:    {codeQueryCanceled, ""},
	engine.IO:             {codeIO, "a data file could not be read; the server's log names it"},
	engine.Busy:           {codeConnectionLimit, "wait for other statements to end, or close their results"},
}

// refinements read what DuckDB's binder says, because its kinds are coarser
// than SQLSTATEs. The first group of a pattern names the word to blame.
var refinements = []struct {
	pattern *regexp.Regexp
	code    string
	message string // "" keeps DuckDB's first line; %s is the first group
}{
	{regexp.MustCompile(`^Table with name "?([^"\s!]+)"?.* does not exist`), codeUndefinedTable, `relation "%s" does not exist`},
	{regexp.MustCompile(`^relation "([^"]+)" does not exist`), codeUndefinedTable, ""},
	{regexp.MustCompile(`^Referenced table "([^"]+)" not found`), codeUndefinedTable, `missing FROM-clause entry for table "%s"`},
	{regexp.MustCompile(`^Referenced column "([^"]+)" (?:not found|was not found)`), codeUndefinedColumn, `column "%s" does not exist`},
	{regexp.MustCompile(`^Table "[^"]+" does not have a column named "([^"]+)"`), codeUndefinedColumn, `column "%s" does not exist`},
	{regexp.MustCompile(`^(?:Scalar |Aggregate |Table )?Function with name "?([^"\s]+)"? does not exist`), codeUndefinedFunction, `function %s does not exist`},
	{regexp.MustCompile(`^No function matches the given name and argument types '([^(']+)[^']*'`), codeUndefinedFunction, ""},
	{regexp.MustCompile(`^Ambiguous reference to column name "([^"]+)"`), codeAmbiguousColumn, `column reference "%s" is ambiguous`},
	{regexp.MustCompile(`^column "([^"]+)" must appear in the GROUP BY`), codeGrouping, `column "%s" must appear in the GROUP BY clause or be used in an aggregate function`},
	{regexp.MustCompile(`aggregate|GROUP BY|WINDOW|window function`), codeGrouping, ""},
	{regexp.MustCompile(`^Duplicate alias "([^"]+)"`), "42712", `table name "%s" specified more than once`},
	{regexp.MustCompile(`^Cannot (?:compare|mix|combine) values of type`), codeUndefinedFunction, ""},
	{regexp.MustCompile(`(?i)subquer(?:y|ies).*(?:more than one row|returned by a subquery)`), "21000", "more than one row returned by a subquery used as an expression"},
	{regexp.MustCompile(`ORDER term out of range`), codeInvalidColumnReference, ""},
	{regexp.MustCompile(`(?i)time ?zone`), codeInvalidParameter, ""},
	{regexp.MustCompile(`^(?:invalid (?:date|timestamp|time)|date field value out of range|timestamp field value)`), codeInvalidDatetime, ""},
	{regexp.MustCompile(`(?i)(?:overflow|out of range)`), codeNumericOutOfRange, ""},
}

// conversionRE is DuckDB's word for a text that is no value of a type.
var conversionRE = regexp.MustCompile(`^Could not convert string ['"](.*)['"] to ([A-Z0-9]+(?:\([0-9,]+\))?)`)

var conversionTypes = map[string]string{"INT8": "smallint", "INT16": "smallint", "INT32": "integer", "INT64": "bigint", "INT128": "numeric", "FLOAT": "real",
	"DOUBLE": "double precision", "BOOL": "boolean", "DATE": "date", "UUID": "uuid"}

// castRE is its word for a number that another type does not hold.
var castRE = regexp.MustCompile(`^Type \S+ with value (\S+) can't be cast (?:to the destination type|because the value is out of range for the destination type) (\S+)`)

// typeName is SQL's name of one of DuckDB's physical types.
func typeName(t string) string {
	if name, ok := conversionTypes[t]; ok {
		return name
	}
	return strings.ToLower(strings.Replace(t, "DECIMAL", "numeric", 1))
}

func mapEngine(err error, sql string) *Error {
	var ee *engine.Error
	if !errors.As(err, &ee) {
		switch {
		case errors.Is(err, engine.ErrClosed):
			return errorf(codeAdminShutdown, "the server is shutting down")
		case errors.Is(err, engine.ErrTailMoved):
			return errorf(codeSerializationFailure, "the tables moved while the query was planned").hint("run the statement again")
		}
		return nil
	}
	c, ok := engineCodes[ee.Kind]
	if !ok {
		c.code = codeInternal
	}
	message, _, _ := strings.Cut(ee.Message, "\n")
	e := errorf(c.code, "%s", message)
	e.Hint = c.hint
	switch ee.Kind {
	case engine.OutOfRange:
		if i := strings.Index(message, ". You might want"); i > 0 {
			e.Message = "numeric value out of range: " + message[:i]
		}
		if m := castRE.FindStringSubmatch(message); m != nil {
			e.Message = fmt.Sprintf("value %q is out of range for type %s", m[1], typeName(m[2]))
		}
	case engine.Syntax:
		e.Message = strings.TrimSuffix(message, " ")
	case engine.Catalog, engine.Binder, engine.Conversion, engine.InvalidInput:
		if m := conversionRE.FindStringSubmatch(message); m != nil {
			e.Message = fmt.Sprintf("invalid input syntax for type %s: %q", typeName(m[2]), m[1])
			return e
		}
		if m := castRE.FindStringSubmatch(message); m != nil {
			e.Code, e.Message = codeNumericOutOfRange, fmt.Sprintf("value %q is out of range for type %s", m[1], typeName(m[2]))
			return e
		}
		for _, r := range refinements {
			m := r.pattern.FindStringSubmatch(message)
			if m == nil {
				continue
			}
			e.Code = r.code
			word := ""
			if len(m) > 1 {
				word = m[1]
			}
			if r.message != "" {
				e.Message = r.message
				if strings.Contains(r.message, "%s") {
					e.Message = fmt.Sprintf(r.message, word)
				}
			}
			if word != "" {
				e.Position = wordPosition(sql, word)
			}
			break
		}
	}
	return e
}

func mapCatalog(err error, _ string) *Error {
	switch {
	case errors.Is(err, catalog.ErrConflict):
		return errorf(codeSerializationFailure, "could not serialize access due to a concurrent change").detail("%s", err.Error()).hint("run the transaction again")
	case errors.Is(err, catalog.ErrFenced), errors.Is(err, catalog.ErrReadOnly):
		return errorf(codeReadOnlyTransaction, "%s", err.Error()).hint("another process owns this data directory; connect to it")
	case errors.Is(err, catalog.ErrNotFound):
		return errorf(codeUndefinedTable, "%s", err.Error())
	case errors.Is(err, catalog.ErrExists):
		return errorf(codeDuplicateTable, "%s", err.Error())
	case errors.Is(err, catalog.ErrInvalid):
		return errorf(codeInvalidParameter, "%s", err.Error())
	case errors.Is(err, catalog.ErrUnsupported):
		return errorf(codeFeatureNotSupported, "%s", err.Error())
	case errors.Is(err, catalog.ErrExpired):
		return errorf("72000", "%s", err.Error()).hint("the snapshot has expired; query the current state or a tag")
	case errors.Is(err, catalog.ErrClosed):
		return errorf(codeAdminShutdown, "the server is shutting down")
	}
	return nil
}

func mapFiles(err error, _ string) *Error {
	if errors.Is(err, syscall.ENOSPC) {
		return errorf(codeDiskFull, "the disk is full").hint("free space in the data directory; nothing of the statement was kept")
	}
	return nil
}

// wordPosition finds a name among the statement's tokens, if it stands there
// once or more: the first place.
func wordPosition(sql, word string) int {
	if i := strings.LastIndexByte(word, '.'); i >= 0 {
		word = word[i+1:]
	}
	tokens, err := tokenize(sql)
	if err != nil {
		return 0
	}
	for _, t := range tokens {
		if t.name() && strings.EqualFold(t.value, word) {
			return position(sql, t.start)
		}
	}
	return 0
}
