package warehouse

import (
	"context"
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
)

// systemRelations is the system catalog: what psql's \d family, drivers and
// BI tools ask for. A relation without rows is there because they join it.
// Columns beyond those of PostgreSQL 15 that no known client reads are left
// out.
var systemRelations map[string]systemRelation

const ownerOID = 10

func init() {
	systemRelations = map[string]systemRelation{
		"pg_catalog.pg_namespace": {"oid oid nspname name nspowner oid nspacl text[]", func(_ context.Context, c *catalogState) ([][]any, error) {
			var rows [][]any
			for _, s := range c.schemas {
				rows = append(rows, []any{schemaOID(s), s, ownerOID, nil})
			}
			return rows, nil
		}},
		"pg_catalog.pg_class": {`oid oid relname name relnamespace oid reltype oid reloftype oid relowner oid relam oid relfilenode oid reltablespace oid
			relpages int4 reltuples float4 relallvisible int4 reltoastrelid oid relhasindex bool relisshared bool relpersistence char relkind char relnatts int2
			relchecks int2 relhasrules bool relhastriggers bool relhassubclass bool relrowsecurity bool relforcerowsecurity bool relispopulated bool relreplident char
			relispartition bool relrewrite oid relacl text[] reloptions text[] relpartbound text relhasoids bool relhaspkey bool`, classRows},
		"pg_catalog.pg_attribute": {`attrelid oid attname name atttypid oid attstattarget int4 attlen int2 attnum int2 attndims int4 atttypmod int4 attbyval bool
			attstorage char attcompression char attalign char attnotnull bool atthasdef bool atthasmissing bool attidentity char attgenerated char attisdropped bool
			attislocal bool attinhcount int4 attcollation oid attacl text[] attoptions text[] attfdwoptions text[]`, attributeRows},
		"pg_catalog.pg_type": {`oid oid typname name typnamespace oid typowner oid typlen int2 typbyval bool typtype char typcategory char typispreferred bool
			typisdefined bool typdelim char typrelid oid typelem oid typarray oid typinput oid typoutput oid typreceive oid typsend oid typnotnull bool
			typbasetype oid typtypmod int4 typndims int4 typcollation oid typdefault text typalign char typstorage char typsubscript oid`, typeRows},
		"pg_catalog.pg_database": {`oid oid datname name datdba oid encoding int4 datlocprovider char datistemplate bool datallowconn bool datconnlimit int4
			dattablespace oid datcollate text datctype text daticulocale text datcollversion text datacl text[]`,
			func(_ context.Context, c *catalogState) ([][]any, error) {
				return [][]any{{1, c.env.database, ownerOID, 6, "c", false, true, -1, 1663, "C", "C", nil, nil, nil}}, nil
			}},
		"pg_catalog.pg_roles": {`oid oid rolname name rolsuper bool rolinherit bool rolcreaterole bool rolcreatedb bool rolcanlogin bool rolreplication bool
			rolconnlimit int4 rolpassword text rolvaliduntil timestamptz rolbypassrls bool rolconfig text[]`, roleRows},
		"pg_catalog.pg_authid": {`oid oid rolname name rolsuper bool rolinherit bool rolcreaterole bool rolcreatedb bool rolcanlogin bool rolreplication bool
			rolconnlimit int4 rolpassword text rolvaliduntil timestamptz rolbypassrls bool rolconfig text[]`, roleRows},
		"pg_catalog.pg_user": {"usename name usesysid oid usecreatedb bool usesuper bool userepl bool usebypassrls bool passwd text valuntil timestamptz useconfig text[]",
			func(_ context.Context, c *catalogState) ([][]any, error) {
				var rows [][]any
				for _, r := range roles(c) {
					rows = append(rows, []any{r.name, r.oid, false, false, false, false, "********", nil, nil})
				}
				return rows, nil
			}},
		"pg_catalog.pg_am": {"oid oid amname name amhandler oid amtype char", func(context.Context, *catalogState) ([][]any, error) {
			return [][]any{{2, "iceberg", 0, "t"}}, nil
		}},
		"pg_catalog.pg_tablespace": {"oid oid spcname name spcowner oid spcacl text[] spcoptions text[]", func(context.Context, *catalogState) ([][]any, error) {
			return [][]any{{1663, "pg_default", ownerOID, nil, nil}}, nil
		}},
		"pg_catalog.pg_settings": {`name text setting text unit text category text short_desc text extra_desc text context text vartype text source text
			min_val text max_val text enumvals text[] boot_val text reset_val text sourcefile text sourceline int4 pending_restart bool`, settingRows},
		"pg_catalog.pg_tables": {"schemaname name tablename name tableowner name tablespace name hasindexes bool hasrules bool hastriggers bool rowsecurity bool",
			func(_ context.Context, c *catalogState) ([][]any, error) {
				return each(c, "r", func(o *catalogObject) []any {
					return []any{o.schema, o.name, ownerName, nil, false, false, false, false}
				}), nil
			}},
		"pg_catalog.pg_views": {"schemaname name viewname name viewowner name definition text", nil},
		"pg_catalog.pg_matviews": {"schemaname name matviewname name matviewowner name tablespace name hasindexes bool ispopulated bool definition text",
			func(_ context.Context, c *catalogState) ([][]any, error) {
				return each(c, "m", func(o *catalogObject) []any {
					return []any{o.schema, o.name, ownerName, nil, false, true, o.view.Text}
				}), nil
			}},
		"pg_catalog.svv_mv_info": {"database_name text schema_name text user_name text name text is_stale text state int4 autorefresh char autorewrite char", viewInfoRows},
		"pg_catalog.stv_mv_info": {"db_name text schema text name text updated_upto_xid int8 is_stale text owner_user_name text state int4 autorefresh char autorewrite char",
			func(ctx context.Context, c *catalogState) ([][]any, error) {
				rows, err := viewInfoRows(ctx, c)
				for i, r := range rows {
					rows[i] = []any{r[0], r[1], r[3], nil, r[4], r[2], r[5], r[6], r[7]}
				}
				return rows, err
			}},
		"pg_catalog.svv_external_schemas": {"esoid oid eskind int4 schemaname text esowner oid databasename text esoptions text", externalSchemaRows},
		"pg_catalog.svv_external_tables": {`redshift_database_name text schemaname text tablename text tabletype text location text input_format text output_format text
			serialization_lib text serde_parameters text compressed int4 parameters text`, externalTableRows},
		"pg_catalog.svv_external_columns": {"schemaname text tablename text columnname text external_type text columnnum int4 part_key int4 is_nullable text", externalColumnRows},
		"pg_catalog.svv_external_partitions": {`schemaname text tablename text values text location text input_format text output_format text
			serialization_lib text serde_parameters text compressed int4 parameters text`, externalPartitionRows},
		"pg_catalog.pg_table_def": {`schemaname name tablename name column name type text encoding text distkey bool sortkey int4 notnull bool`,
			func(_ context.Context, c *catalogState) ([][]any, error) {
				return eachColumn(c, func(o *catalogObject, i int, col catalogColumn) []any {
					return []any{o.schema, o.name, col.name, displayType(col.typ), "zstd", false, 0, col.notNull}
				}), nil
			}},

		"pg_catalog.pg_index": {`indexrelid oid indrelid oid indnatts int2 indnkeyatts int2 indisunique bool indisprimary bool indisexclusion bool indimmediate bool
			indisclustered bool indisvalid bool indisreplident bool indkey int2[] indclass oid[] indoption int2[] indexprs text indpred text`, nil},
		"pg_catalog.pg_constraint": {`oid oid conname name connamespace oid contype char condeferrable bool condeferred bool convalidated bool conrelid oid contypid oid
			conindid oid conparentid oid confrelid oid confupdtype char confdeltype char confmatchtype char conislocal bool connoinherit bool conkey int2[] confkey int2[] conbin text`, nil},
		"pg_catalog.pg_attrdef":       {"oid oid adrelid oid adnum int2 adbin text", nil},
		"pg_catalog.pg_description":   {"objoid oid classoid oid objsubid int4 description text", nil},
		"pg_catalog.pg_shdescription": {"objoid oid classoid oid description text", nil},
		"pg_catalog.pg_proc": {`oid oid proname name pronamespace oid proowner oid prolang oid prokind char prorettype oid proargtypes oid[] proargnames text[] prosrc text
			proretset bool pronargs int2 provolatile char`, nil},
		"pg_catalog.pg_collation":             {"oid oid collname name collnamespace oid collowner oid collprovider char collcollate text collctype text collencoding int4", nil},
		"pg_catalog.pg_policy":                {"oid oid polname name polrelid oid polcmd char polpermissive bool polroles oid[] polqual text polwithcheck text", nil},
		"pg_catalog.pg_statistic_ext":         {"oid oid stxrelid oid stxname name stxnamespace oid stxowner oid stxstattarget int4 stxkeys int2[] stxkind text[]", nil},
		"pg_catalog.pg_publication":           {"oid oid pubname name pubowner oid puballtables bool pubinsert bool pubupdate bool pubdelete bool pubtruncate bool pubviaroot bool", nil},
		"pg_catalog.pg_publication_rel":       {"oid oid prpubid oid prrelid oid prqual text prattrs int2[]", nil},
		"pg_catalog.pg_publication_namespace": {"oid oid pnpubid oid pnnspid oid", nil},
		"pg_catalog.pg_inherits":              {"inhrelid oid inhparent oid inhseqno int4 inhdetachpending bool", nil},
		"pg_catalog.pg_auth_members":          {"roleid oid member oid grantor oid admin_option bool", nil},
		"pg_catalog.pg_trigger":               {"oid oid tgrelid oid tgname name tgtype int2 tgenabled char tgisinternal bool tgconstraint oid tgparentid oid tgdeferrable bool tginitdeferred bool", nil},
		"pg_catalog.pg_rewrite":               {"oid oid rulename name ev_class oid ev_type char ev_enabled char is_instead bool", nil},
		"pg_catalog.pg_enum":                  {"oid oid enumtypid oid enumsortorder float4 enumlabel name", nil},
		"pg_catalog.pg_range":                 {"rngtypid oid rngsubtype oid rngmultitypid oid rngcollation oid rngsubopc oid", nil},
		"pg_catalog.pg_extension":             {"oid oid extname name extowner oid extnamespace oid extrelocatable bool extversion text", nil},
		"pg_catalog.pg_depend":                {"classid oid objid oid objsubid int4 refclassid oid refobjid oid refobjsubid int4 deptype char", nil},
		"pg_catalog.pg_language":              {"oid oid lanname name", nil},
		"pg_catalog.pg_event_trigger":         {"oid oid evtname name evtevent name evtowner oid evtenabled char", nil},
		"pg_catalog.pg_foreign_table":         {"ftrelid oid ftserver oid ftoptions text[]", nil},
		"pg_catalog.pg_foreign_server":        {"oid oid srvname name srvowner oid srvfdw oid", nil},
		"pg_catalog.pg_sequence":              {"seqrelid oid seqtypid oid", nil},
		"pg_catalog.pg_indexes":               {"schemaname name tablename name indexname name tablespace name indexdef text", nil},
		"pg_catalog.pg_stat_activity":         {"datid oid datname name pid int4 usename name application_name text state text query text", nil},
		"pg_catalog.pg_timezone_names":        {"name text abbrev text is_dst bool", nil},

		// Not of PostgreSQL: what the functions of sysfunctions.go read.
		"pg_catalog.pg_visible": {"oid oid", func(_ context.Context, c *catalogState) ([][]any, error) {
			var rows [][]any
			seen := map[string]bool{}
			for _, s := range c.env.searchPath {
				for i := range c.objects {
					if o := &c.objects[i]; o.schema == s && !seen[o.name] {
						seen[o.name] = true
						rows = append(rows, []any{relationOID(o.schema, o.name)})
					}
				}
			}
			return rows, nil
		}},
		"pg_catalog.pg_view_definition": {"oid oid definition text", func(_ context.Context, c *catalogState) ([][]any, error) {
			return each(c, "m", func(o *catalogObject) []any { return []any{relationOID(o.schema, o.name), o.view.Text} }), nil
		}},
		"pg_catalog.pg_relation_size": {"oid oid size_bytes int8", sizeRows},

		"information_schema.schemata": {"catalog_name text schema_name text schema_owner text default_character_set_catalog text default_character_set_schema text default_character_set_name text sql_path text",
			func(_ context.Context, c *catalogState) ([][]any, error) {
				var rows [][]any
				for _, s := range c.schemas {
					rows = append(rows, []any{c.env.database, s, ownerName, nil, nil, nil, nil})
				}
				return rows, nil
			}},
		"information_schema.tables": {"table_catalog text table_schema text table_name text table_type text self_referencing_column_name text reference_generation text is_insertable_into text is_typed text",
			func(_ context.Context, c *catalogState) ([][]any, error) {
				return each(c, "", func(o *catalogObject) []any {
					kind, insertable := "BASE TABLE", "YES"
					if o.kind == "m" {
						kind, insertable = "VIEW", "NO"
					}
					if o.external != nil {
						kind, insertable = "FOREIGN", "NO"
					}
					return []any{c.env.database, o.schema, o.name, kind, nil, nil, insertable, "NO"}
				}), nil
			}},
		"information_schema.views": {"table_catalog text table_schema text table_name text view_definition text check_option text is_updatable text is_insertable_into text",
			func(_ context.Context, c *catalogState) ([][]any, error) {
				return each(c, "m", func(o *catalogObject) []any {
					return []any{c.env.database, o.schema, o.name, o.view.Text, "NONE", "NO", "NO"}
				}), nil
			}},
		"information_schema.columns": {`table_catalog text table_schema text table_name text column_name text ordinal_position int4 column_default text is_nullable text
			data_type text character_maximum_length int4 character_octet_length int4 numeric_precision int4 numeric_precision_radix int4 numeric_scale int4
			datetime_precision int4 udt_catalog text udt_schema text udt_name text is_identity text is_generated text is_updatable text`, columnRows},
		"information_schema.table_constraints":       {"constraint_catalog text constraint_schema text constraint_name text table_catalog text table_schema text table_name text constraint_type text", nil},
		"information_schema.key_column_usage":        {"constraint_catalog text constraint_schema text constraint_name text table_catalog text table_schema text table_name text column_name text ordinal_position int4", nil},
		"information_schema.referential_constraints": {"constraint_catalog text constraint_schema text constraint_name text unique_constraint_schema text unique_constraint_name text", nil},
		"information_schema.routines":                {"specific_schema text specific_name text routine_schema text routine_name text routine_type text data_type text", nil},
	}
}

