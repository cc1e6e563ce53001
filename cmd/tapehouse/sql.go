package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/spf13/cobra"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/terminal"
)

const (
	// scriptSizeBytesMax bounds what is read from standard input.
	scriptSizeBytesMax = 16 << 20
	// alignedRowsMax is how many rows are aligned with each other; a longer
	// result has its head again.
	alignedRowsMax = 5000
)

func newSQL() *cobra.Command {
	var f dataFlags
	var asCSV, asJSON bool
	c := &cobra.Command{
		Use:     "sql [STATEMENTS]",
		GroupID: groupData,
		Short:   "Run SQL statements over the PostgreSQL protocol",
		Long: `Runs the statements given, or those on standard input, and prints each result as
an aligned table, as CSV, or as JSON: an object a row. In JSON, integers are
numbers; decimals are strings, which keep every digit. It is no more than a
convenience: any PostgreSQL client works, see tapehouse env.

Without a running server the command opens the data directory itself.

` + exitCodes,
		Example: `  tapehouse sql "select fee_code, sum(quantity) from equities.executions group by 1"
  tapehouse sql --csv < report.sql > report.csv
  tapehouse sql                  one statement after another; end each with ;`,
		Args: atMostOne,
		RunE: func(c *cobra.Command, args []string) error {
			if asCSV && asJSON {
				return usagef("--csv or --json, not both")
			}
			write := writeAligned
			switch {
			case asCSV:
				write = writeCSV
			case asJSON:
				write = writeRowsJSON
			}
			return withServer(c.Context(), f, true, c.ErrOrStderr(), func(s *console.Client) error {
				conn, err := connectSQL(c.Context(), f, s.Endpoints())
				if err != nil {
					return err
				}
				defer func() { _ = conn.Close(context.WithoutCancel(c.Context())) }()
				if len(args) == 1 {
					return runSQL(c.Context(), conn, args[0], c.OutOrStdout(), write)
				}
				if in, ok := c.InOrStdin().(*os.File); ok && terminal.Is(in) {
					return interactSQL(c, conn, in, write)
				}
				script, err := io.ReadAll(io.LimitReader(c.InOrStdin(), scriptSizeBytesMax+1))
				if err != nil {
					return fmt.Errorf("read standard input: %w", err)
				}
				if len(script) > scriptSizeBytesMax {
					return fmt.Errorf("standard input is longer than %s", terminal.Bytes(scriptSizeBytesMax))
				}
				return runSQL(c.Context(), conn, string(script), c.OutOrStdout(), write)
			})
		},
	}
	f.add(c)
	c.Flags().BoolVar(&asCSV, "csv", false, "print CSV")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, a line a row")
	return c
}

func connectSQL(ctx context.Context, f dataFlags, e console.Endpoints) (*pgconn.PgConn, error) {
	cfg, err := f.load()
	if err != nil {
		return nil, err
	}
	credentials, err := auth.Load(disk, cfg.Data)
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(e.SQL)
	if err != nil {
		return nil, fmt.Errorf("address of the SQL port: %w", err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("address of the SQL port: %w", err)
	}
	mode := "disable"
	if e.TLS {
		mode = "require"
	}
	pc, err := pgconn.ParseConfig("sslmode=" + mode)
	if err != nil {
		return nil, err
	}
	pc.Host, pc.Port, pc.Database = host, uint16(n), e.Database
	if pc.Database == "" {
		pc.Database = console.DefaultDatabase
	}
	pc.User, pc.Password = credentials.Users[0].Name, credentials.Users[0].Password
	pc.Fallbacks = nil
	if e.TLS {
		pc.TLSConfig = e.TLSConfig()
	}
	pc.RuntimeParams["application_name"] = "tapehouse sql"
	return pgconn.ConnectConfig(ctx, pc)
}

// resultWriter writes one result that has columns.
type resultWriter func(out io.Writer, r *pgconn.ResultReader) error

// runSQL runs a script by the simple protocol: statement by statement, up to
// the first that fails.
func runSQL(ctx context.Context, conn *pgconn.PgConn, script string, out io.Writer, write resultWriter) (err error) {
	if strings.TrimSpace(script) == "" {
		return usagef("no statement given")
	}
	m := conn.Exec(ctx, script)
	defer func() {
		if e := m.Close(); err == nil {
			err = sqlError(e)
		}
	}()
	for m.NextResult() {
		r := m.ResultReader()
		if len(r.FieldDescriptions()) > 0 {
			if err := write(out, r); err != nil {
				return err
			}
		}
		tag, err := r.Close()
		if err != nil {
			return sqlError(err)
		}
		if text := tag.String(); !tag.Select() && text != "" {
			fmt.Fprintln(os.Stderr, text)
		}
	}
	return nil
}

// sqlError adds what a server says beside the message.
func sqlError(err error) error {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return err
	}
	text := fmt.Sprintf("%s: %s (SQLSTATE %s)", strings.ToLower(e.Severity), e.Message, e.Code)
	if e.Position > 0 {
		text += fmt.Sprintf("\n  at character %d", e.Position)
	}
	if e.Detail != "" {
		text += "\n  " + e.Detail
	}
	if e.Hint != "" {
		text += "\n  → " + e.Hint
	}
	return errors.New(text)
}

