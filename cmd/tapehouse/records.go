package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/tapehouse/tapehouse/internal/console"
)

func newTrace() *cobra.Command {
	var f dataFlags
	var asJSON bool
	c := &cobra.Command{
		Use:     "trace RECORD_ID",
		GroupID: groupData,
		Short:   "Say where a record is: log, table, file, objects, error output",
		Long: `Says where the record is that a put was answered with this RecordId: waiting in
the log, visible to SQL, in which data file and snapshot of which table, among
which objects, or in which error object and why.

Without a running server the command opens the data directory itself.

` + exitCodes,
		Example: `  tapehouse trace 0101a21ca962b57b46924d89db25951f4b00000000000000000000490124e5
  psql -c "SELECT record_stream, record_offset FROM equities.executions LIMIT 1"`,
		Args: argsExactly(1, "a RecordId"),
		RunE: func(c *cobra.Command, args []string) error {
			return withServer(c.Context(), f, true, c.ErrOrStderr(), func(s *console.Client) error {
				v, err := s.Trace(c.Context(), console.TraceRequest{RecordID: args[0]})
				if err != nil {
					return err
				}
				return show(c, asJSON, v)
			})
		},
	}
	f.add(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// replayFlags are those of tapehouse replay.
type replayFlags struct {
	dataFlags
	stream, object, from, offsets string
	show, asJSON                  bool
}

func newReplay() *cobra.Command {
	var f replayFlags
	c := &cobra.Command{
		Use:     "replay --stream STREAM [FILE…]",
		GroupID: groupData,
		Short:   "Put failed records again, corrected, each at most once",
		Long: `Puts records through a stream again, in the place of earlier ones: each at most
once, however often the command is given and whatever crashes in between. A
reject that is replaced so is resolved in the sequence ledger too.

FILE holds lines of the error output as they are, or corrected ones:
  {"recordId": "…", "data": {…}}        data is the record, or a string that holds it
--show prints a FILE of the error output in that form, ready to be corrected. "-"
is the standard input. --object takes an object of the stream's error output as it
is, for records that failed for a reason that is mended by now. --from takes a
range of a stream's log, within its retention.

` + exitCodes,
		Example: `  tapehouse replay --show tapehouse-data/lake/errors/executions/…/executions-1-… > fix.ndjson
  tapehouse replay --stream executions fix.ndjson
  tapehouse replay --stream executions --object errors/executions/…/executions-1-…
  tapehouse replay --stream masked --from executions --offsets 1000-1999`,
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, args) },
	}
	f.add(c)
	c.Flags().StringVar(&f.stream, "stream", "", "the stream that the records are put through")
	c.Flags().StringVar(&f.object, "object", "", "an object of the stream's error output, by its name in the bucket")
	c.Flags().StringVar(&f.from, "from", "", "a stream whose log is read")
	c.Flags().StringVar(&f.offsets, "offsets", "", "of --from: FIRST-LAST")
	c.Flags().BoolVar(&f.show, "show", false, "print the lines of FILE, ready to be corrected; puts nothing")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
	return c
}

func (f *replayFlags) run(c *cobra.Command, args []string) error {
	if f.show {
		if len(args) == 0 || f.stream != "" || f.object != "" || f.from != "" {
			return usagef("--show wants files, and nothing else")
		}
		return eachLine(c.InOrStdin(), args, func(name string, number int, line []byte) error {
			return showFailed(c.OutOrStdout(), name, number, line)
		})
	}
	given := 0
	for _, there := range []bool{len(args) > 0, f.object != "", f.from != ""} {
		if there {
			given++
		}
	}
	if f.stream == "" || given != 1 {
		return usagef("want --stream, and one of FILE…, --object and --from")
	}
	q := console.ReplayRequest{Stream: f.stream, Object: f.object}
	if f.from != "" {
		first, last, ok := strings.Cut(f.offsets, "-")
		if !ok {
			last = first
		}
		a, err1 := strconv.ParseInt(first, 10, 64)
		b, err2 := strconv.ParseInt(last, 10, 64)
		if err1 != nil || err2 != nil || a < 0 || b < a {
			return usagef("--offsets %q: want FIRST-LAST", f.offsets)
		}
		q.From = &console.ReplayRange{Stream: f.from, First: a, Last: b}
	}
	return withServer(c.Context(), f.dataFlags, false, c.ErrOrStderr(), func(s *console.Client) error {
		if len(args) == 0 {
			v, err := s.Replay(c.Context(), q)
			if err != nil {
				return err
			}
			return show(c, f.asJSON, v)
		}
		v, err := f.files(c, s, args)
		if err != nil {
			if v.Put+v.Known > 0 {
				err = fmt.Errorf("%w (%d records were put before, %d were known; give the command again: nothing is put twice)", err, v.Put, v.Known)
			}
			return err
		}
		if err := show(c, f.asJSON, v); err != nil {
			return err
		}
		if v.RefusedCount > 0 {
			return &codeError{exitFailure, nil}
		}
		return nil
	})
}

