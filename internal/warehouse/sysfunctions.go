package warehouse

import (
	"fmt"
	"sort"
	"strings"
)

// systemFunction rewrites a function of pg_catalog. Its arguments are
// rewritten already.
type systemFunction func(r *rewriter, n node, args []operand) (node, sqlType, error)

// A template is a DuckDB expression over $1, $2…, which stands for a call.
// uses names the system relations that it reads.
type template struct {
	sql   string
	typ   sqlType
	least int // fewest arguments
	uses  []string
}

func (t template) expand(r *rewriter, n node, args []operand) (node, sqlType, error) {
	if len(args) < t.least {
		return nil, t.typ, wrongArguments(r, n, "see the PostgreSQL manual, System Information Functions")
	}
	root, err := r.env.parse(r.ctx, "SELECT "+t.sql)
	if err != nil {
		return nil, t.typ, err
	}
	statements := list(root, "statements")
	if len(statements) != 1 {
		return nil, t.typ, errorf(codeInternal, "template of %s does not parse", str(n, "function_name"))
	}
	st, _ := statements[0].(node)
	items := list(child(st, "node"), "select_list")
	body, _ := items[0].(node)
	for _, name := range t.uses {
		rel, err := r.env.lookup(r.ctx, "pg_catalog", name)
		if err != nil || rel == nil {
			return nil, t.typ, errorf(codeInternal, "no relation pg_catalog.%s", name).because(err)
		}
		r.system[systemName(rel)] = rel
	}
	forget(body)
	x, _ := substitute(body, args).(node)
	return x, t.typ, nil
}

// systemName is the name of the CTE that stands for a system relation. No
// statement can name it, because of the $, without quotes.
func systemName(rel *relation) string { return rel.schema + "$" + rel.name }

// forget drops the locations of a template's text, which is not the client's.
func forget(v any) {
	switch v := v.(type) {
	case node:
		delete(v, "query_location")
		for _, c := range v {
			forget(c)
		}
	case []any:
		for _, c := range v {
			forget(c)
		}
	}
}

func substitute(v any, args []operand) any {
	switch v := v.(type) {
	case node:
		if class(v) == "PARAMETER" {
			i := atoi(str(v, "identifier"))
			if i >= 1 && i <= len(args) {
				return clone(bare(args[i-1].n))
			}
			return nullConstant()
		}
		for k, c := range v {
			v[k] = substitute(c, args)
		}
	case []any:
		for i := range v {
			v[i] = substitute(v[i], args)
		}
	}
	return v
}

var textType = sqlType{kind: kindText}

func fixed(n func(r *rewriter) node, t sqlType) systemFunction {
	return func(r *rewriter, _ node, _ []operand) (node, sqlType, error) { return n(r), t, nil }
}

func fixedText(text string) systemFunction {
	return fixed(func(*rewriter) node { return stringConstant(text) }, textType)
}

func fixedNull(t sqlType) systemFunction {
	return fixed(func(*rewriter) node { return castTo(nullConstant(), t) }, t)
}

func fixedBool(b bool) systemFunction {
	return fixed(func(*rewriter) node { return boolConstant(b) }, sqlType{kind: kindBool})
}

var systemFunctions map[string]systemFunction

