package main

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/firehose"
	"github.com/aws/aws-sdk-go-v2/service/firehose/types"

	"github.com/tapehouse/tapehouse/internal/benchmark"
	"github.com/tapehouse/tapehouse/internal/producer"
)

// sdk puts with aws-sdk-go-v2, as its users would: records in, answer out.
type sdk struct {
	client    *firehose.Client
	transport *http.Transport
	sent      atomic.Int64
}

func newSDK(endpoint, accessKey, secret string, connections int) (benchmark.Client, error) {
	t := &http.Transport{MaxIdleConns: connections, MaxIdleConnsPerHost: connections, IdleConnTimeout: 90 * time.Second}
	return &sdk{transport: t, client: firehose.New(firehose.Options{
		Region:       "us-east-1",
		BaseEndpoint: aws.String(endpoint),
		HTTPClient:   &http.Client{Transport: t},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: secret}, nil
		}),
	})}, nil
}

// PutBatch implements benchmark.Client.
func (s *sdk) PutBatch(ctx context.Context, stream string, docs [][]byte) (producer.Result, error) {
	var r producer.Result
	in := &firehose.PutRecordBatchInput{DeliveryStreamName: &stream, Records: make([]types.Record, len(docs))}
	for i, d := range docs {
		in.Records[i].Data = d
		r.Bytes += int64(len(d))
	}
	s.sent.Add(1)
	out, err := s.client.PutRecordBatch(ctx, in)
	if err != nil {
		return producer.Result{}, err
	}
	if n := aws.ToInt32(out.FailedPutCount); n != 0 {
		return producer.Result{}, fmt.Errorf("%d of %d records failed", n, len(docs))
	}
	r.Records = len(docs)
	return r, nil
}

// Requests implements benchmark.Client. What the SDK sends again it does not tell.
func (s *sdk) Requests() (sent, retried int64) { return s.sent.Load(), 0 }

// Close implements benchmark.Client.
func (s *sdk) Close() { s.transport.CloseIdleConnections() }
