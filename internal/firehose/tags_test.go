package firehose

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestTags(t *testing.T) {
	h, fake := created(t, swap(createBody("s"), `{"Del`, `{"Tags":[{"Key":"b","Value":"1"},{"Key":"a"},{"Key":"b","Value":"2"}],"Del`))
	want := func(body, answer string) {
		t.Helper()
		if out, err := call(t, h, "ListTagsForDeliveryStream", body); err != nil || out != answer {
			t.Errorf("%s: %s %v, want %s", body, out, err, answer)
		}
	}
	const all = `{"DeliveryStreamName":"s"}`
	want(all, `{"Tags":[{"Key":"a"},{"Key":"b","Value":"2"}],"HasMoreTags":false}`)
	do := func(operation, body string) {
		t.Helper()
		if out, err := call(t, h, operation, body); err != nil || out != "" {
			t.Fatal(out, err)
		}
	}
	do("TagDeliveryStream", `{"DeliveryStreamName":"s","Tags":[{"Key":"a","Value":"3"},{"Key":"Änderung: @x","Value":""}]}`)
	want(all, `{"Tags":[{"Key":"a","Value":"3"},{"Key":"b","Value":"2"},{"Key":"Änderung: @x","Value":""}],"HasMoreTags":false}`)
	want(`{"DeliveryStreamName":"s","Limit":2}`, `{"Tags":[{"Key":"a","Value":"3"},{"Key":"b","Value":"2"}],"HasMoreTags":true}`)
	want(`{"DeliveryStreamName":"s","Limit":2,"ExclusiveStartTagKey":"b"}`, `{"Tags":[{"Key":"Änderung: @x","Value":""}],"HasMoreTags":false}`)
	want(`{"DeliveryStreamName":"s","ExclusiveStartTagKey":"aa","Limit":1}`, `{"Tags":[{"Key":"b","Value":"2"}],"HasMoreTags":true}`)
	do("UntagDeliveryStream", `{"DeliveryStreamName":"s","TagKeys":["a","not there"]}`)
	do("UntagDeliveryStream", `{"DeliveryStreamName":"s","TagKeys":["b","Änderung: @x"]}`)
	want(all, `{"Tags":[],"HasMoreTags":false}`)
	if v := fake.streams["s"].info.Version; v != 1 {
		t.Errorf("tags raised the version to %d", v)
	}

	for i := range 5 {
		var tags []Tag
		for j := range 10 {
			tags = append(tags, Tag{Key: fmt.Sprintf("k%02d", 10*i+j), Value: ptr("v")})
		}
		data, err := json.Marshal(tags)
		if err != nil {
			t.Fatal(err)
		}
		do("TagDeliveryStream", `{"DeliveryStreamName":"s","Tags":`+string(data)+`}`)
	}
	_, err := call(t, h, "TagDeliveryStream", `{"DeliveryStreamName":"s","Tags":[{"Key":"x"}]}`)
	wantError(t, err, codeLimit, "a Firehose can have up to 50 tags, and it would have 51")
	do("TagDeliveryStream", `{"DeliveryStreamName":"s","Tags":[{"Key":"k07","Value":"new"}]}`)
	if n := len(fake.config("s").Tags); n != 50 {
		t.Fatal(n)
	}
	// By pages, each tag once.
	seen := map[string]bool{}
	body := `{"DeliveryStreamName":"s","Limit":7}`
	for pages := 0; ; pages++ {
		out, err := call(t, h, "ListTagsForDeliveryStream", body)
		if err != nil || pages > 10 {
			t.Fatal(pages, err)
		}
		var page listTagsOutput
		if err := json.Unmarshal([]byte(out), &page); err != nil {
			t.Fatal(err)
		}
		last := ""
		for _, tag := range page.Tags {
			if seen[tag.Key] || tag.Key <= last {
				t.Fatalf("%s in %s", tag.Key, out)
			}
			seen[tag.Key], last = true, tag.Key
		}
		if !page.HasMoreTags {
			break
		}
		body = `{"DeliveryStreamName":"s","Limit":7,"ExclusiveStartTagKey":"` + last + `"}`
	}
	if len(seen) != 50 {
		t.Fatal(len(seen))
	}
}

