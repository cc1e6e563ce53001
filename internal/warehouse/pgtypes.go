package warehouse

import (
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/record"
)

// pgType is what the protocol and the catalog say about a type.
type pgType struct {
	oid       uint32
	size      int16  // of the value; -1: variable
	name      string // pg_type.typname
	display   string // format_type
	array     uint32 // OID of the array type
	category  string
	alignment string
}

// pgTypes are the types of results. A list or struct is rendered as text.
var pgTypes = map[kind]pgType{
	kindBool:        {16, 1, "bool", "boolean", 1000, "B", "c"},
	kindBytes:       {17, -1, "bytea", "bytea", 1001, "U", "i"},
	kindBigint:      {20, 8, "int8", "bigint", 1016, "N", "d"},
	kindSmallint:    {21, 2, "int2", "smallint", 1005, "N", "s"},
	kindInt:         {23, 4, "int4", "integer", 1007, "N", "i"},
	kindText:        {25, -1, "text", "text", 1009, "S", "i"},
	kindJSON:        {25, -1, "text", "text", 1009, "S", "i"},
	kindLiteral:     {25, -1, "text", "text", 1009, "S", "i"},
	kindNull:        {25, -1, "text", "text", 1009, "S", "i"},
	kindList:        {25, -1, "text", "text", 1009, "S", "i"},
	kindStruct:      {25, -1, "text", "text", 1009, "S", "i"},
	kindReal:        {700, 4, "float4", "real", 1021, "N", "i"},
	kindDouble:      {701, 8, "float8", "double precision", 1022, "N", "d"},
	kindDate:        {1082, 4, "date", "date", 1182, "D", "i"},
	kindTime:        {1083, 8, "time", "time without time zone", 1183, "D", "d"},
	kindTimestamp:   {1114, 8, "timestamp", "timestamp without time zone", 1115, "D", "d"},
	kindTimestampTZ: {1184, 8, "timestamptz", "timestamp with time zone", 1185, "D", "d"},
	kindInterval:    {1186, 16, "interval", "interval", 1187, "T", "d"},
	kindDecimal:     {1700, -1, "numeric", "numeric", 1231, "N", "i"},
	kindHugeint:     {1700, -1, "numeric", "numeric", 1231, "N", "i"},
	kindTinyint:     {21, 2, "int2", "smallint", 1005, "N", "s"},
	kindUUID:        {2950, 16, "uuid", "uuid", 2951, "U", "c"},
}

// otherTypes stand in pg_type because drivers look them up by name or OID.
var otherTypes = []pgType{
	{18, 1, "char", "\"char\"", 1002, "Z", "c"}, {19, 64, "name", "name", 1003, "S", "c"}, {26, 4, "oid", "oid", 1028, "N", "i"},
	{24, 4, "regproc", "regproc", 1008, "N", "i"}, {114, -1, "json", "json", 199, "U", "i"}, {1042, -1, "bpchar", "character", 1014, "S", "i"},
	{1043, -1, "varchar", "character varying", 1015, "S", "i"}, {2205, 4, "regclass", "regclass", 2210, "N", "i"}, {2206, 4, "regtype", "regtype", 2211, "N", "i"},
	{2950, 16, "uuid", "uuid", 2951, "U", "c"}, {705, -2, "unknown", "unknown", 0, "X", "c"},
}

// oidKinds maps the OIDs that a client may declare for a parameter.
var oidKinds = map[uint32]kind{16: kindBool, 17: kindBytes, 20: kindBigint, 21: kindSmallint, 23: kindInt, 26: kindBigint, 25: kindText, 1043: kindText, 1042: kindText,
	19: kindText, 18: kindText, 700: kindReal, 701: kindDouble, 1082: kindDate, 1083: kindTime, 1114: kindTimestamp, 1184: kindTimestampTZ, 1186: kindInterval,
	1700: kindDecimal, 2950: kindUUID, 114: kindText, 3802: kindText}

// typmod is the type modifier: precision and scale of a numeric.
func typmod(t sqlType) int32 {
	switch t.kind {
	case kindDecimal:
		return int32(t.precision<<16|t.scale) + 4
	case kindHugeint:
		return int32(decimalDigitsMax<<16) + 4
	}
	return -1
}

var engineKinds = map[engine.TypeKind]kind{engine.Null: kindNull, engine.Boolean: kindBool, engine.SmallInt: kindSmallint, engine.Integer: kindInt,
	engine.BigInt: kindBigint, engine.Real: kindReal, engine.Double: kindDouble, engine.Varchar: kindText, engine.Blob: kindBytes, engine.DateType: kindDate,
	engine.TimeType: kindTime, engine.TimestampType: kindTimestamp, engine.TimestampTZType: kindTimestampTZ, engine.IntervalType: kindInterval, engine.Nested: kindText}

// fromEngine is the type of a column or parameter of the engine. A HUGEINT
// comes as a numeric of 38 digits, which is exact for every value it holds.
func fromEngine(t engine.Type) sqlType {
	if t.Kind == engine.Numeric {
		return decimal(max(t.Precision, 1), t.Scale)
	}
	return sqlType{kind: engineKinds[t.Kind]}
}

// fromRecord is the type of a managed table's column.
func fromRecord(t record.Type) sqlType {
	switch t.Kind {
	case record.Boolean:
		return sqlType{kind: kindBool}
	case record.Int:
		return sqlType{kind: kindInt}
	case record.Long:
		return sqlType{kind: kindBigint}
	case record.Decimal:
		return decimal(t.Precision, t.Scale)
	case record.Double:
		return sqlType{kind: kindDouble}
	case record.String:
		return sqlType{kind: kindText}
	case record.Date:
		return sqlType{kind: kindDate}
	case record.TimestampTZ:
		return sqlType{kind: kindTimestampTZ}
	}
	return sqlType{}
}

// loadZone reads a time zone by its IANA name, or UTC by any of its names.
func loadZone(name string) (*time.Location, error) {
	switch strings.ToUpper(name) {
	case "UTC", "GMT", "Z", "ZULU", "UCT", "ETC/UTC", "DEFAULT":
		return time.UTC, nil
	case "LOCAL", "":
		return nil, errorf(codeInvalidParameter, "time zone %q not recognized", name)
	}
	return time.LoadLocation(name)
}
