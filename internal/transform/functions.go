package transform

import "strings"

// The functions that a statement may call: those of the engine's allow-list
// that give one value for one row, the same at every replay, in time and memory
// that its arguments bound. A function that a new DuckDB brings is refused until
// somebody has reviewed it.
//
// Reviewed and left out: aggregates, windows, functions that return sets or take
// lambdas; the clock, the session and random values (now, current_date, age,
// random, uuid…); hash, whose value may change with DuckDB's version; distances
// (levenshtein…), which are quadratic in texts that a producer chooses; range,
// generate_series and list_resize, which make any number of values of one;
// json_merge_patch, json_transform and from_json, which read decimals as
// doubles.

func words(lists ...string) map[string]bool {
	m := map[string]bool{}
	for _, l := range lists {
		for w := range strings.FieldsSeq(l) {
			m[w] = true
		}
	}
	return m
}

var rowFunctions = words(
	// operators
	`!~~ !~~* % & * ** + - ->> / // << >> @> <@ ^ ^@ | || ~ ~~ ~~* ~~~ like_escape not_like_escape ilike_escape not_ilike_escape`,
	// numbers
	`abs acos add asin atan atan2 cbrt ceil ceiling cos cot degrees divide even exp fdiv floor fmod gcd greatest hex isfinite isinf isnan lcm least ln log log10 log2
	mod multiply pi pow power radians round round_even roundbankers sign sin sqrt subtract tan trunc to_hex to_base xor bit_count`,
	// text
	`array_extract ascii base64 bit_length char_length character_length chr concat concat_ws contains ends_with format from_base64 decode encode instr lcase left len length lower
	lpad ltrim md5 nfc_normalize octet_length ord position prefix printf regexp_escape regexp_extract regexp_extract_all regexp_full_match regexp_matches regexp_replace
	regexp_split_to_array repeat replace reverse right rpad rtrim sha1 sha256 split split_part starts_with str_split str_split_regex string_split string_split_regex
	string_to_array strip_accents strlen strpos substr substring suffix to_base64 translate trim ucase unhex unicode upper url_decode url_encode`,
	// time
	`century date_add date_diff date_part date_sub date_trunc datediff datepart datesub datetrunc day dayname dayofmonth dayofweek dayofyear days_in_month decade epoch epoch_ms
	epoch_ns epoch_us era hour isodow isoyear julian last_day make_date make_time make_timestamp make_timestamp_ms make_timestamptz microsecond millennium millisecond
	minute month monthname nanosecond quarter second strftime strptime time_bucket timezone to_days to_hours to_microseconds to_milliseconds to_minutes to_months to_seconds
	to_timestamp to_weeks to_years try_strptime week weekday weekofyear year yearweek`,
	// conditions and types
	`nullif typeof`,
	// lists and structs
	`array_contains array_has array_indexof array_length array_position array_slice array_to_string array_value cardinality flatten list_concat list_contains list_distinct
	list_element list_extract list_has list_indexof list_position list_reverse list_reverse_sort list_slice list_sort list_unique list_value map map_extract map_keys
	map_values row struct_extract struct_pack element_at`,
	// JSON values, written
	`array_to_json json_array json_object json_quote row_to_json to_json`,
	// JSON values, read
	`json_array_length json_contains json_exists json_extract json_extract_path json_extract_path_text json_extract_string json_keys json_type json_valid json_value`,
)

// jsonReaders read the JSON text of their first argument, numbers as doubles.
// They read the column data only, whose numbers are checked to survive that.
var jsonReaders = words(`->> json_array_length json_contains json_exists json_extract json_extract_path json_extract_path_text json_extract_string json_keys json_type
	json_valid json_value`)

// jsonValues are those of jsonReaders that give a JSON value.
var jsonValues = words(`json_extract json_extract_path json_value`)

// constantArguments must be constants, so that no record chooses how much
// memory its row takes. The text ones are bounded, too, because each may be
// inserted at every character of the record.
var constantArguments = map[string][]constantArgument{
	"repeat":          {{at: 1, max: 100}},
	"lpad":            {{at: 1, max: 1000}},
	"rpad":            {{at: 1, max: 1000}},
	"replace":         {{at: 2, text: true, max: 64}},
	"regexp_replace":  {{at: 1, text: true, max: 1000}, {at: 2, text: true, max: 64}},
	"array_to_string": {{at: 1, text: true, max: 64}},
	"concat_ws":       {{at: 0, text: true, max: 64}},
	"format":          {{at: 0, text: true, max: 1000}},
	"printf":          {{at: 0, text: true, max: 1000}},
	"strftime":        {{at: 1, text: true, max: 1000}},
}

type constantArgument struct {
	at   int  // from 0
	text bool // else a number
	max  int  // of a number, or bytes of a text
}

// refusedFunctions say why, where a user may well ask.
var refusedFunctions = map[string]string{
	"now": clock, "current_date": clock, "current_time": clock, "current_timestamp": clock, "localtime": clock, "localtimestamp": clock, "today": clock, "get_current_time": clock,
	"get_current_timestamp": clock, "transaction_timestamp": clock, "current_localtime": clock, "current_localtimestamp": clock, "ago": clock, "age": clock, "getdate": clock, "sysdate": clock,
	"random": chance, "uuid": chance, "gen_random_uuid": chance, "uuidv4": chance, "uuidv7": chance, "setseed": chance,
	"current_user": session, "session_user": session, "user": session, "current_schema": session, "current_database": session, "current_setting": session,
	"unnest": sets, "generate_series": sets, "range": sets, "regexp_split_to_table": sets, "json_each": sets, "generate_subscripts": sets,
	"json_merge_patch": doubles, "json_transform": doubles, "from_json": doubles,
}

const (
	clock   = "a replay must give the same, and the clock does not; use a time of the record"
	chance  = "a replay must give the same, and chance does not; use md5 of the record's key"
	session = "there is no session"
	sets    = "one record gives at most one"
	doubles = "it reads decimals as doubles; write the members with json_object"
)
