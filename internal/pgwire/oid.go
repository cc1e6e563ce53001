package pgwire

// The object identifiers of PostgreSQL's built-in types (pg_type.dat).
const (
	OIDBool        uint32 = 16
	OIDBytea       uint32 = 17
	OIDChar        uint32 = 18 // "char", one byte
	OIDName        uint32 = 19
	OIDInt8        uint32 = 20
	OIDInt2        uint32 = 21
	OIDInt2Vector  uint32 = 22
	OIDInt4        uint32 = 23
	OIDRegproc     uint32 = 24
	OIDText        uint32 = 25
	OIDOid         uint32 = 26
	OIDXid         uint32 = 28
	OIDOidVector   uint32 = 30
	OIDJSON        uint32 = 114
	OIDFloat4      uint32 = 700
	OIDFloat8      uint32 = 701
	OIDUnknown     uint32 = 705
	OIDBpchar      uint32 = 1042
	OIDVarchar     uint32 = 1043
	OIDDate        uint32 = 1082
	OIDTime        uint32 = 1083
	OIDTimestamp   uint32 = 1114
	OIDTimestampTZ uint32 = 1184
	OIDInterval    uint32 = 1186
	OIDNumeric     uint32 = 1700
	OIDRegclass    uint32 = 2205
	OIDRegtype     uint32 = 2206
	OIDVoid        uint32 = 2278
	OIDUUID        uint32 = 2950
	OIDJSONB       uint32 = 3802
)

// class says how a type travels in binary.
type class uint8

const (
	classUnknown class = iota // no binary form here
	classBool
	classInt2
	classInt4
	classInt8
	classOID
	classFloat4
	classFloat8
	classNumeric
	classText // the bytes of the text form
	classBytea
	classDate
	classTime
	classTimestamp
	classTimestampTZ
	classInterval
	classUUID
	classJSONB
	classArray
)

type typeInfo struct {
	name  string
	class class
	size  int16 // pg_type.typlen; -1: variable
	elem  uint32
}

var types = map[uint32]typeInfo{
	OIDBool:        {"boolean", classBool, 1, 0},
	OIDBytea:       {"bytea", classBytea, -1, 0},
	OIDChar:        {`"char"`, classText, 1, 0},
	OIDName:        {"name", classText, 64, 0},
	OIDInt8:        {"bigint", classInt8, 8, 0},
	OIDInt2:        {"smallint", classInt2, 2, 0},
	OIDInt4:        {"integer", classInt4, 4, 0},
	OIDInt2Vector:  {"int2vector", classUnknown, -1, 0},
	OIDRegproc:     {"regproc", classOID, 4, 0},
	OIDText:        {"text", classText, -1, 0},
	OIDOid:         {"oid", classOID, 4, 0},
	OIDXid:         {"xid", classOID, 4, 0},
	OIDOidVector:   {"oidvector", classUnknown, -1, 0},
	OIDJSON:        {"json", classText, -1, 0},
	OIDFloat4:      {"real", classFloat4, 4, 0},
	OIDFloat8:      {"double precision", classFloat8, 8, 0},
	OIDUnknown:     {"unknown", classText, -2, 0},
	OIDBpchar:      {"character", classText, -1, 0},
	OIDVarchar:     {"character varying", classText, -1, 0},
	OIDDate:        {"date", classDate, 4, 0},
	OIDTime:        {"time without time zone", classTime, 8, 0},
	OIDTimestamp:   {"timestamp without time zone", classTimestamp, 8, 0},
	OIDTimestampTZ: {"timestamp with time zone", classTimestampTZ, 8, 0},
	OIDInterval:    {"interval", classInterval, 16, 0},
	OIDNumeric:     {"numeric", classNumeric, -1, 0},
	OIDRegclass:    {"regclass", classOID, 4, 0},
	OIDRegtype:     {"regtype", classOID, 4, 0},
	OIDVoid:        {"void", classText, 4, 0},
	OIDUUID:        {"uuid", classUUID, 16, 0},
	OIDJSONB:       {"jsonb", classJSONB, -1, 0},

	199:  {"json[]", classArray, -1, OIDJSON},
	1000: {"boolean[]", classArray, -1, OIDBool},
	1001: {"bytea[]", classArray, -1, OIDBytea},
	1002: {`"char"[]`, classArray, -1, OIDChar},
	1003: {"name[]", classArray, -1, OIDName},
	1005: {"smallint[]", classArray, -1, OIDInt2},
	1007: {"integer[]", classArray, -1, OIDInt4},
	1009: {"text[]", classArray, -1, OIDText},
	1014: {"character[]", classArray, -1, OIDBpchar},
	1015: {"character varying[]", classArray, -1, OIDVarchar},
	1016: {"bigint[]", classArray, -1, OIDInt8},
	1021: {"real[]", classArray, -1, OIDFloat4},
	1022: {"double precision[]", classArray, -1, OIDFloat8},
	1028: {"oid[]", classArray, -1, OIDOid},
	1115: {"timestamp without time zone[]", classArray, -1, OIDTimestamp},
	1182: {"date[]", classArray, -1, OIDDate},
	1183: {"time without time zone[]", classArray, -1, OIDTime},
	1185: {"timestamp with time zone[]", classArray, -1, OIDTimestampTZ},
	1187: {"interval[]", classArray, -1, OIDInterval},
	1231: {"numeric[]", classArray, -1, OIDNumeric},
	2951: {"uuid[]", classArray, -1, OIDUUID},
	3807: {"jsonb[]", classArray, -1, OIDJSONB},
}

func typeName(oid uint32) string {
	if t, ok := types[oid]; ok {
		return t.name
	}
	return "unknown type"
}

func typeSize(c Column) int16 {
	if c.Size != 0 {
		return c.Size
	}
	if t, ok := types[c.OID]; ok {
		return t.size
	}
	return -1
}