// files sends the lines of files in requests that the server takes.
func (f *replayFlags) files(c *cobra.Command, s *console.Client, names []string) (total console.Replay, err error) {
	total.Stream = f.stream
	var lines []json.RawMessage
	var numbers []int64
	size := 0
	send := func() error {
		if len(lines) == 0 {
			return nil
		}
		v, err := s.Replay(c.Context(), console.ReplayRequest{Stream: f.stream, Lines: lines})
		if err != nil {
			return err
		}
		total.Put += v.Put
		total.Known += v.Known
		for _, r := range v.Refused {
			total.Refuse(numbers[r.Line-1], r.Reason)
		}
		total.RefusedCount += v.RefusedCount - int64(len(v.Refused))
		lines, numbers, size = nil, nil, 0
		return nil
	}
	err = eachLine(c.InOrStdin(), names, func(_ string, number int, line []byte) error {
		if !json.Valid(line) {
			total.Refuse(int64(number), "it is no JSON")
			return nil
		}
		if len(lines) == console.ReplayLinesMax || size+len(line) > console.ReplayBytesMax-1<<20 {
			if err := send(); err != nil {
				return err
			}
		}
		lines, numbers, size = append(lines, append(json.RawMessage(nil), line...)), append(numbers, int64(number)), size+len(line)+1
		return nil
	})
	if err == nil {
		err = send()
	}
	return total, err
}

// lineBytesMax bounds a line: the largest record in base64 and what is about it.
const lineBytesMax = 2 << 20

// eachLine calls fn for the lines of files, numbered from 1 in each; empty ones
// are passed over.
func eachLine(in io.Reader, names []string, fn func(name string, number int, line []byte) error) error {
	for _, name := range names {
		if err := func() (err error) {
			r := in
			if name != "-" {
				file, err := os.Open(name)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, file.Close()) }()
				r = file
			}
			s := bufio.NewScanner(r)
			s.Buffer(nil, lineBytesMax)
			number := 0
			for s.Scan() {
				number++
				if line := strings.TrimSpace(s.Text()); line != "" {
					if err := fn(name, number, []byte(line)); err != nil {
						return err
					}
				}
			}
			if err := s.Err(); err != nil {
				return fmt.Errorf("%s: line %d: %w", name, number+1, err)
			}
			return nil
		}(); err != nil {
			return err
		}
	}
	return nil
}

// corrected is a line that is ready to be corrected: what failed, and why.
type corrected struct {
	RecordID string          `json:"recordId"`
	Code     string          `json:"code,omitempty"`
	Message  string          `json:"message,omitempty"`
	Data     json.RawMessage `json:"data"`
	// RawData says what the reject was, should the log have let go of it.
	RawData string `json:"rawData"`
}

// showFailed prints a line of the error output so that a person can correct it.
func showFailed(out io.Writer, name string, number int, line []byte) error {
	var f struct {
		RecordID string `json:"recordId"`
		RawData  string `json:"rawData"`
		Code     string `json:"lastErrorCode"`
		Code2    string `json:"errorCode"`
		Message  string `json:"lastErrorMessage"`
		Message2 string `json:"errorMessage"`
	}
	if err := json.Unmarshal(line, &f); err != nil {
		return fmt.Errorf("%s: line %d: not a line of the error output: %w", name, number, err)
	}
	raw, err := base64.StdEncoding.DecodeString(f.RawData)
	if err != nil {
		return fmt.Errorf("%s: line %d: rawData: %w", name, number, err)
	}
	x := corrected{RecordID: f.RecordID, Code: f.Code + f.Code2, Message: f.Message + f.Message2, RawData: f.RawData}
	switch {
	case json.Valid(raw):
		x.Data = raw
	case utf8.Valid(raw):
		x.Data, err = json.Marshal(string(raw))
	default:
		return fmt.Errorf("%s: line %d: record %s is no text: correct its rawData (base64) in the line itself", name, number, f.RecordID)
	}
	if err != nil {
		return err
	}
	return printJSON(out, x)
}
