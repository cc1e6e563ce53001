package engine

import "strings"

// The allow-list: what a user's statement may contain. Everything else is
// refused, so that a function which a new DuckDB brings is refused until
// somebody has reviewed it; a test compares these lists with the running
// library and names what is in neither.
//
// Reviewed and left out on purpose: everything that reads files (read_*,
// parquet_*, glob, sniff_csv), runs text as SQL (query, query_table,
// json_execute_serialized_sql, json_serialize_plan, check_peg_parser),
// shows the instance or other sessions (duckdb_*, pragma_*, current_setting,
// current_query, stats, in_search_path, pg_*), has effects (enable_logging,
// write_log, checkpoint, nextval, setseed, sleep_ms), raises errors at will
// (error), is a test or internal hook (test_*, seq_scan, arrow_scan*, __*), or
// divides in floating point behind a macro (geomean, wavg, weighted_avg).

func words(lists ...string) map[string]bool {
	m := map[string]bool{}
	for _, l := range lists {
		for w := range strings.FieldsSeq(l) {
			m[w] = true
		}
	}
	return m
}

// functionsAllowed holds scalar, aggregate and window functions, operators and
// macros, in lower case.
var functionsAllowed = words(
	// operators
	`!__postfix !~~ !~~* % & && * ** + - ->> / // <-> << <=> <@ >> @ @> ^ ^@ | || ~ ~~ ~~* ~~~ not_like_escape not_ilike_escape like_escape ilike_escape`,
	// numbers
	`abs acos acosh add asin asinh atan atan2 atanh bin bit_count cbrt ceil ceiling cos cosh cot degrees divide even exp factorial fdiv floor fmod gamma gcd
	greatest greatest_common_divisor hex isfinite isinf isnan lcm least least_common_multiple lgamma ln log log10 log2 mod multiply nextafter pi pow power
	radians random round round_even roundbankers sign signbit sin sinh sqrt subtract tan tanh to_base to_binary to_hex trunc unbin unhex xor from_binary from_hex`,
	// text
	`array_extract ascii bar base64 bit_length char_length character_length chr concat concat_ws contains damerau_levenshtein decode editdist3 encode ends_with
	format format_bytes formatreadabledecimalsize formatreadablesize from_base64 hamming hash instr jaccard jaro_similarity jaro_winkler_similarity lcase left
	left_grapheme len length length_grapheme levenshtein lower lpad ltrim md5 md5_number md5_number_lower md5_number_upper mismatches nfc_normalize octet_length
	ord parse_formatted_bytes pg_size_pretty position prefix printf regexp_escape regexp_extract regexp_extract_all regexp_full_match regexp_matches regexp_replace
	regexp_split_to_array regexp_split_to_table repeat replace reverse right right_grapheme rpad rtrim sha1 sha256 split split_part starts_with str_split
	str_split_regex string_split string_split_regex string_to_array strip_accents strlen strpos substr substring substring_grapheme suffix to_base64 translate trim
	ucase unicode upper url_decode url_encode`,
	// bits and bytes
	`bit_position bitstring get_bit set_bit`,
	// time
	`age ago century current_date current_localtime current_localtimestamp date_add date_diff date_part date_sub date_trunc datediff datepart datesub datetrunc day
	dayname dayofmonth dayofweek dayofyear days_in_month decade epoch epoch_ms epoch_ns epoch_us era get_current_time get_current_timestamp hour isodow isoyear julian
	last_day make_date make_time make_timestamp make_timestamp_ms make_timestamp_ns make_timestamptz microsecond millennium millisecond minute month monthname
	nanosecond normalized_interval now quarter second strftime strptime time_bucket timezone timezone_hour timezone_minute to_centuries to_days to_decades to_hours
	to_microseconds to_millennia to_milliseconds to_minutes to_months to_quarters to_seconds to_timestamp to_weeks to_years today transaction_timestamp try_strptime
	week weekday weekofyear year yearweek`,
	// conditions and types
	`alias can_cast_implicitly constant_or_null ifnull nullif typeof cast_to_type coalesce switch`,
	// identifiers of rows
	`gen_random_uuid uuid uuid_extract_timestamp uuid_extract_version uuidv4 uuidv7`,
	// lists, maps, structs
	`aggregate apply array_aggr array_aggregate array_append array_apply array_cat array_concat array_contains array_cosine_distance array_cosine_similarity
	array_cross_product array_distance array_distinct array_dot_product array_filter array_grade_up array_has array_has_all array_has_any array_indexof
	array_inner_product array_intersect array_length array_negative_dot_product array_negative_inner_product array_pop_back array_pop_front array_position array_prepend
	array_push_back array_push_front array_reduce array_resize array_reverse array_reverse_sort array_select array_slice array_sort array_to_string
	array_to_string_comma_default array_transform array_unique array_value array_where array_zip cardinality element_at filter flatten generate_series
	generate_subscripts grade_up list_aggr list_aggregate list_any_value list_append list_apply list_approx_count_distinct list_avg list_bit_and list_bit_or
	list_bit_xor list_bool_and list_bool_or list_cat list_concat list_contains list_cosine_distance list_cosine_similarity list_count list_distance list_distinct
	list_dot_product list_element list_entropy list_extract list_filter list_first list_grade_up list_has list_has_all list_has_any list_histogram list_indexof
	list_inner_product list_intersect list_kurtosis list_kurtosis_pop list_last list_mad list_max list_median list_min list_mode list_negative_dot_product
	list_negative_inner_product list_pack list_position list_prepend list_product list_reduce list_resize list_reverse list_reverse_sort list_select list_sem
	list_skewness list_slice list_sort list_stddev_pop list_stddev_samp list_string_agg list_sum list_transform list_unique list_value list_var_pop list_var_samp
	list_where list_zip map map_concat map_contains map_contains_entry map_contains_value map_entries map_extract map_extract_value map_from_entries map_keys map_values
	range reduce remap_struct row struct_concat struct_contains struct_extract struct_extract_at struct_has struct_indexof struct_insert struct_keys struct_pack
	struct_position struct_update struct_values union_extract union_tag union_value unnest unpivot_list equi_width_bins is_histogram_other_bin`,
	// JSON values
	`array_to_json from_json from_json_strict json json_array json_array_length json_contains json_exists json_extract json_extract_path json_extract_path_text
	json_extract_string json_group_array json_group_object json_group_structure json_keys json_merge_patch json_object json_pretty json_quote json_structure
	json_transform json_transform_strict json_type json_valid json_value row_to_json to_json`,
	// aggregates and windows
	`any_value approx_count_distinct approx_quantile approx_top_k arbitrary arg_max arg_max_null arg_max_nulls_last arg_min arg_min_null arg_min_nulls_last argmax argmin
	array_agg avg bit_and bit_or bit_xor bitstring_agg bool_and bool_or corr count count_if count_star countif covar_pop covar_samp cume_dist dense_rank entropy
	favg fill first first_value fsum group_concat histogram histogram_exact kahan_sum kurtosis kurtosis_pop lag last last_value lead list listagg mad max max_by
	mean median min min_by mode nth_value ntile percent_rank product quantile quantile_cont quantile_disc rank rank_dense regr_avgx regr_avgy regr_count
	regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy reservoir_quantile row_number sem skewness stddev stddev_pop stddev_samp string_agg sum
	sum_no_overflow sumkahan var_pop var_samp variance grouping grouping_id`,
)

