package main

import (
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapehouse/tapehouse/internal/demo"
)

func newDemo() *cobra.Command {
	o := demo.Options{}
	var sabotage string
	c := &cobra.Command{
		Use:     "demo",
		GroupID: groupStart,
		Short:   "Play one simulated trade date, end to end",
		Long: `Starts the server, puts one simulated trade date through the Firehose API with
Signature Version 4, asks SQL while it streams in, closes and seals the trade
date, verifies the certificate, writes the members' bills, and lets a separate
checker count what the lake lost or doubled. Then it serves on until Ctrl-C.

With --sabotage something goes wrong, to show what the product is for:
  kill           the server is killed under load; nothing is lost
  gap            a source loses one record; the seal is refused, naming it
  reject         a record is malformed; the seal is refused, naming it
  silent-source  a source never comes; the seal is refused, naming it
  bust           a trade is broken after the seal; one adjustment, no bill changes

The directory is the demo's own: it is emptied at the start, and only if a demo
made it. Exit code 4: something was lost, doubled or altered, the certificate
does not verify, or the sabotage was not answered as it must be.

` + exitCodes,
		Example: `  tapehouse demo
  tapehouse demo --records 200000 --exit --json
  tapehouse demo --sabotage kill --exit`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Sabotage = demo.Sabotage(sabotage)
			self, err := os.Executable()
			if err != nil {
				return err
			}
			o.Program, o.Invocation, o.Out, o.Errs = self, os.Args[0], c.OutOrStdout(), c.ErrOrStderr()
			_, err = demo.Run(c.Context(), o)
			switch {
			case errors.Is(err, demo.ErrOptions):
				return &codeError{exitUsage, err}
			case errors.Is(err, demo.ErrMismatch):
				return &codeError{exitMismatch, err}
			}
			return err
		},
	}
	words := []string{}
	for _, s := range demo.Sabotages() {
		words = append(words, string(s))
	}
	slices.Sort(words)
	p := c.Flags()
	p.StringVar(&o.Data, "data", "tapehouse-data/demo", "the demo's directory")
	p.Int64Var(&o.Records, "records", 2_000_000, "records to play")
	p.Uint64Var(&o.Seed, "seed", 1, "seed: the same seed and trade date give the same bytes")
	p.StringVar(&o.TradeDate, "trade-date", "", "trade date (default: the last one that has ended)")
	p.StringVar(&sabotage, "sabotage", "", "what goes wrong: "+strings.Join(words, ", "))
	p.BoolVar(&o.Exit, "exit", false, "end instead of serving on")
	p.BoolVar(&o.JSON, "json", false, "print the result as JSON on the last line")
	p.StringVar(&o.Addresses.AWS, "aws-addr", "127.0.0.1:4566", "address of the AWS APIs; a free port if it is taken")
	p.StringVar(&o.Addresses.SQL, "sql-addr", "127.0.0.1:5439", "address of the PostgreSQL protocol; a free port if it is taken")
	p.StringVar(&o.Addresses.HTTP, "http-addr", "127.0.0.1:8080", "address of console, health and metrics; a free port if it is taken")
	return c
}
