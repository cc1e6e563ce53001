package warehouse

import (
	"sort"
	"strconv"
	"strings"
	"time"
)

// setting is a run-time parameter of a session.
type setting struct {
	canonical string // the name that is reported
	value     string // the default
	// check normalises a value, or refuses it. nil accepts any; fixed values
	// accept only themselves.
	check func(string) (string, error)
	fixed bool
}

// settings are the parameters that are known. PostgreSQL's and Redshift's that
// have no effect here are accepted, because drivers and tools set them.
var settings = map[string]setting{}

func init() {
	add := func(name, value string, check func(string) (string, error)) {
		settings[strings.ToLower(name)] = setting{canonical: name, value: value, check: check}
	}
	add("search_path", "public", checkSearchPath)
	add("TimeZone", "UTC", checkZone)
	add("DateStyle", "ISO, MDY", checkDateStyle)
	add("IntervalStyle", "postgres", oneOf("postgres"))
	add("statement_timeout", "0", checkMillis)
	add("client_encoding", "UTF8", func(v string) (string, error) {
		switch strings.ToUpper(strings.NewReplacer("-", "", "_", "").Replace(v)) {
		case "UTF8", "UNICODE":
			return "UTF8", nil
		}
		return "", errorf(codeInvalidParameter, "invalid value for parameter \"client_encoding\": %q", v).hint("the server speaks UTF8 only")
	})
	add("application_name", "", func(v string) (string, error) { return strings.ToValidUTF8(v[:min(len(v), 63)], ""), nil })
	add("extra_float_digits", "1", checkInt(-15, 3))
	add("default_transaction_isolation", "serializable", nil)
	add("transaction_isolation", "serializable", nil)
	add("default_transaction_read_only", "off", checkBool)
	add("transaction_read_only", "off", checkBool)
	add("standard_conforming_strings", "on", oneOf("on"))
	add("bytea_output", "hex", oneOf("hex"))
	add("mv_refresh_mode", "fresh", oneOf("fresh", "stored"))
	for _, name := range []string{"server_version", "server_version_num", "server_encoding", "is_superuser", "session_authorization", "integer_datetimes", "in_hot_standby",
		"max_identifier_length", "lc_collate", "lc_ctype", "max_index_keys", "block_size", "data_checksums"} {
		value := map[string]string{"server_version": serverVersion, "server_version_num": "150000", "server_encoding": "UTF8", "is_superuser": "off",
			"integer_datetimes": "on", "in_hot_standby": "off", "max_identifier_length": "127", "lc_collate": "C", "lc_ctype": "C", "max_index_keys": "32",
			"block_size": "8192", "data_checksums": "on"}[name]
		settings[name] = setting{canonical: name, value: value, fixed: true}
	}
	for _, kv := range strings.Fields(`client_min_messages=notice lock_timeout=0 idle_in_transaction_session_timeout=0 idle_session_timeout=0 row_security=on
		check_function_bodies=on xmloption=content default_table_access_method=iceberg default_tablespace= synchronous_commit=on work_mem=4MB
		enable_seqscan=on enable_indexscan=on enable_bitmapscan=on enable_hashjoin=on enable_mergejoin=on enable_nestloop=on geqo=on jit=off
		max_parallel_workers_per_gather=2 random_page_cost=4 lc_messages=C lc_monetary=C lc_numeric=C lc_time=C tcp_keepalives_idle=0 tcp_keepalives_interval=0
		tcp_keepalives_count=0 bytea_output=hex escape_string_warning=on array_nulls=on backslash_quote=safe_encoding transform_null_equals=off
		query_group= wlm_query_slot_count=1 enable_result_cache_for_session=on analyze_threshold_percent=10 describe_field_name_in_uppercase=off
		enable_case_sensitive_identifier=off enable_case_sensitive_super_attribute=off json_serialization_enable=off json_serialization_parse_nested_strings=off
		mv_enable_aqmv_for_session=on navigate_super_null_on_error=on parse_super_null_on_error=off cast_super_null_on_error=on stored_proc_log_min_messages=LOG
		timezone_abbreviations=Default default_geometry_encoding=1 downcase_delimited_identifier=off datashare_break_glass_session_var= auto_analyze=on
		pg_stat_statements.track=none`) {
		name, value, _ := strings.Cut(kv, "=")
		if _, ok := settings[name]; !ok {
			add(name, value, nil)
		}
	}
}

