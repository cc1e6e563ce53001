package warehouse

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// kind is a type as this package's inference sees it.
type kind uint8

const (
	kindUnknown kind = iota
	kindNull         // NULL, or a parameter whose type nothing told yet
	kindLiteral      // a string literal, which takes the type of its context
	kindBool
	kindTinyint
	kindSmallint
	kindInt
	kindBigint
	kindHugeint
	kindDecimal
	kindReal
	kindDouble
	kindText
	kindBytes
	kindDate
	kindTime
	kindTimestamp
	kindTimestampTZ
	kindInterval
	kindUUID
	kindJSON
	kindList
	kindStruct
)

// sqlType is a column's or an expression's type. precision and scale are set
// for decimals, element for lists.
type sqlType struct {
	kind             kind
	precision, scale int
	element          *sqlType
}

const decimalDigitsMax = 38

func decimal(p, s int) sqlType { return sqlType{kind: kindDecimal, precision: p, scale: s} }

func (t sqlType) integer() bool { return t.kind >= kindTinyint && t.kind <= kindHugeint }
func (t sqlType) exact() bool   { return t.integer() || t.kind == kindDecimal }
func (t sqlType) float() bool   { return t.kind == kindReal || t.kind == kindDouble }
func (t sqlType) numeric() bool { return t.exact() || t.float() }
func (t sqlType) known() bool   { return t.kind > kindLiteral }
func (t sqlType) equal(u sqlType) bool {
	if t.kind != u.kind || t.precision != u.precision || t.scale != u.scale || (t.element == nil) != (u.element == nil) {
		return false
	}
	return t.element == nil || t.element.equal(*u.element)
}

// asDecimal is the decimal type that holds every value of an exact type.
func (t sqlType) asDecimal() sqlType {
	switch t.kind {
	case kindTinyint:
		return decimal(3, 0)
	case kindSmallint:
		return decimal(5, 0)
	case kindInt:
		return decimal(10, 0)
	case kindBigint:
		return decimal(19, 0)
	case kindHugeint:
		return decimal(38, 0)
	}
	return t
}

// duckdbNames are DuckDB's spellings, in the tree and in SQL alike.
var duckdbNames = map[kind]string{
	kindBool: "BOOLEAN", kindTinyint: "TINYINT", kindSmallint: "SMALLINT", kindInt: "INTEGER", kindBigint: "BIGINT", kindHugeint: "HUGEINT",
	kindReal: "FLOAT", kindDouble: "DOUBLE", kindText: "VARCHAR", kindBytes: "BLOB", kindDate: "DATE", kindTime: "TIME",
	kindTimestamp: "TIMESTAMP", kindTimestampTZ: "TIMESTAMP WITH TIME ZONE", kindInterval: "INTERVAL", kindUUID: "UUID",
	kindLiteral: "VARCHAR", kindNull: "VARCHAR", kindUnknown: "VARCHAR", kindJSON: "VARCHAR",
}

// String is DuckDB's SQL spelling.
func (t sqlType) String() string {
	switch t.kind {
	case kindDecimal:
		return fmt.Sprintf("DECIMAL(%d,%d)", t.precision, t.scale)
	case kindList:
		return t.element.String() + "[]"
	}
	if s, ok := duckdbNames[t.kind]; ok {
		return s
	}
	return "VARCHAR"
}

// tree is the type as it stands in a syntax tree.
func (t sqlType) tree() node {
	switch t.kind {
	case kindDecimal:
		return node{"id": "DECIMAL", "type_info": node{"type": "DECIMAL_TYPE_INFO", "alias": "", "extension_info": nil,
			"width": json.Number(strconv.Itoa(t.precision)), "scale": json.Number(strconv.Itoa(t.scale))}}
	case kindList:
		return node{"id": "LIST", "type_info": node{"type": "LIST_TYPE_INFO", "alias": "", "extension_info": nil, "child_type": t.element.tree()}}
	}
	return node{"id": duckdbNames[t.kind], "type_info": nil}
}

// treeKinds maps a tree's type ids, and the names that PostgreSQL knows and
// DuckDB leaves unbound.
var treeKinds = map[string]kind{
	"BOOLEAN": kindBool, "TINYINT": kindTinyint, "SMALLINT": kindSmallint, "INTEGER": kindInt, "BIGINT": kindBigint, "HUGEINT": kindHugeint,
	"UTINYINT": kindSmallint, "USMALLINT": kindInt, "UINTEGER": kindBigint, "UBIGINT": kindHugeint,
	"FLOAT": kindReal, "DOUBLE": kindDouble, "VARCHAR": kindText, "CHAR": kindText, "BLOB": kindBytes, "DATE": kindDate, "TIME": kindTime,
	"TIMESTAMP": kindTimestamp, "TIMESTAMP_S": kindTimestamp, "TIMESTAMP_MS": kindTimestamp, "TIMESTAMP_NS": kindTimestamp,
	"TIMESTAMP WITH TIME ZONE": kindTimestampTZ, "TIMESTAMPTZ": kindTimestampTZ, "INTERVAL": kindInterval, "UUID": kindUUID, "NULL": kindNull, "SQLNULL": kindNull,
	"STRING_LITERAL": kindLiteral, "INTEGER_LITERAL": kindInt, "STRUCT": kindStruct,
}

