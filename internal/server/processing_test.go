package server

import "testing"

func TestSameProcessing(t *testing.T) {
	const (
		lambda    = `{"ParameterName":"LambdaArn","ParameterValue":"arn:aws:lambda:us-east-1:000000000000:function:f"}`
		retries   = `{"ParameterName":"NumberOfRetries","ParameterValue":"3"}`
		more      = `{"ParameterName":"NumberOfRetries","ParameterValue":"4"}`
		size      = `{"ParameterName":"BufferSizeInMBs","ParameterValue":"1.0"}`
		interval  = `{"ParameterName":"BufferIntervalInSeconds","ParameterValue":"60"}`
		role      = `{"ParameterName":"RoleArn","ParameterValue":"arn:aws:iam::000000000000:role/r"}`
		delimiter = `{"Type":"AppendDelimiterToRecord"}`
	)
	function := func(parameters string) string { return `{"Type":"Lambda","Parameters":[` + parameters + `]}` }
	definition := func(processors string) []byte {
		return []byte(`{"processors":{"Enabled":true,"Processors":[` + processors + `]},"routes":false}`)
	}
	plain := definition(function(lambda))
	for _, c := range []struct {
		name string
		b    []byte
		want bool
	}{
		{"itself", plain, true},
		{"the defaults, in another order", definition(function(interval + "," + retries + "," + role + "," + lambda + "," + size)), true},
		{"other retries", definition(function(lambda + "," + more)), false},
		{"a step more", definition(function(lambda) + "," + delimiter), false},
		{"no steps", nil, false},
		{"routes", []byte(`{"processors":{"Enabled":true,"Processors":[` + function(lambda) + `]},"routes":true}`), false},
		{"what is no definition", []byte(`[]`), false},
	} {
		if got := sameProcessing(plain, c.b); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
		if got := sameProcessing(c.b, plain); got != c.want {
			t.Errorf("%s, the other way: %v", c.name, got)
		}
	}
	if !sameProcessing(nil, nil) || !sameProcessing(definition(delimiter+","+function(lambda)), definition(function(lambda)+","+delimiter)) {
		t.Error("nothing, or the same in another order")
	}
}