func each(c *catalogState, kind string, row func(*catalogObject) []any) [][]any {
	var rows [][]any
	for i := range c.objects {
		if o := &c.objects[i]; kind == "" || o.kind == kind {
			rows = append(rows, row(o))
		}
	}
	return rows
}

func eachColumn(c *catalogState, row func(o *catalogObject, i int, col catalogColumn) []any) [][]any {
	var rows [][]any
	for i := range c.objects {
		for j, col := range c.objects[i].columns {
			rows = append(rows, row(&c.objects[i], j, col))
		}
	}
	return rows
}

func classRows(_ context.Context, c *catalogState) ([][]any, error) {
	return each(c, "", func(o *catalogObject) []any {
		return []any{relationOID(o.schema, o.name), o.name, schemaOID(o.schema), 0, 0, ownerOID, 2, 0, 0,
			0, -1, 0, 0, false, false, "p", o.kind, len(o.columns),
			0, false, false, false, false, false, true, "d",
			false, 0, nil, nil, nil, false, false}
	}), nil
}

func attributeRows(_ context.Context, c *catalogState) ([][]any, error) {
	return eachColumn(c, func(o *catalogObject, i int, col catalogColumn) []any {
		t := pgTypes[col.typ.kind]
		collation := 0
		if t.oid == 25 {
			collation = 100
		}
		return []any{relationOID(o.schema, o.name), col.name, t.oid, -1, t.size, i + 1, 0, typmod(col.typ), t.size > 0,
			"p", "", t.alignment, col.notNull, false, false, "", "", false,
			true, 0, collation, nil, nil, nil}
	}), nil
}

