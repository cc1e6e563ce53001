package awsapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/auth"
)

func TestMember(t *testing.T) {
	for body, want := range map[string]string{
		`{"Name":"a"}`:                           "a",
		" {\n\t\"Name\" : \"a\" \r} \n":          "a",
		`{"name":"a"}`:                           "a",
		`{"X":{"Name":"b"},"Name":"a"}`:          "a",
		`{"X":["Name",{"Name":"b"}],"Name":"a"}`: "a",
		`{"Name":"a","X":"\"Name\":\"b\""}`:      "a",
		`{"Name":"a","X":"\\","Y":1}`:            "a",
		`{"X":"Name","Name":"a.b-c_9"}`:          "a.b-c_9",
		`{"Names":"b","Name":"a"}`:               "a",
		``:                                       "",
		`[]`:                                     "",
		`{}`:                                     "",
		`"Name"`:                                 "",
		`[{"Name":"a"}]`:                         "",
		`{"X":{"Name":"a"}}`:                     "",
		`{"Name":null}`:                          "",
		`{"Name":1}`:                             "",
		`{"Name":""}`:                            "",
		`{"Name":["a"]}`:                         "",
		`{"Name":"a","Name":"a"}`:                "",
		`{"Name":"a","name":"b"}`:                "",
		`{"Name":"a","Name":null}`:               "",
		`{"Name":"a","N\u0061me":"b"}`:           "",
		`{"N\u0061me":"b"}`:                      "",
		`{"Name":"\u0061"}`:                      "",
		`{"Name":"a*"}`:                          "",
		`{"Name":"*"}`:                           "",
		`{"Name":"a/b"}`:                         "",
		`{"Name":"a","` + "\u017fx" + `":1}`:     "",
		`{"Name":"a"`:                            "",
		`{"Name":"a"}}`:                          "",
		`{"Name":"a"} {"Name":"b"}`:              "",
		`{"Name":"a`:                             "",
		`{"Name":"a\"}`:                          "",
	} {
		got, ok := Member([]byte(body), "Name")
		if string(got) != want && ok || ok != (want != "") {
			t.Errorf("%s: %q %v, want %q", body, got, ok, want)
		}
	}
	// A name that folds to ASCII letters by Unicode's rules, as encoding/json has it.
	if got, ok := Member([]byte(`{"DeliveryStreamName":"a","Delivery`+"\u017f"+`treamName":"b"}`), "DeliveryStreamName"); ok {
		t.Errorf("a folded name is passed over: %q", got)
	}
}

