package auth

import (
	"errors"
	"strings"
	"testing"
)

func policy(t *testing.T, grants ...Grant) *Policy {
	t.Helper()
	p, err := NewPolicy(grants...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPolicy(t *testing.T) {
	putter := policy(t, Grant{"firehose", []string{"put"}, []string{"equities-*", "notes"}})
	reader := policy(t, Grant{"firehose", []string{"read"}, []string{"*"}})
	named := policy(t, Grant{"firehose", []string{"Describe*", "TagDeliveryStream"}, []string{"o?ders"}})
	mixed := policy(t, Grant{"firehose", []string{"put"}, []string{"a"}}, Grant{"firehose", []string{"read"}, []string{"b"}})
	every := policy(t, Grant{"firehose", []string{"*"}, []string{"*"}})
	for _, c := range []struct {
		p                          *Policy
		service, operation, stream string
		want                       bool
	}{
		{nil, "firehose", "PutRecord", "a", false},
		{Administrator, "firehose", "DeleteDeliveryStream", AnyStream, true},
		{Administrator, "glue", "GetTables", AnyStream, true},
		{Administrator, ServiceConsole, "seal", AnyStream, true},
		{putter, "firehose", "PutRecord", "equities-orders", true},
		{putter, "firehose", "PutRecordBatch", "notes", true},
		{putter, "firehose", "PutRecord", "notes2", false},
		{putter, "firehose", "PutRecord", "Equities-orders", false},
		{putter, "firehose", "PutRecord", AnyStream, false},
		{putter, "firehose", "PutRecord", "", false},
		{putter, "firehose", "DescribeDeliveryStream", "notes", false},
		{putter, "firehose", "PutRecordsOfTomorrow", "notes", false},
		{putter, "firehose", "", "notes", false},
		{putter, "", "PutRecord", "notes", false},
		{putter, ServiceSQL, OperationConnect, AnyStream, false},
		{putter, ServiceConsole, "info", AnyStream, false},
		{reader, "firehose", "ListDeliveryStreams", AnyStream, true},
		{reader, "firehose", "DescribeDeliveryStream", "any", true},
		{reader, "firehose", "PutRecord", "any", false},
		{reader, "firehose", "UpdateDestination", "any", false},
		{named, "firehose", "DescribeDeliveryStream", "orders", true},
		{named, "firehose", "DescribeDeliveryStream", "oorders", false},
		{named, "firehose", "TagDeliveryStream", "orders", true},
		{named, "firehose", "UntagDeliveryStream", "orders", false},
		{mixed, "firehose", "PutRecord", "b", false},
		{mixed, "firehose", "DescribeDeliveryStream", "a", false},
		{mixed, "firehose", "DescribeDeliveryStream", "b", true},
		{every, "firehose", "AnOperationOfTomorrow", AnyStream, true},
		{every, "glue", "GetTables", AnyStream, false},
		{every, ServiceConsole, "seal", AnyStream, false},
	} {
		if got := c.p.Allows(c.service, c.operation, c.stream); got != c.want {
			t.Errorf("%s: %s:%s on %q: %v", c.p, c.service, c.operation, c.stream, got)
		}
	}
	if n := testing.AllocsPerRun(100, func() { putter.Allows("firehose", "PutRecordBatch", "equities-orders") }); n != 0 {
		t.Errorf("Allows allocates %v times", n)
	}
}

func TestPolicyRefuses(t *testing.T) {
	for _, c := range []struct {
		g    Grant
		want string
	}{
		{Grant{}, "service"},
		{Grant{"s3", []string{"*"}, []string{"*"}}, "want one of console, firehose, glue, sql"},
		{Grant{"firehose", nil, []string{"*"}}, "0 operations"},
		{Grant{"firehose", []string{"put"}, nil}, "0 streams"},
		{Grant{"firehose", []string{"PutRecrod"}, []string{"*"}}, "matches none"},
		{Grant{"firehose", []string{"connect"}, []string{"*"}}, "matches none"},
		{Grant{"firehose", []string{"Put[A-Z]ecord"}, []string{"*"}}, "matches none"},
		{Grant{"firehose", []string{"put"}, []string{"a b"}}, "stream"},
		{Grant{"firehose", []string{"put"}, []string{""}}, "stream"},
		{Grant{"firehose", []string{"put"}, []string{"[a"}}, "stream"},
		{Grant{"firehose", []string{"put"}, []string{`\*`}}, "stream"},
		{Grant{"firehose", []string{"put"}, []string{strings.Repeat("a", 200)}}, "stream"},
	} {
		_, err := NewPolicy(c.g)
		if !errors.Is(err, ErrGrant) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.g, err)
		}
	}
	if _, err := NewPolicy(); !errors.Is(err, ErrGrant) {
		t.Errorf("no grants: %v", err)
	}
}

func TestPolicyString(t *testing.T) {
	for want, p := range map[string]*Policy{
		"nothing":    nil,
		"everything": Administrator,
		"firehose: put on equities-*, notes; console: read": policy(t,
			Grant{"firehose", []string{"put"}, []string{"equities-*", "notes"}}, Grant{ServiceConsole, []string{"read"}, []string{"*"}}),
	} {
		if got := p.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
