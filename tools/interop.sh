#!/usr/bin/env bash
# The interop suite: programs that nobody here wrote, held against what we serve
# and write. Fetches them, by the ordinary clients of PyPI, npm, Maven Central,
# the Go module proxy and Debian, into .interop/ (TAPEHOUSE_INTEROP_CACHE), which
# git ignores, and runs the tests that need them.
#
# What cannot be fetched is SKIPPED, loudly; a test that fails is a failure.
# All the fetching together takes FETCH_SECONDS (240) at most. RUN is a pattern
# that chooses tests: make interop RUN='^TestTerraform$'
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
cache=${TAPEHOUSE_INTEROP_CACHE:-$root/.interop}
deadline=$((SECONDS + ${FETCH_SECONDS:-240}))
mkdir -p "$cache/bin"

skipped() { printf 'SKIPPED: %s\n' "$*"; }

# fetched NAME PINS DIR: whether DIR was fetched by these pins already.
fetched() { [ -d "$3" ] && [ "$(cat "$cache/$1.pins" 2>/dev/null)" = "$2" ]; }

# fetch NAME COMMAND...: runs a command that fetches, within what is left of the
# time; what it said goes to NAME.log.
fetch() {
	local name=$1 left=$((deadline - SECONDS))
	shift
	[ "$left" -gt 0 ] || { echo "no time left to fetch" >"$cache/$name.log"; return 1; }
	if command -v timeout >/dev/null; then set -- timeout "$left" "$@"; fi
	"$@" </dev/null >"$cache/$name.log" 2>&1
}

# part NAME PINS DIR FUNCTION: what FUNCTION fetches into DIR, unless it is there.
part() {
	local name=$1 pins=$2 dir=$3 get=$4
	fetched "$name" "$pins" "$dir" && return 0
	printf '   fetching %s\n' "$name"
	rm -rf "$dir" "$cache/$name.pins"
	if "$get" "$name" "$dir"; then
		printf '%s' "$pins" >"$cache/$name.pins"
		return 0
	fi
	rm -rf "$dir"
	skipped "$name could not be fetched: $(tail -n 1 "$cache/$name.log")"
	return 1
}

python() {
	fetch "$1" python3 -m venv "$2" &&
		fetch "$1" "$2/bin/python3" -m pip install --quiet --disable-pip-version-check -r tools/interop/requirements.txt
}
if part python "$(cat tools/interop/requirements.txt)" "$cache/python" python; then
	export TAPEHOUSE_PYTHON=$cache/python/bin/python3
	PATH=$cache/python/bin:$PATH
fi

awscli() {
	fetch "$1" python3 -m venv "$2" && fetch "$1" "$2/bin/python3" -m pip install --quiet --disable-pip-version-check awscli==1.46.3
}
if ! command -v aws >/dev/null && part awscli 1.46.3 "$cache/awscli" awscli; then
	ln -sf "$cache/awscli/bin/aws" "$cache/bin/aws"
fi

clickhouse() {
	mkdir -p "$2" && cp tools/interop/package.json "$2" &&
		fetch "$1" npm install --prefix "$2" --no-audit --no-fund --no-package-lock --ignore-scripts
}
part clickhouse "$(cat tools/interop/package.json)" "$cache/clickhouse" clickhouse &&
	export TAPEHOUSE_CHDB=$cache/clickhouse/node_modules

jars="joda-time:joda-time:2.14.2 org.xerial.snappy:snappy-java:1.1.10.8 org.postgresql:postgresql:42.7.4"
jars() {
	local jar
	for jar in $jars; do
		fetch "$1" mvn -q -B dependency:copy -Dartifact="$jar" -DoutputDirectory="$2" || return 1
	done
}
if part jars "$jars" "$cache/jars" jars; then
	export TAPEHOUSE_JODA_TIME_JAR=$cache/jars/joda-time-2.14.2.jar
	export TAPEHOUSE_SNAPPY_JAVA_JAR=$cache/jars/snappy-java-1.1.10.8.jar
	export TAPEHOUSE_POSTGRESQL_JAR=$cache/jars/postgresql-42.7.4.jar
fi

# Spark, with Iceberg's connector and the AWS SDK that it signs with. PySpark has
# Spark's jars in it.
pyspark=4.1.4
icebergjars="org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.12.0 org.apache.iceberg:iceberg-aws-bundle:1.12.0"
spark() {
	local jar
	fetch "$1" python3 -m venv "$2" && fetch "$1" "$2/bin/python3" -m pip install --quiet --disable-pip-version-check "pyspark==$pyspark" || return 1
	for jar in $icebergjars; do
		fetch "$1" mvn -q -B dependency:copy -Dartifact="$jar" -DoutputDirectory="$2/iceberg" || return 1
	done
}
if part spark "$pyspark $icebergjars" "$cache/spark" spark; then
	export TAPEHOUSE_SPARK_PYTHON=$cache/spark/bin/python3
	TAPEHOUSE_ICEBERG_SPARK_JARS=$(printf '%s\n' "$cache"/spark/iceberg/*.jar | paste -sd, -)
	export TAPEHOUSE_ICEBERG_SPARK_JARS
fi

# AWS's runtime interface emulator, which runs a Lambda function.
emulator=github.com/aws/aws-lambda-runtime-interface-emulator/cmd/aws-lambda-rie@v0.0.0-20261030222936-bef5c4ba774d
emulator() { (cd "$cache" && GOBIN=$2 GOFLAGS= fetch "$1" "${GO:-go}" install "$emulator"); }
part emulator "$emulator" "$cache/emulator" emulator && ln -sf "$cache/emulator/aws-lambda-rie" "$cache/bin/aws-lambda-rie"

sh tools/promtool.sh

# Terraform comes from no registry of packages: it is used where it is. Its AWS
# provider lies in a mirror, which these places may have.
if [ -z "${TF_PLUGIN_MIRROR:-}" ]; then
	for mirror in "$HOME/.terraform.d/plugins" /usr/local/share/terraform/plugins /usr/share/terraform/plugins /opt/*; do
		[ -d "$mirror/registry.terraform.io/hashicorp/aws" ] && export TF_PLUGIN_MIRROR=$mirror && break
	done
fi

export PATH=$cache/bin:$root/bin:$PATH
tests=${RUN:-'^Test(JDBC|Terraform|TerraformGlue|GlueOperations|PyIcebergGlue|Boto3|Boto3Operations|AWSCLI|EveryOperation|CLI|CLIOperations|Model|BotocoreSignatures|OtherReaders|IcebergReaders|KeyedTableInPyIceberg|IcebergRESTPython|IcebergRESTPythonS3|IcebergRESTSpark|AgainstJoda|ReadersOfOthers|RuntimeEmulator|PythonFunction|EveryAlertIsFired)$'}
packages='./internal/auth ./internal/columnar ./internal/firehose ./internal/object ./internal/serde ./internal/transform ./internal/server ./deploy'
log=$cache/tests.log
# -count=1: a cached result knows nothing of another version of a client.
# shellcheck disable=SC2086 # several packages
"${GO:-go}" test -tags interop -count=1 -timeout 12m -v -run "$tests" $packages >"$log" 2>&1
status=$?
grep -E '^ *--- |^(ok|FAIL|panic:)' "$log"
[ "$status" = 0 ] || cat "$log"
grep -o 'SKIPPED: .*' "$log" | sort -u
exit "$status"
