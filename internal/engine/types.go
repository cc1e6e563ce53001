package engine

import (
	"fmt"
	"math/big"

	bindings "github.com/duckdb/duckdb-go-bindings"

	"github.com/tapehouse/tapehouse/internal/record"
)

// TypeKind is a column's or parameter's type, as far as callers tell types
// apart.
type TypeKind uint8

// The kinds of Type, with the Go type of their values.
const (
	Unknown         TypeKind = iota // a parameter whose type the statement leaves open
	Null                            // nil only
	Boolean                         // bool
	SmallInt                        // int16; also DuckDB's TINYINT and UTINYINT
	Integer                         // int32; also USMALLINT
	BigInt                          // int64; also UINTEGER
	Numeric                         // Decimal; DECIMAL, and HUGEINT, UHUGEINT and UBIGINT with scale 0
	Real                            // float32
	Double                          // float64
	Varchar                         // string; also ENUM, JSON and UUID
	Blob                            // []byte
	DateType                        // Date
	TimeType                        // Time
	TimestampType                   // Timestamp; TIMESTAMP_S, _MS and _NS are floored to µs
	TimestampTZType                 // TimestampTZ
	IntervalType                    // Interval
	Nested                          // string: lists, structs and maps, rendered as JSON
)

// Type is a column's or parameter's type. Precision and Scale are set for
// Numeric.
type Type struct {
	Kind      TypeKind
	Precision int
	Scale     int
}

// Column is one column of a result.
type Column struct {
	Name string
	Type Type
}

var typeSQL = map[TypeKind]string{Null: "INTEGER", Boolean: "BOOLEAN", SmallInt: "SMALLINT", Integer: "INTEGER", BigInt: "BIGINT", Real: "FLOAT", Double: "DOUBLE",
	Varchar: "VARCHAR", Blob: "BLOB", DateType: "DATE", TimeType: "TIME", TimestampType: "TIMESTAMP", TimestampTZType: "TIMESTAMP WITH TIME ZONE", IntervalType: "INTERVAL", Nested: "VARCHAR"}

// SQL is DuckDB's spelling of t; "" for Unknown.
func (t Type) SQL() string {
	if t.Kind == Numeric {
		p := t.Precision
		if p == 0 {
			p = 38
		}
		return fmt.Sprintf("DECIMAL(%d,%d)", p, t.Scale)
	}
	return typeSQL[t.Kind]
}

// String is SQL, for messages.
func (t Type) String() string {
	if t.Kind == Unknown {
		return "unknown"
	}
	return t.SQL()
}

// TypeOf is the engine's type of a stream column's type.
func TypeOf(t record.Type) Type {
	switch t.Kind {
	case record.Boolean:
		return Type{Kind: Boolean}
	case record.Int:
		return Type{Kind: Integer}
	case record.Long:
		return Type{Kind: BigInt}
	case record.Decimal:
		return Type{Numeric, t.Precision, t.Scale}
	case record.Double:
		return Type{Kind: Double}
	case record.String:
		return Type{Kind: Varchar}
	case record.Date:
		return Type{Kind: DateType}
	case record.TimestampTZ:
		return Type{Kind: TimestampTZType}
	}
	return Type{}
}

// typeOf maps a DuckDB type, which stays the caller's to destroy.
func typeOf(lt bindings.LogicalType) Type {
	switch bindings.GetTypeId(lt) {
	case bindings.TypeSQLNull:
		return Type{Kind: Null}
	case bindings.TypeBoolean:
		return Type{Kind: Boolean}
	case bindings.TypeTinyInt, bindings.TypeUTinyInt, bindings.TypeSmallInt:
		return Type{Kind: SmallInt}
	case bindings.TypeUSmallInt, bindings.TypeInteger, bindings.TypeIntegerLiteral:
		return Type{Kind: Integer}
	case bindings.TypeUInteger, bindings.TypeBigInt:
		return Type{Kind: BigInt}
	case bindings.TypeUBigInt:
		return Type{Numeric, 20, 0}
	case bindings.TypeHugeInt, bindings.TypeUHugeInt:
		return Type{Numeric, 38, 0}
	case bindings.TypeDecimal:
		return Type{Numeric, int(bindings.DecimalWidth(lt)), int(bindings.DecimalScale(lt))}
	case bindings.TypeFloat:
		return Type{Kind: Real}
	case bindings.TypeDouble:
		return Type{Kind: Double}
	case bindings.TypeVarchar, bindings.TypeStringLiteral, bindings.TypeEnum, bindings.TypeUUID:
		return Type{Kind: Varchar}
	case bindings.TypeBlob:
		return Type{Kind: Blob}
	case bindings.TypeDate:
		return Type{Kind: DateType}
	case bindings.TypeTime:
		return Type{Kind: TimeType}
	case bindings.TypeTimestamp, bindings.TypeTimestampS, bindings.TypeTimestampMS, bindings.TypeTimestampNS:
		return Type{Kind: TimestampType}
	case bindings.TypeTimestampTZ:
		return Type{Kind: TimestampTZType}
	case bindings.TypeInterval:
		return Type{Kind: IntervalType}
	case bindings.TypeList, bindings.TypeArray, bindings.TypeStruct, bindings.TypeMap:
		return Type{Kind: Nested}
	}
	return Type{}
}

// valueType is the type that a parameter's value shows, Unknown for nil and
// for text, which may stand for any type.
func valueType(v any) Type {
	switch v := v.(type) {
	case bool:
		return Type{Kind: Boolean}
	case int16:
		return Type{Kind: SmallInt}
	case int32:
		return Type{Kind: Integer}
	case int64:
		return Type{Kind: BigInt}
	case float32:
		return Type{Kind: Real}
	case float64:
		return Type{Kind: Double}
	case Decimal:
		scale := max(int(v.Scale), 0)
		digits := len(new(big.Int).Abs(v.Unscaled).String())
		return Type{Numeric, min(max(digits, scale), 38), min(scale, 38)}
	case Date:
		return Type{Kind: DateType}
	case Time:
		return Type{Kind: TimeType}
	case Timestamp:
		return Type{Kind: TimestampType}
	case TimestampTZ:
		return Type{Kind: TimestampTZType}
	case Interval:
		return Type{Kind: IntervalType}
	}
	return Type{}
}