func TestTagRefusals(t *testing.T) {
	h, _ := created(t, createBody("s"))
	many := `{"Key":"a"}` + strings.Repeat(`,{"Key":"a"}`, 50)
	for _, c := range []struct{ operation, rest, message string }{
		{"TagDeliveryStream", ``, "Value null at 'tags' failed to satisfy constraint: Member must not be null"},
		{"TagDeliveryStream", `,"Tags":[]`, "Value '[0 members]' at 'tags' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		{"TagDeliveryStream", `,"Tags":[` + many + `]`, "Value '[51 members]' at 'tags' failed to satisfy constraint: Member must have length less than or equal to 50"},
		{"TagDeliveryStream", `,"Tags":[{"Value":"x"}]`, "Value null at 'tags.1.member.key'"},
		{"TagDeliveryStream", `,"Tags":[{"Key":"aws:x"}]`, "Value 'aws:x' at 'tags.1.member.key' failed to satisfy constraint: Member must satisfy regular expression pattern: ^(?!aws:)"},
		{"TagDeliveryStream", `,"Tags":[{"Key":"a","Value":"<"}]`, "Value '<' at 'tags.1.member.value'"},
		{"TagDeliveryStream", `,"Tags":[{"Key":"` + strings.Repeat("k", 129) + `"}]`, "'tags.1.member.key' failed to satisfy constraint: Member must have length less than or equal to 128"},
		{"UntagDeliveryStream", ``, "Value null at 'tagKeys'"},
		{"UntagDeliveryStream", `,"TagKeys":[]`, "at 'tagKeys' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		{"UntagDeliveryStream", `,"TagKeys":["ok",""]`, "Value '' at 'tagKeys.2.member' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		{"ListTagsForDeliveryStream", `,"Limit":51`, "Value '51' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 50"},
		{"ListTagsForDeliveryStream", `,"ExclusiveStartTagKey":""`, "Value '' at 'exclusiveStartTagKey'"},
	} {
		_, err := call(t, h, c.operation, `{"DeliveryStreamName":"s"`+c.rest+`}`)
		wantError(t, err, "ValidationException", c.message)
	}
}

// Nothing here encrypts, so nothing is ever said to be encrypted.
func TestEncryption(t *testing.T) {
	h, _ := created(t, createBody("s"))
	for _, c := range []struct{ input, code, message string }{
		{``, codeInvalidArgument, "Server-side encryption is not supported: records are not encrypted at rest here, and nothing should claim that they are. Encrypt the file system"},
		{`,"DeliveryStreamEncryptionConfigurationInput":{"KeyType":"AWS_OWNED_CMK"}`, codeInvalidArgument, "Server-side encryption is not supported"},
		{`,"DeliveryStreamEncryptionConfigurationInput":{"KeyType":"AWS_OWNED_CMK","KeyARN":"` + kmsKey + `"}`, codeInvalidArgument, "KeyARN cannot be specified when KeyType is AWS_OWNED_CMK"},
		{`,"DeliveryStreamEncryptionConfigurationInput":{"KeyType":"CUSTOMER_MANAGED_CMK"}`, codeInvalidArgument, "KeyARN has to be specified when KeyType is CUSTOMER_MANAGED_CMK"},
		{`,"DeliveryStreamEncryptionConfigurationInput":{"KeyType":"CUSTOMER_MANAGED_CMK","KeyARN":"` + kmsKey + `"}`, codeInvalidKMS, "The key " + kmsKey + " cannot be used: records are not encrypted at rest here"},
		{`,"DeliveryStreamEncryptionConfigurationInput":{"KeyARN":"x"}`, "ValidationException", "2 validation errors detected: Value 'x' at 'deliveryStreamEncryptionConfigurationInput.keyARN'"},
	} {
		_, err := call(t, h, "StartDeliveryStreamEncryption", `{"DeliveryStreamName":"s"`+c.input+`}`)
		wantError(t, err, c.code, c.message)
	}
	if out, err := call(t, h, "StopDeliveryStreamEncryption", `{"DeliveryStreamName":"s"}`); err != nil || out != "" {
		t.Error(out, err)
	}
	out, err := call(t, h, "DescribeDeliveryStream", `{"DeliveryStreamName":"s"}`)
	if err != nil || !strings.Contains(out, `"DeliveryStreamEncryptionConfiguration":{"Status":"DISABLED"}`) {
		t.Error(out, err)
	}
	out, err = call(t, h, "PutRecordBatch", `{"DeliveryStreamName":"s","Records":[{"Data":""}]}`)
	if err != nil || !strings.Contains(out, `"Encrypted":false`) {
		t.Error(out, err)
	}
}
