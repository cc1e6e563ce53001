// Command versitygw is a real S3 server for tests: the Versity gateway over a
// directory. It lives in a module of its own, so that the product's stays
// clean, and in a process of its own, because it changes its working directory.
//
//	versitygw -root DIR -listen 127.0.0.1:PORT -region REGION
//
// The root account is in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. It ends
// when its standard input does, so that no test leaves one behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

func main() {
	root := flag.String("root", "", "directory that holds the buckets")
	listen := flag.String("listen", "", "host:port")
	region := flag.String("region", "us-east-1", "the region that clients sign for")
	flag.Parse()
	if err := run(*root, *listen, *region); err != nil {
		fmt.Fprintln(os.Stderr, "versitygw:", err)
		os.Exit(1)
	}
}

func run(root, listen, region string) error {
	if root == "" || listen == "" {
		return errors.New("give -root and -listen")
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	backend, err := posix.New(root, meta.XattrMeta{}, posix.PosixOpts{})
	if err != nil {
		return err
	}
	return embedgw.RunVersityGW(ctx, backend, &embedgw.Config{
		RootUserAccess: os.Getenv("AWS_ACCESS_KEY_ID"), RootUserSecret: os.Getenv("AWS_SECRET_ACCESS_KEY"), Region: region,
		Ports: []string{listen}, Quiet: true, KeepAlive: true, MaxConnections: 1000, MaxRequests: 1000, MultipartMaxParts: 10_000,
	})
}