func init() {
	big := sqlType{kind: kindBigint}
	systemFunctions = map[string]systemFunction{
		"version":             fixed(func(r *rewriter) node { return stringConstant(r.env.version) }, textType),
		"current_database":    fixed(func(r *rewriter) node { return stringConstant(r.env.database) }, textType),
		"current_catalog":     fixed(func(r *rewriter) node { return stringConstant(r.env.database) }, textType),
		"current_schema":      fixed((*rewriter).currentSchema, textType),
		"current_user":        fixed(func(r *rewriter) node { return stringConstant(r.env.user) }, textType),
		"session_user":        fixed(func(r *rewriter) node { return stringConstant(r.env.user) }, textType),
		"user":                fixed(func(r *rewriter) node { return stringConstant(r.env.user) }, textType),
		"current_schemas":     currentSchemas,
		"current_setting":     currentSetting,
		"pg_table_is_visible": tableIsVisible,
		"pg_get_userbyid":     template{sql: `CASE WHEN $1 = 10 THEN '` + ownerName + `' ELSE 'unknown (OID=' || CAST($1 AS VARCHAR) || ')' END`, typ: textType, least: 1}.expand,
		"format_type":         formatType,
		"to_regclass":         func(r *rewriter, _ node, args []operand) (node, sqlType, error) { return regclassOf(r, args, true) },
		"pg_get_expr":         template{sql: `CAST($1 AS VARCHAR)`, typ: textType, least: 1}.expand,
		"pg_get_viewdef":      template{sql: `(SELECT max(d.definition) FROM "pg_catalog$pg_view_definition" d WHERE d.oid = $1)`, typ: textType, least: 1, uses: []string{"pg_view_definition"}}.expand,
		"pg_table_size":       sizeOf, "pg_relation_size": sizeOf, "pg_total_relation_size": sizeOf,
		"pg_database_size":    template{sql: `(SELECT CAST(coalesce(sum(z.size_bytes), 0) AS BIGINT) FROM "pg_catalog$pg_relation_size" z)`, typ: big, uses: []string{"pg_relation_size"}}.expand,
		"pg_encoding_to_char": fixedText("UTF8"), "pg_client_encoding": fixedText("UTF8"),
		"obj_description": fixedNull(textType), "col_description": fixedNull(textType), "shobj_description": fixedNull(textType),
		"pg_get_constraintdef": fixedNull(textType), "pg_get_indexdef": fixedNull(textType), "pg_get_partkeydef": fixedNull(textType),
		"pg_get_serial_sequence": fixedNull(textType), "pg_get_ruledef": fixedNull(textType), "pg_get_triggerdef": fixedNull(textType),
		"pg_get_function_result": fixedNull(textType), "pg_get_function_arguments": fixedNull(textType), "pg_get_functiondef": fixedNull(textType),
		"pg_get_function_identity_arguments": fixedNull(textType), "pg_tablespace_location": fixedText(""), "inet_server_addr": fixedNull(textType),
		"inet_client_addr": fixedNull(textType), "pg_get_statisticsobjdef_columns": fixedNull(textType), "pg_get_replica_identity_index": fixedNull(big),
		"pg_relation_is_publishable": fixedBool(false), "pg_is_in_recovery": fixedBool(false), "pg_is_other_temp_schema": fixedBool(false),
		"pg_function_is_visible": fixedBool(true), "pg_type_is_visible": fixedBool(true), "pg_operator_is_visible": fixedBool(true),
		"pg_collation_is_visible": fixedBool(true), "pg_opclass_is_visible": fixedBool(true), "pg_relation_is_updatable": fixed(func(*rewriter) node { return intConstant(0) }, big),
		"pg_has_role": fixedBool(true), "has_table_privilege": fixedBool(true), "has_schema_privilege": fixedBool(true), "has_database_privilege": fixedBool(true),
		"has_column_privilege": fixedBool(true), "has_any_column_privilege": fixedBool(true), "has_function_privilege": fixedBool(true),
		"has_type_privilege": fixedBool(true), "has_tablespace_privilege": fixedBool(true), "has_sequence_privilege": fixedBool(false),
		"txid_current":      fixed(func(*rewriter) node { return intConstant(1) }, big),
		"pg_backend_pid":    fixed(func(r *rewriter) node { return castTo(intConstant(int64(r.env.pid)), sqlType{kind: kindInt}) }, sqlType{kind: kindInt}),
		"pg_my_temp_schema": fixed(func(*rewriter) node { return intConstant(0) }, big),
		"pg_postmaster_start_time": func(r *rewriter, _ node, _ []operand) (node, sqlType, error) {
			return castTo(stringConstant(r.env.started+"+00"), sqlType{kind: kindTimestampTZ}), sqlType{kind: kindTimestampTZ}, nil
		},
		"quote_ident":   template{sql: `CASE WHEN regexp_full_match($1, '[a-z_][a-z0-9_$]*') THEN $1 ELSE '"' || replace($1, '"', '""') || '"' END`, typ: textType, least: 1}.expand,
		"quote_literal": template{sql: `'''' || replace($1, '''', '''''') || ''''`, typ: textType, least: 1}.expand,
		"array_upper":   template{sql: `CASE WHEN len($1) > 0 THEN CAST(len($1) AS INTEGER) END`, typ: sqlType{kind: kindInt}, least: 1}.expand,
		"array_lower":   template{sql: `CASE WHEN len($1) > 0 THEN 1 END`, typ: sqlType{kind: kindInt}, least: 1}.expand,
		"set_config": func(r *rewriter, n node, _ []operand) (node, sqlType, error) {
			return nil, textType, unsupported("set_config()", "use SET").at(r.src.position(location(n)))
		},
		"pg_get_keywords":     fixedNull(textType),
		"pg_char_to_encoding": fixed(func(*rewriter) node { return intConstant(6) }, big),
	}
}

