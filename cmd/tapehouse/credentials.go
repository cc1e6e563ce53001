package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/terminal"
)

// overlapDefault is how long a rotated key stays valid: a day to change over.
const overlapDefault = 24 * time.Hour

func newCredentials() *cobra.Command {
	c := &cobra.Command{
		Use:     "credentials",
		GroupID: groupStart,
		Short:   "Create, list, rotate and revoke keys and SQL users",
		Long: `Keeps the principals of a data directory: access keys of the AWS APIs, and users of
SQL and the console. Each has a name and may do what it was created for, and
nothing else: a key with the operations "put" cannot even list the streams. The
first start of the server makes one of each that may do everything.

The commands change DIR/credentials.json (mode 0600) as one step, whether or not a
server runs on it; run them as the user whom the file belongs to. A running
server needs no restart: a new key works at once, a revoked one is refused within
a second.

` + exitCodes,
		Example: `  tapehouse credentials create feed --operations put --streams 'orders-*'
  eval "$(tapehouse env --credential feed)"
  tapehouse credentials rotate feed --overlap 24h
  tapehouse credentials list`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newCredentialsCreate(), newCredentialsList(), newCredentialsRotate(), newCredentialsRevoke())
	return c
}

// keeper returns the keeper of the configured data directory.
func (f *dataFlags) keeper() (*auth.Keeper, error) {
	cfg, err := f.load()
	if err != nil {
		return nil, err
	}
	if _, err := disk.Stat(filepath.Join(cfg.Data, auth.CredentialsFile)); errors.Is(err, fs.ErrNotExist) {
		_, err = loadCredentials(cfg.Data)
		return nil, err
	}
	return &auth.Keeper{FS: disk, Dir: cfg.Data}, nil
}

// kindOf chooses between the two lists.
func kindOf(sql bool) auth.Kind {
	if sql {
		return auth.KindSQL
	}
	return auth.KindAWS
}

// issueFlags say where a new secret goes.
type issueFlags struct {
	out    string
	asJSON bool
}

func (f *issueFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.out, "out", "", "write the variables with the secret to this new file (mode 0600) instead of printing the secret")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
}

// issued is the JSON of a new secret.
type issued struct {
	Name         string    `json:"name"`
	Kind         auth.Kind `json:"kind"`
	AccessKeyID  string    `json:"access_key_id,omitempty"`
	SecretKey    string    `json:"secret_access_key,omitempty"`
	Password     string    `json:"password,omitempty"`
	OldKeyID     string    `json:"old_access_key_id,omitempty"`
	OldExpiresAt time.Time `json:"old_expires_at,omitzero"`
	File         string    `json:"file,omitempty"`
}

