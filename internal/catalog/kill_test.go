package catalog

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/record"
)

// killDirEnv makes the test binary commit for ever in the directory it names.
const killDirEnv = "TAPEHOUSE_TEST_KILL_DIR"

// The catalog of that process: its lake's directory or S3 endpoint, the URL of its
// PostgreSQL database (without: it is SQLite), the shard that it feeds.
const (
	killLakeEnv  = "TAPEHOUSE_TEST_KILL_LAKE"
	killURLEnv   = "TAPEHOUSE_TEST_KILL_URL"
	killShardEnv = "TAPEHOUSE_TEST_KILL_SHARD"
)

// startKillable starts a process that commits for ever.
func startKillable(t *testing.T, w *world, at string, shard int) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), killDirEnv+"="+w.dir, killLakeEnv+"="+at, killURLEnv+"="+w.postgres, killShardEnv+"="+strconv.Itoa(shard))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// TestKill kills a committing process with SIGKILL, several times: what it
// acknowledged is there, and the rows are those of the progress, each once.
func TestKill(t *testing.T) {
	if dir := os.Getenv(killDirEnv); dir != "" {
		commitForEver(t, dir)
		return
	}
	w := newWorld(t)
	c := w.open()
	mustCreate(t, c, executionsSpec(executions))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	acked := 0
	for round := range 4 {
		cmd, lines := startKillable(t, w, filepath.Join(w.dir, "lake"), 0)
		var err error
		for n := 0; n < 3+5*round && lines.Scan(); n++ {
			if acked, err = strconv.Atoi(lines.Text()); err != nil {
				t.Fatalf("the process says %q", lines.Text())
			}
		}
		time.Sleep(time.Duration(round) * 3 * time.Millisecond) // somewhere in a commit
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
			if n, err := strconv.Atoi(lines.Text()); err == nil {
				acked = n
			}
		}
		_ = cmd.Wait() // killed

		c := w.open()
		tbl, err := c.Load(t.Context(), executions)
		if err != nil {
			t.Fatal(err)
		}
		through := int(tbl.Through()[key0])
		if through < acked || through > acked+1 {
			t.Errorf("through %d after %d was acknowledged", through, acked)
		}
		if rows := rowsOf(files(t, c, tbl, At{})); rows != int64(through) {
			t.Errorf("%d rows at through %d", rows, through)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if acked == 0 {
		t.Error("nothing was committed")
	}
}

// shardKey is the progress of a process's shard.
func shardKey(shard int) record.Key {
	return record.Key{Incarnation: key0.Incarnation, Shard: record.Shard(shard)}
}

// ownTable is a table that only one shard feeds.
func ownTable(shard int) Name { return Name{"equities", fmt.Sprintf("own_%d", shard)} }

// commitForEver commits, again and again, one row to the common table, one to the
// shard's own table if there is one, and a version of a document that counts.
func commitForEver(t *testing.T, dir string) {
	ctx := context.Background()
	var store lake.Store
	var err error
	if at := os.Getenv(killLakeEnv); strings.HasPrefix(at, "http") {
		store, err = openS3(ctx, "lake", at)
	} else {
		store, err = lake.OpenLocal(fsys.OS, at)
	}
	if err != nil {
		t.Fatal(err)
	}
	shard, err := strconv.Atoi(os.Getenv(killShardEnv))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(ctx, Options{Dir: dir, Postgres: os.Getenv(killURLEnv), Warehouse: store, Owner: "to be killed"})
	if err != nil {
		t.Fatal(err)
	}
	names := []Name{executions}
	if _, err := c.Load(ctx, ownTable(shard)); err == nil {
		names = append(names, ownTable(shard))
	}
	tables, err := c.LoadAll(ctx, names)
	if err != nil {
		t.Fatal(err)
	}
	key := shardKey(shard)
	for n := int(tables[0].Through()[key]); ; n++ {
		var commits []Commit
		for _, tbl := range tables {
			f := ghost(tbl, date0, int64(n), 1)
			f.Path = fmt.Sprintf("%s/%d-%d.parquet", tbl.DataDir(), n, os.Getpid())
			commits = append(commits, Commit{Table: tbl.Name, Add: []NewFile{f}, Through: record.Vector{key: record.Offset(n + 1)}, RequireThrough: &record.Vector{key: record.Offset(n)}})
		}
		if _, err := c.Commit(ctx, commits, counted(shard, n+1)); err != nil {
			t.Fatal(err)
		}
		fmt.Println(n + 1)
	}
}

// counted writes a document whose version is the number of times it was written.
func counted(shard, n int) DocumentWrite {
	return DocumentWrite{Kind: "count", Key: strconv.Itoa(shard), IfVersion: AnyVersion, Body: json.RawMessage(strconv.Itoa(n)), KeepVersions: 1}
}