// numeric reports whether values of the type are shown to the right.
func numeric(oid uint32) bool {
	switch oid {
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.NumericOID, pgtype.Float4OID, pgtype.Float8OID:
		return true
	}
	return false
}

func writeAligned(out io.Writer, r *pgconn.ResultReader) error {
	t := terminal.Table{}
	for _, f := range r.FieldDescriptions() {
		t.Columns = append(t.Columns, terminal.Column{Name: f.Name, Right: numeric(f.DataTypeOID)})
	}
	total := 0
	for r.NextRow() {
		cells := make([]string, len(t.Columns))
		for i, v := range r.Values() {
			cells[i] = string(v)
		}
		t.Rows = append(t.Rows, cells)
		if total++; len(t.Rows) == alignedRowsMax {
			if err := t.Write(out); err != nil {
				return err
			}
			t.Rows = t.Rows[:0]
		}
	}
	if total == 0 || len(t.Rows) > 0 {
		if err := t.Write(out); err != nil {
			return err
		}
	}
	unit := "rows"
	if total == 1 {
		unit = "row"
	}
	_, err := fmt.Fprintf(out, "(%s %s)\n", terminal.Count(int64(total)), unit)
	return err
}

func writeCSV(out io.Writer, r *pgconn.ResultReader) error {
	w := csv.NewWriter(out)
	row := []string(nil)
	for _, f := range r.FieldDescriptions() {
		row = append(row, f.Name)
	}
	if err := w.Write(row); err != nil {
		return err
	}
	for r.NextRow() {
		for i, v := range r.Values() {
			row[i] = string(v)
		}
		if err := w.Write(row); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

func writeRowsJSON(out io.Writer, r *pgconn.ResultReader) error {
	w := bufio.NewWriterSize(out, 1<<16)
	fields := r.FieldDescriptions()
	names := make([][]byte, len(fields))
	for i, f := range fields {
		name, err := json.Marshal(f.Name)
		if err != nil {
			return err
		}
		names[i] = append(name, ':')
	}
	for r.NextRow() {
		_ = w.WriteByte('{') // the writer keeps its first error
		for i, v := range r.Values() {
			if i > 0 {
				_ = w.WriteByte(',')
			}
			_, _ = w.Write(names[i])
			text, err := jsonValue(v, fields[i].DataTypeOID)
			if err != nil {
				return err
			}
			_, _ = w.Write(text)
		}
		_, _ = w.WriteString("}\n")
	}
	return w.Flush()
}

func jsonValue(v []byte, oid uint32) ([]byte, error) {
	switch {
	case v == nil:
		return []byte("null"), nil
	case oid == pgtype.BoolOID:
		return strconv.AppendBool(nil, string(v) == "t"), nil
	case oid == pgtype.Int2OID || oid == pgtype.Int4OID || oid == pgtype.Int8OID:
		return v, nil
	case (oid == pgtype.Float4OID || oid == pgtype.Float8OID) && json.Valid(v): // NaN is none
		return v, nil
	}
	return json.Marshal(string(v))
}

// interactSQL reads statements from a person. An error of one does not end the
// conversation.
func interactSQL(c *cobra.Command, conn *pgconn.PgConn, in io.Reader, write resultWriter) error {
	out, errs := c.OutOrStdout(), c.ErrOrStderr()
	fmt.Fprintln(errs, "One statement after another; end each with ;  Leave with \\q or Ctrl-D.")
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), 1<<20)
	var statement strings.Builder
	for {
		prompt := "tapehouse> "
		if statement.Len() > 0 {
			prompt = "        -> "
		}
		fmt.Fprint(errs, prompt)
		if !lines.Scan() {
			fmt.Fprintln(errs)
			return lines.Err()
		}
		line := lines.Text()
		if statement.Len() == 0 {
			switch strings.TrimSpace(line) {
			case "":
				continue
			case `\q`, "exit", "quit":
				return nil
			}
		}
		statement.WriteString(line + "\n")
		if !strings.HasSuffix(strings.TrimSpace(line), ";") {
			continue
		}
		if err := runSQL(c.Context(), conn, statement.String(), out, write); err != nil {
			if c.Context().Err() != nil || conn.IsClosed() {
				return err
			}
			fmt.Fprintln(errs, err)
		}
		statement.Reset()
	}
}