func typeRows(context.Context, *catalogState) ([][]any, error) {
	var rows [][]any
	row := func(oid uint32, name, category string, size int16, element, array uint32, alignment string) {
		collation := 0
		if category == "S" {
			collation = 100
		}
		rows = append(rows, []any{oid, name, 11, ownerOID, size, size > 0 && size <= 8, "b", category, oid == 25 || oid == 701 || oid == 1184,
			true, ",", 0, element, array, oid, oid, oid, oid, false,
			0, -1, 0, collation, nil, alignment, "p", 0})
	}
	for _, t := range allTypes() {
		row(t.oid, t.name, t.category, t.size, 0, t.array, t.alignment)
		if t.array != 0 {
			row(t.array, "_"+t.name, "A", -1, t.oid, 0, t.alignment)
		}
	}
	return rows, nil
}

type role struct {
	oid  int64
	name string
}

// roles are the owner and whoever asks: the list of users is not for everybody.
func roles(c *catalogState) []role {
	all := []role{{ownerOID, ownerName}}
	if c.env.user != ownerName {
		all = append(all, role{stableOID("u\x00" + c.env.user), c.env.user})
	}
	return all
}

func roleRows(_ context.Context, c *catalogState) ([][]any, error) {
	var rows [][]any
	for _, r := range roles(c) {
		rows = append(rows, []any{r.oid, r.name, false, true, false, false, true, false, -1, "********", nil, false, nil})
	}
	return rows, nil
}

