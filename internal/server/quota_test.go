package server

import (
	"strings"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/producer"
)

// Puts beyond a stream's quota are answered as Firehose answers them, and counted.
func TestQuotaIsThrottling(t *testing.T) {
	c := testConfig(t)
	c.Delivery.Quotas = map[string]QuotaConfig{"executions": {Records: 1}}
	s := open(t, c)
	k := s.Credentials().Keys[0]
	aws, err := producer.New(producer.Config{Endpoint: "http://" + s.Addresses().AWS, Region: c.Region, AccessKey: k.ID, Secret: k.Secret, RetryFor: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer aws.Close()
	put := func(seq int64) error {
		return aws.Call(t.Context(), "PutRecord", jsonObject{"DeliveryStreamName": "executions", "Record": jsonObject{"Data": newLeg("Q", seq).document(t)}}, nil)
	}
	var refused error
	for seq := int64(1); refused == nil && seq < 1000; seq++ { // a put that takes a second makes room for the next
		refused = put(seq)
	}
	if !producer.IsCode(refused, "ServiceUnavailableException") || !strings.Contains(refused.Error(), "Slow down.") {
		t.Fatal(refused)
	}
	families, err := s.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "tapehouse_firehose_throttled_records_total" {
			for _, m := range f.GetMetric() {
				if m.GetLabel()[0].GetValue() == "executions" && m.GetCounter().GetValue() >= 1 {
					return
				}
			}
		}
	}
	t.Error("no throttled record is counted")
}
