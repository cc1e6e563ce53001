package catalog

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/record"
)

// killDirEnv makes the test binary commit for ever in the directory it names.
const killDirEnv = "TAPEHOUSE_TEST_KILL_DIR"

// killURLEnv names the PostgreSQL database of its catalog; without, it is SQLite.
const killURLEnv = "TAPEHOUSE_TEST_KILL_URL"

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
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), killDirEnv+"="+w.dir, killURLEnv+"="+w.postgres)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
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

func commitForEver(t *testing.T, dir string) {
	ctx := context.Background()
	store, err := lake.OpenLocal(fsys.OS, filepath.Join(dir, "lake"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(ctx, Options{Dir: dir, Postgres: os.Getenv(killURLEnv), Warehouse: store, Owner: "to be killed"})
	if err != nil {
		t.Fatal(err)
	}
	tbl, err := c.Load(ctx, executions)
	if err != nil {
		t.Fatal(err)
	}
	for n := int(tbl.Through()[key0]); ; n++ {
		f := ghost(tbl, date0, int64(n), 1)
		f.Path = fmt.Sprintf("%s/%d-%d.parquet", tbl.DataDir(), n, os.Getpid())
		if _, err := c.Commit(ctx, []Commit{{Table: executions, Add: []NewFile{f}, Through: record.Vector{key0: record.Offset(n + 1)}, RequireThrough: ptr(through(n))}}); err != nil {
			t.Fatal(err)
		}
		fmt.Println(n + 1)
	}
}
