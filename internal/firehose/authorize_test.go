package firehose

import (
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/awsapi"
)

// Every operation of the service stands in the one table of what grants can
// allow: one that does not would be open to administrators only.
func TestEveryOperationCanBeGranted(t *testing.T) {
	s := (&Handler{}).Service()
	known := auth.Operations(s.SigningName)
	for name := range s.Operations {
		switch group := known[name]; {
		case group == "":
			t.Errorf("%s stands in no grant that could be given", name)
		case (group == auth.GroupPut) != strings.HasPrefix(name, "Put"):
			t.Errorf("%s is in the group %s", name, group)
		}
		delete(known, name)
	}
	for name := range known {
		t.Errorf("%s can be granted, but is no operation", name)
	}
	if s.ResourceMember != "DeliveryStreamName" || s.ResourceType != "deliverystream" {
		t.Errorf("authorization looks at %s of %s", s.ResourceMember, s.ResourceType)
	}
}

// FuzzAuthorizedStream holds that a put goes to the stream that was authorized:
// the scanner of puts never finds another than awsapi.Member, which decides.
func FuzzAuthorizedStream(f *testing.F) {
	for _, s := range []string{`{"DeliveryStreamName":"a","Records":[{"Data":"YQ=="}]}`, `{"Records":[{"Data":"YQ=="}], "DeliveryStreamName":"b"}`,
		`{"DeliveryStreamName":"a","deliverystreamname":"b","Records":[]}`, `{"DeliveryStreamName":"a","x":{"DeliveryStreamName":"b"},"Record":{"Data":""}}`,
		`{"DeliveryStreamName":"a","DeliveryStreamName":"b"}`, `{"x":"\\","DeliveryStreamName":"c","Records":[{"Data": "YQ=="}]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		authorized, ok := awsapi.Member(body, "DeliveryStreamName")
		if !ok {
			return
		}
		for _, scan := range []func(*envelope) error{(*envelope).scanBatch, (*envelope).scanSingle} {
			padded := append(make([]byte, 0, len(body)+awsapi.SlackBytes), body...)
			var e envelope
			e.reset(padded, make([]byte, 0, len(body)/4*3+3+awsapi.SlackBytes))
			if scan(&e) == nil && e.stream != nil && string(e.stream) != string(authorized) {
				t.Fatalf("%q: authorized for %q, put to %q", body, authorized, e.stream)
			}
		}
	})
}