// issue makes a secret and hands it over: to the file of --out, which must not
// exist and is reserved first, or to the standard output, once.
func (f *issueFlags) issue(c *cobra.Command, data *dataFlags, make func(context.Context, *auth.Keeper) (auth.Issued, error), say func(io.Writer, auth.Issued)) (err error) {
	k, err := data.keeper()
	if err != nil {
		return err
	}
	var file *os.File
	if f.out != "" {
		if file, err = os.OpenFile(f.out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
	}
	made, err := make(c.Context(), k)
	if err != nil {
		if file != nil {
			_ = file.Close()
			_ = os.Remove(f.out) // it is empty, and was made by us
		}
		return err
	}
	j := issued{Name: made.Name, Kind: made.Kind, AccessKeyID: made.ID, OldKeyID: made.OldID, OldExpiresAt: made.OldExpiresAt, File: f.out}
	out := c.OutOrStdout()
	if file != nil {
		if err := writeEnvFile(file, data, made); err != nil {
			return fmt.Errorf("the credential was made, but not written to %s: %w; tapehouse env --credential %s prints it", f.out, err, terminal.ShellWord(made.Name))
		}
	} else if made.Kind == auth.KindSQL {
		j.Password = made.Secret
	} else {
		j.SecretKey = made.Secret
	}
	if f.asJSON {
		return printJSON(out, j)
	}
	say(out, made)
	switch {
	case file != nil:
		fmt.Fprintf(out, "  written to %s\n", f.out)
	case made.Kind == auth.KindSQL:
		fmt.Fprintf(out, "  PGUSER      %s\n  PGPASSWORD  %s\n", made.Name, made.Secret)
	default:
		fmt.Fprintf(out, "  AWS_ACCESS_KEY_ID      %s\n  AWS_SECRET_ACCESS_KEY  %s\n", made.ID, made.Secret)
	}
	return nil
}

// writeEnvFile writes NAME=value lines, as systemd and containers read them, and
// closes the file. No value needs quotes: they are addresses, names and random
// letters.
func writeEnvFile(file *os.File, data *dataFlags, made auth.Issued) (err error) {
	defer func() { err = errors.Join(err, file.Close()) }()
	cfg, err := data.load()
	if err != nil {
		return err
	}
	e, err := endpoints(cfg)
	if err != nil {
		return err
	}
	only := &auth.Credentials{}
	if made.Kind == auth.KindSQL {
		only.Users = []auth.SQLUser{{Name: made.Name, Password: made.Secret}}
	} else {
		only.Keys = []auth.AccessKey{{Name: made.Name, ID: made.ID, Secret: made.Secret}}
	}
	vars, err := only.Env(auth.Endpoints{AWSURL: e.AWSURL(), Region: e.Region, SQLAddr: e.SQL, Database: e.Database})
	if err != nil {
		return err
	}
	for _, v := range vars {
		if _, err := fmt.Fprintf(file, "%s=%s\n", v.Name, v.Value); err != nil {
			return err
		}
	}
	return file.Sync()
}

func newCredentialsCreate() *cobra.Command {
	var f dataFlags
	var to issueFlags
	var sql bool
	var service string
	var operations, streams []string
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a named access key or SQL user",
		Long: `Creates a principal with a random secret, which is printed once.

An access key may do the operations of --operations on the streams of --streams:

  put      PutRecord, PutRecordBatch
  read     Describe…, List…
  admin    Create…, Delete…, UpdateDestination, encryption, tags

or operations by name ("PutRecord", "Describe*"), or "*" for all. The groups do
not hold each other. ListDeliveryStreams is about all streams, so that it needs
--streams '*'.

With --sql it is a user: "connect" is a SQL session, "read" is the console's status
and explain-charge, "admin" is seal, waive, verify and statements.`,
		Example: `  tapehouse credentials create feed --operations put --streams 'orders-*'
  tapehouse credentials create terraform --operations read,admin
  tapehouse credentials create feed --operations put --out /etc/feed.env
  tapehouse credentials create analyst --sql --operations connect`,
		Args: argsExactly(1, "a name"),
		RunE: func(c *cobra.Command, args []string) error {
			if sql {
				for _, name := range []string{"service", "streams"} {
					if c.Flags().Changed(name) {
						return usagef("--%s is about access keys: a SQL user has only --operations", name)
					}
				}
				service = "*"
				if !c.Flags().Changed("operations") {
					operations = []string{auth.GroupConnect, auth.GroupRead}
				}
			} else if !c.Flags().Changed("operations") {
				return usagef("--operations is required: put, read, admin, operations by name, or '*'")
			}
			grant := auth.Grant{Service: service, Operations: operations, Streams: streams}
			policy, err := auth.NewPolicy(grant)
			if err != nil {
				return &codeError{exitUsage, err}
			}
			return to.issue(c, &f, func(ctx context.Context, k *auth.Keeper) (auth.Issued, error) {
				return k.Create(ctx, kindOf(sql), args[0], grant)
			}, func(w io.Writer, made auth.Issued) {
				fmt.Fprintf(w, "Created %s, which may do: %s\n", made.Name, policy)
			})
		},
	}
	f.add(c)
	to.add(c)
	c.Flags().BoolVar(&sql, "sql", false, "a user of SQL and the console instead of an access key")
	c.Flags().StringVar(&service, "service", "firehose", "AWS service of the operations; * is all")
	c.Flags().StringSliceVar(&operations, "operations", nil, "what it may do (default with --sql: connect,read)")
	c.Flags().StringSliceVar(&streams, "streams", []string{"*"}, "delivery streams, by name or with * and ?")
	return c
}