func settingRows(_ context.Context, c *catalogState) ([][]any, error) {
	var rows [][]any
	for _, s := range c.config {
		rows = append(rows, []any{s[0], s[1], nil, "Client Connection Defaults", "", nil, "user", "string", "session", nil, nil, nil, s[1], s[1], nil, nil, false})
	}
	return rows, nil
}

func viewInfoRows(_ context.Context, c *catalogState) ([][]any, error) {
	return each(c, "m", func(o *catalogObject) []any {
		flag := func(b bool) string {
			if b {
				return "t"
			}
			return "f"
		}
		state := 0
		if o.view.Incremental {
			state = 1
		}
		return []any{c.env.database, o.schema, ownerName, o.name, flag(o.view.Stale), state, flag(o.view.AutoRefresh), "f"}
	}), nil
}

// sizeRows sums the data files of each table. A table that is dropped meanwhile
// has no size.
func sizeRows(ctx context.Context, c *catalogState) ([][]any, error) {
	var rows [][]any
	for i := range c.objects {
		o := &c.objects[i]
		if o.table == nil || o.table.Snapshot() == 0 {
			continue
		}
		files, err := c.tables.Files(ctx, o.table, catalog.At{})
		if err != nil {
			return nil, err
		}
		var size int64
		for _, f := range files {
			size += f.SizeBytes
		}
		rows = append(rows, []any{relationOID(o.schema, o.name), size})
	}
	return rows, nil
}