// tableFunctionsAllowed stand in FROM. None of them reaches beyond its
// arguments.
var tableFunctionsAllowed = words(`generate_series range unnest json_each json_tree repeat repeat_row`)

// functionsDenied are the functions of DuckDB 1.5.6 that were reviewed and are
// refused. The list has no effect on Check, which refuses whatever is not
// allowed; it tells a reviewed function from a new one. A final * stands for
// any ending.
var functionsDenied = strings.Fields(`__internal_* add_parquet_key all_profiling_output arrow_scan arrow_scan_dumb check_peg_parser checkpoint col_description
	collations combine copy_database create_sort_key current_catalog current_connection_id current_database current_query current_query_id current_role current_schema
	current_schemas current_setting current_transaction_id current_user currval database_list database_size disable_* duckdb_* enable_* enum_* error exp_*
	extension_versions finalize force_checkpoint format_pg_type format_type functions geomean geometric_mean get_block_size get_type getvariable glob has_*
	histogram_values icu_* import_database in_search_path inet_* json_deserialize_sql json_execute_serialized_sql json_serialize_plan json_serialize_sql make_type
	map_to_pg_oid metadata_info nextval obj_description parquet_* parse_dirname parse_dirpath parse_duckdb_log_message parse_filename parse_path pg_* platform pragma_* query
	query_table read_* replace_type seq_scan session_user setseed shobj_description show show_* sleep_ms sniff_csv sql_auto_complete st_* stats storage_info
	summary table_info test_* timetz_byte_comparable truncate_duckdb_logs txid_current user user_agent variant_* vector_type verify_* version wavg weighted_avg
	which_secret write_log`)

// expressionsAllowed are the expression classes of the syntax tree.
var expressionsAllowed = words(`BETWEEN CASE CAST COLLATE COLUMN_REF COMPARISON CONJUNCTION CONSTANT DEFAULT FUNCTION LAMBDA LAMBDA_REF OPERATOR PARAMETER
	POSITIONAL_REFERENCE STAR SUBQUERY WINDOW`)

// nodesAllowed are the other nodes of the syntax tree. Left out: SHOW_REF
// (DESCRIBE, SHOW, SUMMARIZE), PIVOT, COLUMN_DATA, DELIM_GET and bound nodes.
var nodesAllowed = words(`SELECT_NODE SET_OPERATION_NODE RECURSIVE_CTE_NODE LIMIT_MODIFIER LIMIT_PERCENT_MODIFIER ORDER_MODIFIER DISTINCT_MODIFIER
	ORDER_DEFAULT ASCENDING DESCENDING BASE_TABLE SUBQUERY JOIN TABLE_FUNCTION EXPRESSION_LIST EMPTY
	DECIMAL_TYPE_INFO STRING_TYPE_INFO LIST_TYPE_INFO STRUCT_TYPE_INFO ARRAY_TYPE_INFO UNBOUND_TYPE_INFO GENERIC_TYPE_INFO ENUM_TYPE_INFO INTEGER_LITERAL_TYPE_INFO`)

// typesByNameAllowed are the types that the parser leaves to the binder.
var typesByNameAllowed = words(`json uuid hugeint`)
