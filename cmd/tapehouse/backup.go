package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapehouse/tapehouse/internal/backup"
	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/server"
	"github.com/tapehouse/tapehouse/internal/terminal"
)

func newBackup() *cobra.Command {
	var f dataFlags
	var q console.BackupRequest
	var asJSON bool
	c := &cobra.Command{
		Use:     "backup --to DIR|s3://BUCKET/PREFIX",
		GroupID: groupData,
		Short:   "Copy catalog, log and lake at one point, while the server works",
		Long: `Makes a backup of the data directory at one point: what was acknowledged before is
in it, each record once. The server goes on meanwhile. The next backup to the same
place copies what is new. tapehouse restore brings a point back and verifies it.

Of a lake on S3 the tables' files are left there, unless --with-lake is given. The
place on S3 is reached with the credentials and the endpoint of the lake's.

Without a running server the command opens the data directory itself.

` + exitCodes,
		Example: `  tapehouse backup --to /backup/tapehouse
  tapehouse restore --from /backup/tapehouse --data /srv/tapehouse`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			if q.To, err = backupPlace(q.To, "--to"); err != nil {
				return err
			}
			return withServer(c.Context(), f, true, c.ErrOrStderr(), func(s *console.Client) error {
				stop := followBackup(c.Context(), s, c.ErrOrStderr())
				v, err := s.Backup(c.Context(), q)
				stop()
				if err != nil {
					return err
				}
				return show(c, asJSON, v)
			})
		},
	}
	f.add(c)
	c.Flags().StringVar(&q.To, "to", "", "a directory, or s3://bucket/prefix")
	c.Flags().BoolVar(&q.WithLake, "with-lake", false, "copy the tables' files of a lake on S3 too")
	c.Flags().BoolVar(&q.WithoutCredentials, "without-credentials", false, "leave keys and passwords out; a restored server makes new ones")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// backupPlace makes a path absolute.
func backupPlace(where, flag string) (string, error) {
	if where == "" {
		return "", usagef("want %s: a directory, or s3://bucket/prefix", flag)
	}
	if strings.HasPrefix(where, "s3://") {
		return where, nil
	}
	return filepath.Abs(where)
}

// followBackup shows how far the server's backup is, until stop is called.
func followBackup(ctx context.Context, s *console.Client, w io.Writer) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	line := terminal.NewProgress(w, 10*time.Second)
	go func() {
		defer close(done)
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if v, err := s.BackupStatus(ctx); err == nil && v.Running {
				line.Set(progressLine("backing up", v.Files, v.FilesAll, v.Bytes))
			}
		}
	}()
	return func() {
		cancel()
		<-done
		line.Clear()
	}
}

func progressLine(what string, files, all int, bytes int64) string {
	return fmt.Sprintf("%s: %s of %s files, %s copied", what, terminal.Count(int64(files)), terminal.Count(int64(all)), terminal.Bytes(bytes))
}

// restoreReport is what tapehouse restore did.
type restoreReport struct {
	ID       string                 `json:"id"`
	TakenAt  time.Time              `json:"taken_at"`
	Data     string                 `json:"data"`
	Files    int                    `json:"files"`
	Bytes    int64                  `json:"bytes"`
	Seconds  float64                `json:"seconds"` // of copying
	Moved    string                 `json:"moved_from,omitempty"`
	Verified []console.Verification `json:"verified"`
	Ready    float64                `json:"recovery_seconds"` // of the start and of what it verified
}

// WriteText writes it for people.
func (r restoreReport) WriteText(w io.Writer) error {
	took := func(s float64) string { return terminal.Took(time.Duration(s * float64(time.Second))) }
	fmt.Fprintf(w, `Restored %s into %s
  point        %s: what was acknowledged before is in it
  files        %s, %s, each with the manifest's SHA-256, in %s
  recovery     %s, sealed trade dates included
`, r.ID, r.Data, r.TakenAt.UTC().Format("2006-01-02 15:04:05.000Z"), terminal.Count(int64(r.Files)), terminal.Bytes(r.Bytes), took(r.Seconds), took(r.Ready))
	for _, v := range r.Verified {
		mark := "✓"
		if !v.OK {
			mark = "✗"
		}
		fmt.Fprintf(w, "  %s sealed     %s, version %d, %s rows\n", mark, v.TradeDate, v.Version, terminal.Count(v.Rows))
	}
	if len(r.Verified) == 0 {
		fmt.Fprintln(w, "  sealed       no trade date yet")
	}
	if r.Moved != "" {
		fmt.Fprintf(w, "\nThe directory was %s. Tapehouse reads the tables here all the same; other engines need the lake under the former path:\n  ln -s %s %s\n",
			r.Moved, terminal.ShellWord(filepath.Join(r.Data, "lake")), terminal.ShellWord(filepath.Join(r.Moved, "lake")))
	}
	_, err := fmt.Fprintf(w, "\nStart it with: tapehouse serve --data %s\n", terminal.ShellWord(r.Data))
	return err
}