func sortedSettings() []string {
	names := make([]string, 0, len(settings))
	for n := range settings {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// reported are the parameters that the protocol tells a client about.
var reported = []string{"server_version", "server_encoding", "client_encoding", "application_name", "is_superuser", "session_authorization", "DateStyle",
	"IntervalStyle", "TimeZone", "integer_datetimes", "standard_conforming_strings", "default_transaction_read_only", "in_hot_standby"}

func oneOf(values ...string) func(string) (string, error) {
	return func(v string) (string, error) {
		for _, x := range values {
			if strings.EqualFold(v, x) {
				return x, nil
			}
		}
		return "", errorf(codeInvalidParameter, "invalid value: %q", v).hint("supported: %s", strings.Join(values, ", "))
	}
}

func checkBool(v string) (string, error) {
	switch strings.ToLower(v) {
	case "on", "true", "yes", "1", "t", "y":
		return "on", nil
	case "off", "false", "no", "0", "f", "n":
		return "off", nil
	}
	return "", errorf(codeInvalidParameter, "a Boolean is required, not %q", v)
}

func checkInt(from, to int) func(string) (string, error) {
	return func(v string) (string, error) {
		i, err := strconv.Atoi(v)
		if err != nil || i < from || i > to {
			return "", errorf(codeInvalidParameter, "%s is outside the valid range (%d .. %d)", v, from, to)
		}
		return v, nil
	}
}

// checkMillis reads a duration as PostgreSQL does: milliseconds, or a number
// with a unit.
func checkMillis(v string) (string, error) {
	d, err := parseMillis(v)
	if err != nil {
		return "", err
	}
	if d == 0 {
		return "0", nil
	}
	return strconv.FormatInt(d.Milliseconds(), 10) + "ms", nil
}

func parseMillis(v string) (time.Duration, error) {
	t := strings.ToLower(strings.TrimSpace(v))
	n := strings.TrimRight(t, "abcdefghijklmnopqrstuvwxyz ")
	unit, ok := map[string]time.Duration{"": time.Millisecond, "ms": time.Millisecond, "s": time.Second, "min": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[strings.TrimSpace(t[len(n):])]
	i, err := strconv.ParseInt(n, 10, 64)
	if err != nil || !ok || i < 0 || i > int64(24*24*time.Hour/unit) {
		return 0, errorf(codeInvalidParameter, "invalid value for parameter \"statement_timeout\": %q", v).hint("valid units are ms, s, min, h and d, up to 24 days")
	}
	return time.Duration(i) * unit, nil
}

func checkZone(v string) (string, error) {
	loc, err := loadZone(v)
	if err != nil {
		return "", errorf(codeInvalidParameter, "invalid value for parameter \"TimeZone\": %q", v).hint("use a name such as UTC or America/New_York")
	}
	return loc.String(), nil
}

func checkDateStyle(v string) (string, error) {
	order := "MDY"
	for _, part := range strings.Split(v, ",") {
		switch p := strings.ToUpper(strings.TrimSpace(part)); p {
		case "ISO", "DEFAULT":
		case "MDY", "US", "NONEURO":
			order = "MDY"
		default:
			return "", errorf(codeInvalidParameter, "invalid value for parameter \"DateStyle\": %q", v).hint("the server writes dates as ISO, MDY")
		}
	}
	return "ISO, " + order, nil
}

func checkSearchPath(v string) (string, error) {
	_, err := parseSearchPath(v)
	return v, err
}

// parseSearchPath splits a search path; "$user" stands for no schema here.
func parseSearchPath(v string) ([]string, error) {
	tokens, err := tokenize(v)
	if err != nil {
		return nil, err
	}
	var out []string
	for i, t := range tokens {
		switch {
		case t.name() || t.kind == tokenString:
			if t.value != "$user" && t.value != "" {
				out = append(out, t.value)
			}
		case t.punct(",") && i > 0, t.kind == tokenEOF:
		default:
			return nil, errorf(codeInvalidParameter, "invalid list syntax in parameter \"search_path\": %q", v)
		}
	}
	if len(out) > 64 {
		return nil, errorf(codeLimitExceeded, "a search path has at most 64 schemas")
	}
	return out, nil
}