func newCredentialsRotate() *cobra.Command {
	var f dataFlags
	var to issueFlags
	var sql bool
	var overlap time.Duration
	c := &cobra.Command{
		Use:   "rotate NAME",
		Short: "Give a name a new secret, beside the old one for a while",
		Long: `Makes a new secret for NAME. The old access key stays valid for --overlap and then
ends by itself, so that producers can change over without a failed put: rotate,
give every producer the new key, look with tapehouse credentials list when the old
one was last used, and let it end, or revoke it with --key.

A SQL password changes at once, because the protocol knows one password a user;
sessions that are open stay. To change over without a gap, create a second user,
move to it, and revoke the first.`,
		Example: `  tapehouse credentials rotate feed --overlap 48h --out /etc/feed.env
  tapehouse credentials rotate analyst --sql`,
		Args: argsExactly(1, "a name"),
		RunE: func(c *cobra.Command, args []string) error {
			if sql && c.Flags().Changed("overlap") {
				return usagef("a SQL password has no overlap: create a second user, move to it, and revoke %s", args[0])
			}
			if overlap < 0 || overlap > auth.OverlapMax {
				return usagef("--overlap: want 0 to %s, not %s", auth.OverlapMax, overlap)
			}
			return to.issue(c, &f, func(ctx context.Context, k *auth.Keeper) (auth.Issued, error) {
				return k.Rotate(ctx, kindOf(sql), args[0], overlap)
			}, func(w io.Writer, made auth.Issued) {
				fmt.Fprintf(w, "Rotated %s.", made.Name)
				switch {
				case made.OldID != "" && overlap > 0:
					fmt.Fprintf(w, " The key %s ends at %s.", made.OldID, made.OldExpiresAt.Format(time.RFC3339))
				case made.OldID != "":
					fmt.Fprintf(w, " The key %s has ended.", made.OldID)
				}
				fmt.Fprintln(w)
			})
		},
	}
	f.add(c)
	to.add(c)
	c.Flags().BoolVar(&sql, "sql", false, "the user of SQL and the console, not the access key")
	c.Flags().DurationVar(&overlap, "overlap", overlapDefault, "how long the old access key stays valid; 0 ends it at once")
	return c
}

func newCredentialsRevoke() *cobra.Command {
	var f dataFlags
	var sql, force bool
	var key string
	c := &cobra.Command{
		Use:   "revoke NAME",
		Short: "Take a name, or one of its keys, away",
		Long: `Takes away NAME with all its keys, or, with --key, one key of it. A running server
refuses it within a second, and ends the SQL sessions of a user.

A single key that was used within the last ten minutes is not revoked without
--force: whoever uses it has not changed over. Revoking the newer key of a rotation
takes the rotation back. The last principal that may do everything stays.`,
		Example: `  tapehouse credentials revoke feed
  tapehouse credentials revoke feed --key AKIAIOSFODNN7EXAMPLE
  tapehouse credentials revoke analyst --sql`,
		Args: argsExactly(1, "a name"),
		RunE: func(c *cobra.Command, args []string) error {
			if sql && key != "" {
				return usagef("--key is about access keys: a SQL user has one password")
			}
			k, err := f.keeper()
			if err != nil {
				return err
			}
			if err := k.Revoke(c.Context(), kindOf(sql), args[0], key, force); err != nil {
				return err
			}
			what := args[0]
			if key != "" {
				what = "the key " + key + " of " + what
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "Revoked %s.\n", what)
			return err
		},
	}
	f.add(c)
	c.Flags().BoolVar(&sql, "sql", false, "the user of SQL and the console, not the access key")
	c.Flags().StringVar(&key, "key", "", "one access key id instead of all of NAME")
	c.Flags().BoolVar(&force, "force", false, "also a --key that is in use")
	return c
}

// listed is the JSON of one line of the list.
type listed struct {
	Name        string       `json:"name"`
	Kind        auth.Kind    `json:"kind"`
	AccessKeyID string       `json:"access_key_id,omitempty"`
	Allow       []auth.Grant `json:"allow"`
	CreatedAt   time.Time    `json:"created_at,omitzero"`
	ExpiresAt   time.Time    `json:"expires_at,omitzero"`
	LastUsedAt  time.Time    `json:"last_used_at,omitzero"`
}

func newCredentialsList() *cobra.Command {
	var f dataFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "Show the names, what each may do, and when it was last used",
		Long: `Shows every access key and SQL user, without its secret. The last use is what the
server noted: while it runs, up to a minute late.`,
		Example: `  tapehouse credentials list
  tapehouse credentials list --json`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			k, err := f.keeper()
			if err != nil {
				return err
			}
			list, err := k.List()
			if err != nil {
				return err
			}
			if asJSON {
				out := make([]listed, len(list))
				for i, l := range list {
					out[i] = listed{l.Name, l.Kind, l.ID, l.Policy.Grants(), l.CreatedAt, l.ExpiresAt, l.LastUsedAt}
				}
				return printJSON(c.OutOrStdout(), out)
			}
			t := terminal.Table{Columns: []terminal.Column{terminal.Left("name"), terminal.Left("key"), terminal.Left("last used"), terminal.Left("ends"), terminal.Left("may do")}}
			for _, l := range list {
				key := l.ID
				if l.Kind == auth.KindSQL {
					key = "(SQL user)"
				}
				t.Add(l.Name, key, instant(l.LastUsedAt), instant(l.ExpiresAt), l.Policy.String())
			}
			return t.Write(c.OutOrStdout())
		},
	}
	f.add(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func instant(at time.Time) string {
	if at.IsZero() {
		return "never"
	}
	return at.UTC().Format("2006-01-02 15:04Z")
}