func newRestore() *cobra.Command {
	var f dataFlags
	var from, point string
	var list, asJSON bool
	c := &cobra.Command{
		Use:     "restore --from DIR|s3://BUCKET/PREFIX --data DIR",
		GroupID: groupData,
		Short:   "Bring a backup back into an empty directory, and verify it",
		Long: `Brings a point of a backup back into an empty data directory, compares every file
with its SHA-256, recovers as after a crash, and verifies every sealed trade date
against its certificate. The exit status says whether all of it holds.

The original must not run any more where both would write to one lake on S3.

` + exitCodes,
		Example: `  tapehouse restore --from /backup/tapehouse --data /srv/tapehouse
  tapehouse restore --from /backup/tapehouse --list
  tapehouse restore --from s3://bucket/tapehouse --point 20261127T173412Z --data /srv/tapehouse --config tapehouse.yaml`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			place, err := backupPlace(from, "--from")
			if err != nil {
				return err
			}
			cfg, err := f.load()
			if err != nil {
				return err
			}
			store, shut, err := server.OpenBackup(c.Context(), cfg, place)
			if err != nil {
				return err
			}
			defer shut()
			if list {
				ids, err := backup.Points(c.Context(), store)
				for _, id := range ids {
					fmt.Fprintln(c.OutOrStdout(), id)
				}
				return err
			}
			m, err := backup.Load(c.Context(), store, point)
			if err != nil {
				return err
			}
			if cfg.Data, err = filepath.Abs(cfg.Data); err != nil {
				return err
			}
			line := terminal.NewProgress(c.ErrOrStderr(), 10*time.Second)
			done, err := backup.Restore(c.Context(), store, m, cfg.Data, func(p backup.Progress) {
				line.Set(progressLine("restoring", p.Files, p.FilesAll, p.Bytes))
			})
			line.Clear()
			if err != nil {
				return err
			}
			r := restoreReport{ID: m.ID, TakenAt: m.TakenAt, Data: cfg.Data, Files: done.Files, Bytes: done.Bytes, Seconds: done.Took.Seconds()}
			if done.Moved {
				r.Moved = m.Data
			}
			f.data = cfg.Data
			start := time.Now()
			if r.Verified, err = verifySealed(c, f); err != nil {
				return fmt.Errorf("the files are back in %s, but: %w", cfg.Data, err)
			}
			r.Ready = time.Since(start).Seconds()
			if err := show(c, asJSON, r); err != nil {
				return err
			}
			for _, v := range r.Verified {
				if !v.OK {
					return &codeError{exitMismatch, errors.New("a sealed trade date does not verify")}
				}
			}
			return nil
		},
	}
	f.add(c)
	c.Flags().StringVar(&from, "from", "", "where backups lie: a directory, or s3://bucket/prefix")
	c.Flags().StringVar(&point, "point", "", "which of them (default: the latest)")
	c.Flags().BoolVar(&list, "list", false, "list the points, and restore nothing")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// verifySealed starts on the directory and verifies every sealed trade date.
func verifySealed(c *cobra.Command, f dataFlags) (out []console.Verification, err error) {
	out = []console.Verification{}
	err = withServer(c.Context(), f, true, c.ErrOrStderr(), func(s *console.Client) error {
		all, err := s.Status(c.Context(), console.StatusRequest{})
		if err != nil {
			return err
		}
		for _, d := range all.TradeDates {
			if d.SealedAt == nil {
				continue
			}
			v, err := s.Verify(c.Context(), console.VerifyRequest{TradeDate: d.TradeDate})
			if err != nil {
				return fmt.Errorf("verify %s: %w", d.TradeDate, err)
			}
			out = append(out, v)
		}
		return nil
	})
	return out, err
}