func columnRows(_ context.Context, c *catalogState) ([][]any, error) {
	return eachColumn(c, func(o *catalogObject, i int, col catalogColumn) []any {
		t := pgTypes[col.typ.kind]
		nullable := "YES"
		if col.notNull {
			nullable = "NO"
		}
		var precision, radix, scale, clock any
		switch col.typ.kind {
		case kindDecimal:
			precision, radix, scale = col.typ.precision, 10, col.typ.scale
		case kindSmallint, kindInt, kindBigint:
			precision, radix, scale = int(t.size)*8, 2, 0
		case kindReal:
			precision, radix = 24, 2
		case kindDouble:
			precision, radix = 53, 2
		case kindTimestamp, kindTimestampTZ, kindTime:
			clock = 6
		case kindDate:
			clock = 0
		}
		return []any{c.env.database, o.schema, o.name, col.name, i + 1, nil, nullable,
			t.display, nil, nil, precision, radix, scale,
			clock, c.env.database, "pg_catalog", t.name, "NO", "NEVER", "YES"}
	}), nil
}

// displayType is format_type of a column's type.
func displayType(t sqlType) string {
	d := pgTypes[t.kind].display
	if t.kind == kindDecimal {
		d = strings.ToLower(strings.Replace(t.String(), "DECIMAL", "numeric", 1))
	}
	return d
}

// stamp is an instant as a literal without offset, in UTC.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.999999") }