// FuzzMember holds Member to encoding/json: whatever that makes of the body,
// it finds no other text.
func FuzzMember(f *testing.F) {
	for _, s := range []string{`{"DeliveryStreamName":"a","Records":[{"Data":"YQ=="}]}`, `{"Records":[{"Data":"\""}],"DeliveryStreamName":"b"}`,
		`{"deliverystreamname":"a"}`, `{"DeliveryStreamName":"a","DeliveryStreamName":"b"}`, `{"Delivery\u0053treamName":"x"}`, `{"a":"\\\"","DeliveryStreamName":"q"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		name, ok := Member(body, "DeliveryStreamName")
		if !ok {
			return
		}
		var d struct{ DeliveryStreamName *string }
		if json.Unmarshal(body, &d) == nil && (d.DeliveryStreamName == nil || *d.DeliveryStreamName != string(name)) {
			t.Fatalf("%q: found %q, encoding/json %v", body, name, d.DeliveryStreamName)
		}
		var exact map[string]json.RawMessage
		if json.Unmarshal(body, &exact) == nil {
			if raw, has := exact["DeliveryStreamName"]; has && string(raw) != `"`+string(name)+`"` {
				t.Fatalf("%q: found %q, by its exact name %s", body, name, raw)
			}
		}
	})
}

func BenchmarkMember(b *testing.B) {
	body := []byte(`{"DeliveryStreamName":"orders","Records":[` + strings.Repeat(`{"Data":"`+strings.Repeat("QUJD", 98)+`"},`, 499) + `{"Data":"QUJD"}]}`)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, ok := Member(body, "DeliveryStreamName"); !ok {
			b.Fatal("not found")
		}
	}
}

func TestAuthorize(t *testing.T) {
	ran := 0
	op := func(_ context.Context, c *Call) error { ran++; return nil }
	grant := func(g ...auth.Grant) *auth.Policy {
		p, err := auth.NewPolicy(g...)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	keys := &auth.Credentials{}
	key := func(name string, p *auth.Policy) auth.AccessKey {
		k := auth.AccessKey{Name: name, ID: "AKIATEST" + strings.ToUpper(name) + "000000000000", Secret: "a secret of the test, long enough", Policy: p}
		keys.Keys = append(keys.Keys, k)
		return k
	}
	admin, nobody := key("admin", auth.Administrator), key("nobody", nil)
	putter := key("putter", grant(auth.Grant{Service: "firehose", Operations: []string{"put"}, Streams: []string{"orders-*"}}))
	reader := key("reader", grant(auth.Grant{Service: "firehose", Operations: []string{"read"}, Streams: []string{"*"}}))
	m, err := NewMux(Options{Verifier: auth.NewVerifier(keys, nil), Registerer: prometheus.NewRegistry(), Region: "eu-west-1"})
	if err != nil {
		t.Fatal(err)
	}
	service := Service{SigningName: "firehose", TargetPrefix: "F.", BodyBytesMax: 1 << 20, ResourceMember: "Name", ResourceType: "deliverystream",
		Operations: map[string]Operation{"PutRecord": op, "DescribeDeliveryStream": op, "ListDeliveryStreams": op, "OfTomorrow": op}}
	if err := m.Register(service); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(m)
	defer server.Close()
	const on = "arn:aws:firehose:eu-west-1:000000000000:deliverystream/"
	for _, c := range []struct {
		key             auth.AccessKey
		operation, body string
		resource        string // of the refusal; "" is allowed
	}{
		{admin, "PutRecord", `{"Name":"orders-1"}`, ""},
		{admin, "OfTomorrow", `{}`, ""},
		{admin, "PutRecord", `not JSON`, ""}, // the operation's to refuse
		{nobody, "PutRecord", `{"Name":"orders-1"}`, on + "orders-1"},
		{nobody, "ListDeliveryStreams", `{}`, on + "*"},
		{putter, "PutRecord", `{"Name":"orders-1"}`, ""},
		{putter, "PutRecord", `{"Records":[{"Data":"x"}],"Name":"orders-1"}`, ""},
		{putter, "PutRecord", `{"Name":"trades"}`, on + "trades"},
		{putter, "PutRecord", `{"Name":"orders-1","Name":"trades"}`, on + "*"},
		{putter, "PutRecord", `{"Name":"trades","name":"orders-1"}`, on + "*"},
		{putter, "PutRecord", `{"Name":"*"}`, on + "*"},
		{putter, "PutRecord", `{}`, on + "*"},
		{putter, "PutRecord", ``, on + "*"},
		{putter, "DescribeDeliveryStream", `{"Name":"orders-1"}`, on + "orders-1"},
		{putter, "ListDeliveryStreams", `{}`, on + "*"},
		{putter, "OfTomorrow", `{"Name":"orders-1"}`, on + "orders-1"},
		{reader, "ListDeliveryStreams", `{}`, ""},
		{reader, "DescribeDeliveryStream", `{"Name":"x"}`, ""},
		{reader, "PutRecord", `{"Name":"x"}`, on + "x"},
		{reader, "OfTomorrow", `{"Name":"x"}`, on + "x"},
	} {
		r, err := http.NewRequest(http.MethodPost, server.URL+"/", strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Amz-Target", "F."+c.operation)
		auth.NewSigner(c.key, "eu-west-1", "firehose").Sign(r, sha256.Sum256([]byte(c.body)), time.Now())
		ran = 0
		status, answer, _ := do(t, r)
		if c.resource == "" {
			if status != 200 || ran != 1 {
				t.Errorf("%s %s %s: %d %s", c.key.Name, c.operation, c.body, status, answer)
			}
			continue
		}
		action := "firehose:" + c.operation
		want := fmt.Sprintf(`{"__type":"AccessDeniedException","Message":"User: arn:aws:iam::000000000000:user/%s is not authorized to perform: %s on resource: %s because no identity-based policy allows the %s action"}`,
			c.key.Name, action, c.resource, action)
		if status != 400 || answer != want || ran != 0 {
			t.Errorf("%s %s %s: %d %s, ran %d times; want %s", c.key.Name, c.operation, c.body, status, answer, ran, want)
		}
	}
	if bytes.Contains([]byte(fmt.Sprint(keys)), []byte("a secret of")) {
		t.Error("printing shows a secret")
	}
}

// A service may find what an operation is about by itself; a resource that it is not
// sure of is all of them.
func TestAuthorizeByResource(t *testing.T) {
	policy, err := auth.NewPolicy(auth.Grant{Service: "glue", Operations: []string{"read"}, Streams: []string{"desk.*"}})
	if err != nil {
		t.Fatal(err)
	}
	key := auth.AccessKey{Name: "desk", ID: "AKIATESTDESK000000000000", Secret: "a secret of the test, long enough", Policy: policy}
	m, err := NewMux(Options{Verifier: auth.NewVerifier(&auth.Credentials{Keys: []auth.AccessKey{key}}, nil), Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Register(Service{SigningName: "glue", TargetPrefix: "G.", BodyBytesMax: 1 << 20, MessageMember: "Message", Operations: map[string]Operation{"GetTable": func(context.Context, *Call) error { return nil }},
		Resource: func(operation string, body []byte) (string, string) {
			name, ok := Member(body, "Table")
			if !ok {
				return auth.AnyStream, "arn:of:all"
			}
			return operation[len("Get"):] + "/" + string(name), "arn:of:" + string(name)
		}}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(m)
	defer server.Close()
	for body, want := range map[string]string{`{"Table":"x"}`: "arn:of:x", `{}`: "arn:of:all"} {
		r, err := http.NewRequest(http.MethodPost, server.URL+"/", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Amz-Target", "G.GetTable")
		auth.NewSigner(key, "us-east-1", "glue").Sign(r, sha256.Sum256([]byte(body)), time.Now())
		if status, answer, _ := do(t, r); status != 400 || !strings.Contains(answer, "is not authorized to perform: glue:GetTable on resource: "+want+" because") {
			t.Errorf("%s: %d %s, want %s", body, status, answer, want)
		}
	}
	allowed, err := NewMux(Options{Verifier: auth.NewVerifier(&auth.Credentials{Keys: []auth.AccessKey{key}}, nil), Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	if err := allowed.Register(Service{SigningName: "glue", TargetPrefix: "G.", BodyBytesMax: 1 << 20, Operations: map[string]Operation{"GetTable": func(context.Context, *Call) error { ran++; return nil }},
		Refusals: map[string]*Error{"GetJob": BadRequest("No", "no jobs")}, Resource: func(string, []byte) (string, string) { return "desk.trades", "arn:of:trades" }}); err != nil {
		t.Fatal(err)
	}
	second := httptest.NewServer(allowed)
	defer second.Close()
	// What is refused to everybody says so to those alone to whom it would be allowed.
	for operation, want := range map[string]string{"GetTable": "200 {}", "GetJob": "400 …AccessDeniedException"} {
		r, err := http.NewRequest(http.MethodPost, second.URL+"/", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Amz-Target", "G."+operation)
		auth.NewSigner(key, "us-east-1", "glue").Sign(r, sha256.Sum256([]byte("{}")), time.Now())
		status, answer, _ := do(t, r)
		code, part, _ := strings.Cut(want, " ")
		if fmt.Sprint(status) != code || !strings.Contains(answer, strings.TrimPrefix(part, "…")) {
			t.Errorf("%s: %d %s", operation, status, answer)
		}
	}
	if ran != 1 {
		t.Errorf("ran %d times", ran)
	}
}