// ownerName owns everything: managed tables belong to the installation, and
// access is by grants.
const ownerName = "tapehouse"

var sizeOf = template{sql: `(SELECT CAST(coalesce(max(z.size_bytes), 0) AS BIGINT) FROM "pg_catalog$pg_relation_size" z WHERE z.oid = $1)`,
	typ: sqlType{kind: kindBigint}, least: 1, uses: []string{"pg_relation_size"}}.expand

func currentSchemas(r *rewriter, _ node, args []operand) (node, sqlType, error) {
	names := append([]string{}, r.env.schemas...)
	if len(args) == 1 && class(args[0].n) == "CAST" {
		if text, _ := constantText(child(args[0].n, "child")); text == "t" || text == "true" {
			names = append([]string{"pg_catalog"}, names...)
		}
	}
	items := make([]node, len(names))
	for i, s := range names {
		items[i] = stringConstant(s)
	}
	t := sqlType{kind: kindList, element: &textType}
	return castTo(call("list_value", items...), t), t, nil
}

func currentSetting(r *rewriter, n node, args []operand) (node, sqlType, error) {
	name, ok := "", false
	if len(args) > 0 {
		name, ok = constantText(args[0].n)
	}
	if !ok {
		return nil, textType, unsupported("current_setting() of a name that is no constant", "use SHOW").at(r.src.position(location(n)))
	}
	value, ok := r.env.setting(name)
	if !ok {
		if len(args) > 1 {
			return castTo(nullConstant(), textType), textType, nil
		}
		return nil, textType, errorf(codeUndefinedObject, "unrecognized configuration parameter %q", name).at(r.src.position(location(n)))
	}
	return stringConstant(value), textType, nil
}

// tableIsVisible compares with the OIDs that the search path reaches, which
// are known here.
func tableIsVisible(r *rewriter, n node, args []operand) (node, sqlType, error) {
	t := sqlType{kind: kindBool}
	if len(args) != 1 {
		return nil, t, wrongArguments(r, n, "pg_table_is_visible(oid)")
	}
	visible := template{sql: `$1 IN (SELECT v.oid FROM "pg_catalog$pg_visible" v)`, typ: t, least: 1, uses: []string{"pg_visible"}}
	return visible.expand(r, n, args)
}

func formatType(r *rewriter, n node, args []operand) (node, sqlType, error) {
	if len(args) == 1 {
		args = append(args, operand{castTo(nullConstant(), sqlType{kind: kindInt}), sqlType{kind: kindInt}})
	}
	return template{sql: formatTypeSQL, typ: textType, least: 2}.expand(r, n, args)
}

var formatTypeSQL = func() string {
	var b strings.Builder
	b.WriteString("CASE $1")
	for _, t := range allTypes() {
		display := quoteLiteral(t.display)
		switch t.oid {
		case 1700:
			display = `'numeric' || CASE WHEN $2 >= 4 THEN '(' || CAST(($2 - 4) >> 16 AS VARCHAR) || ',' || CAST(($2 - 4) & 65535 AS VARCHAR) || ')' ELSE '' END`
		case 1042, 1043:
			display += ` || CASE WHEN $2 >= 4 THEN '(' || CAST($2 - 4 AS VARCHAR) || ')' ELSE '' END`
		}
		fmt.Fprintf(&b, " WHEN %d THEN %s", t.oid, display)
		if t.array != 0 {
			fmt.Fprintf(&b, " WHEN %d THEN %s", t.array, quoteLiteral(t.display+"[]"))
		}
	}
	b.WriteString(" ELSE CASE WHEN $1 IS NULL THEN NULL WHEN $1 = 0 THEN '-' ELSE '???' END END")
	return b.String()
}()

// allTypes lists every type once, by OID.
func allTypes() []pgType {
	byOID := map[uint32]pgType{}
	for _, t := range pgTypes {
		byOID[t.oid] = t
	}
	for _, t := range otherTypes {
		byOID[t.oid] = t
	}
	out := make([]pgType, 0, len(byOID))
	for _, t := range byOID {
		out = append(out, t)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].oid < out[j].oid })
	return out
}