var unboundKinds = map[string]kind{
	"name": kindText, "bpchar": kindText, "text": kindText, "varchar": kindText, "char": kindText, "nchar": kindText, "nvarchar": kindText, "string": kindText,
	"character varying": kindText, "character": kindText, "super": kindJSON, "json": kindJSON, "jsonb": kindJSON,
	"oid": kindBigint, "xid": kindBigint, "cid": kindBigint, "regproc": kindText, "regtype": kindText, "regclass": kindText, "regnamespace": kindText,
	"regrole": kindText, "regprocedure": kindText, "regoper": kindText, "regoperator": kindText, "regconfig": kindText,
	"int2": kindSmallint, "smallint": kindSmallint, "int4": kindInt, "int": kindInt, "integer": kindInt, "int8": kindBigint, "bigint": kindBigint,
	"float4": kindReal, "real": kindReal, "float8": kindDouble, "double precision": kindDouble, "double": kindDouble, "float": kindDouble,
	"bool": kindBool, "boolean": kindBool, "bytea": kindBytes, "varbyte": kindBytes, "varbinary": kindBytes, "blob": kindBytes,
	"date": kindDate, "time": kindTime, "timestamp": kindTimestamp, "timestamptz": kindTimestampTZ, "timestamp with time zone": kindTimestampTZ,
	"interval": kindInterval, "uuid": kindUUID, "inet": kindText, "cidr": kindText, "xml": kindText, "hugeint": kindHugeint, "tinyint": kindTinyint,
	"pg_node_tree": kindText, "aclitem": kindText, "cstring": kindText, "unknown": kindText, "anyarray": kindText, "timestamp without time zone": kindTimestamp,
}

// typeOfTree reads a type of the tree. name is PostgreSQL's type name in lower
// case where the tree has only a name, such as regclass.
func typeOfTree(n node) (t sqlType, name string, ok bool) {
	id := str(n, "id")
	info := child(n, "type_info")
	switch id {
	case "DECIMAL":
		return decimal(number(info, "width", 18), number(info, "scale", 3)), "numeric", true
	case "LIST", "ARRAY":
		e, name, ok := typeOfTree(child(info, "child_type"))
		return sqlType{kind: kindList, element: &e}, name, ok
	case "UNBOUND", "USER":
		name = strings.ToLower(str(info, "name"))
		if e, found := strings.CutSuffix(name, "[]"); found {
			k, ok := unboundKinds[e]
			return sqlType{kind: kindList, element: &sqlType{kind: k}}, e, ok
		}
		if name == "numeric" || name == "decimal" || name == "dec" {
			p, s := 18, 0
			mods := list(info, "user_type_modifiers")
			if len(mods) > 0 {
				p = modifier(mods[0], 18)
			}
			if len(mods) > 1 {
				s = modifier(mods[1], 0)
			}
			return decimal(p, s), name, true
		}
		k, ok := unboundKinds[name]
		return sqlType{kind: k}, name, ok
	}
	k, ok := treeKinds[id]
	return sqlType{kind: k}, strings.ToLower(id), ok
}

func modifier(v any, otherwise int) int {
	n, _ := v.(node)
	if i, ok := constantInt(n); ok {
		return i
	}
	return number(child(n, "value"), "value", otherwise)
}

func number(n node, key string, otherwise int) int {
	if v, ok := n[key].(json.Number); ok {
		if i, err := strconv.Atoi(v.String()); err == nil {
			return i
		}
	}
	return otherwise
}

// constantType is the type of a literal.
func constantType(n node) sqlType {
	v := child(n, "value")
	if flag(v, "is_null") {
		return sqlType{kind: kindNull}
	}
	t, _, _ := typeOfTree(child(v, "type"))
	if t.kind == kindText {
		return sqlType{kind: kindLiteral}
	}
	return t
}

// common is the type that PostgreSQL gives to CASE, COALESCE, UNION and the
// like over the two. ok is false if the types do not mix. wide tells that the
// exact decimal needs more than 38 digits: digits before the point are then
// given up, with an overflow error where they are needed, and never those
// behind it.
func common(a, b sqlType) (t sqlType, wide, ok bool) {
	switch {
	case a.kind == kindUnknown || b.kind == kindUnknown:
		return sqlType{}, false, false
	case a.kind == kindNull || a.kind == kindLiteral && b.kind != kindNull:
		return b, false, true
	case b.kind == kindNull || b.kind == kindLiteral:
		return a, false, true
	case a.equal(b):
		return a, false, true
	case a.kind == kindList && b.kind == kindList:
		e, wide, ok := common(*a.element, *b.element)
		return sqlType{kind: kindList, element: &e}, wide, ok
	case a.integer() && b.integer():
		return sqlType{kind: max(a.kind, b.kind)}, false, true
	case a.exact() && b.exact():
		a, b = a.asDecimal(), b.asDecimal()
		s := max(a.scale, b.scale)
		p := max(a.precision-a.scale, b.precision-b.scale) + s
		return decimal(min(p, decimalDigitsMax), s), p > decimalDigitsMax, true
	case a.numeric() && b.numeric():
		if a.kind == kindReal && b.kind == kindReal {
			return a, false, true
		}
		return sqlType{kind: kindDouble}, false, true
	case a.temporal() && b.temporal():
		return sqlType{kind: max(a.kind, b.kind)}, false, true
	case (a.kind == kindText || a.kind == kindJSON) && (b.kind == kindText || b.kind == kindJSON):
		return sqlType{kind: kindText}, false, true
	}
	return sqlType{}, false, false
}

// temporal reports the types on one time line: date, timestamp, timestamptz.
func (t sqlType) temporal() bool {
	return t.kind == kindDate || t.kind == kindTimestamp || t.kind == kindTimestampTZ
}