// registered are the casts to PostgreSQL's reg types: a name becomes its OID,
// an OID is shown as its name.
var registered = map[string]func(r *rewriter, x node, t sqlType) (node, sqlType, error){
	"regclass": func(r *rewriter, x node, t sqlType) (node, sqlType, error) {
		return regclassOf(r, []operand{{x, t}}, false)
	},
	"regtype": func(r *rewriter, x node, t sqlType) (node, sqlType, error) {
		if text, ok := spelledText(x); ok && !allDigits(text) {
			name := strings.TrimPrefix(strings.ToLower(text), "pg_catalog.")
			for _, p := range allTypes() {
				if p.name == name || p.display == name {
					return intConstant(int64(p.oid)), sqlType{kind: kindBigint}, nil
				}
			}
			return nil, t, errorf(codeUndefinedObject, "type %q does not exist", text)
		}
		return formatType(r, x, []operand{{castTo(x, sqlType{kind: kindBigint}), sqlType{kind: kindBigint}}})
	},
	"regnamespace": func(r *rewriter, x node, t sqlType) (node, sqlType, error) {
		if text, ok := spelledText(x); ok && !allDigits(text) {
			return template{sql: `(SELECT max(s.oid) FROM "pg_catalog$pg_namespace" s WHERE s.nspname = $1)`, typ: sqlType{kind: kindBigint}, uses: []string{"pg_namespace"}}.
				expand(r, x, []operand{{x, t}})
		}
		return template{sql: `(SELECT max(s.nspname) FROM "pg_catalog$pg_namespace" s WHERE s.oid = $1)`, typ: textType, uses: []string{"pg_namespace"}}.
			expand(r, x, []operand{{castTo(x, sqlType{kind: kindBigint}), sqlType{kind: kindBigint}}})
	},
	"regrole": func(r *rewriter, x node, t sqlType) (node, sqlType, error) {
		return stringConstant(ownerName), textType, nil
	},
	"regproc": func(r *rewriter, x node, t sqlType) (node, sqlType, error) {
		if text, ok := spelledText(x); ok && !allDigits(text) {
			return intConstant(0), sqlType{kind: kindBigint}, nil
		}
		return castTo(x, textType), textType, nil
	},
}

// spelledText is constantText, through casts to text.
func spelledText(n node) (string, bool) {
	for class(n) == "CAST" {
		if t, _, _ := typeOfTree(child(n, "cast_type")); t.kind != kindText {
			return "", false
		}
		n = child(n, "child")
	}
	return constantText(n)
}

func allDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// regclassOf is x::regclass. A name becomes its OID (42P01 if there is none,
// NULL for to_regclass); an OID is shown as the name.
func regclassOf(r *rewriter, args []operand, null bool) (node, sqlType, error) {
	big := sqlType{kind: kindBigint}
	if len(args) != 1 {
		return nil, big, errorf(codeUndefinedFunction, "to_regclass takes one argument")
	}
	x := args[0]
	text, ok := spelledText(x.n)
	if !ok {
		show := `(SELECT max(CASE WHEN c.oid IN (SELECT v.oid FROM "pg_catalog$pg_visible" v) THEN c.relname ELSE s.nspname || '.' || c.relname END)
			FROM "pg_catalog$pg_class" c JOIN "pg_catalog$pg_namespace" s ON s.oid = c.relnamespace WHERE c.oid = $1)`
		if x.t.kind == kindText && null {
			return nil, big, unsupported("to_regclass() of a value that is no constant", "join pg_class")
		}
		return template{sql: show, typ: textType, uses: []string{"pg_class", "pg_namespace", "pg_visible"}}.
			expand(r, x.n, []operand{{castTo(x.n, big), big}})
	}
	if allDigits(text) {
		return castTo(x.n, big), big, nil
	}
	tokens, err := tokenize(text)
	if err != nil {
		return nil, big, err
	}
	schema, name := "", ""
	switch {
	case len(tokens) == 2 && tokens[0].name():
		name = tokens[0].value
	case len(tokens) == 4 && tokens[0].name() && tokens[1].punct(".") && tokens[2].name():
		schema, name = tokens[0].value, tokens[2].value
	default:
		return nil, big, errorf("42602", "invalid name syntax: %q", text)
	}
	rel, err := r.env.lookup(r.ctx, schema, name)
	if err != nil {
		return nil, big, err
	}
	if rel == nil {
		if null {
			return castTo(nullConstant(), big), big, nil
		}
		return nil, big, errorf(codeUndefinedTable, "relation %q does not exist", text)
	}
	return intConstant(relationOID(rel.schema, rel.name)), big, nil
}
