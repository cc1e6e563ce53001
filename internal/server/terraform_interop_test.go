//go:build interop

package server

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// providerMirror names a directory laid out as Terraform's file system mirrors
// are, with the AWS provider in it: it comes from no registry of packages.
const providerMirror = "TF_PLUGIN_MIRROR"

// sealedStream asks for encryption.
const sealedStream = `
resource "aws_kinesis_firehose_delivery_stream" "sealed" {
  name        = "tf-sealed"
  destination = "extended_s3"
  server_side_encryption {
    enabled = true
  }
  extended_s3_configuration {
    role_arn   = local.role
    bucket_arn = "arn:aws:s3:::archive"
  }
}
`

// terraform runs a command in a directory of its own, with the streams of
// testdata/terraform.
type terraform struct {
	t            *testing.T
	program, dir string
	env          []string
}

func newTerraform(t *testing.T, s *Server, program, mirror, extra string) *terraform {
	t.Helper()
	tf := &terraform{t: t, program: program, dir: t.TempDir()}
	streams, err := os.ReadFile("testdata/terraform/streams.tf")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"streams.tf": string(streams), "extra.tf": extra, "cli.rc": "disable_checkpoint = true\n"} {
		if err := os.WriteFile(filepath.Join(tf.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tf.env = append(environ(t, s), "TF_CLI_CONFIG_FILE="+filepath.Join(tf.dir, "cli.rc"), "TF_IN_AUTOMATION=1")
	tf.run(0, "init", "-plugin-dir="+mirror)
	return tf
}

// run runs a command that must end with a status: of plan -detailed-exitcode, 0
// says that there is nothing to do.
func (tf *terraform) run(status int, args ...string) string {
	tf.t.Helper()
	flags := []string{"-chdir=" + tf.dir, args[0], "-no-color"}
	if args[0] != "output" {
		flags = append(flags, "-input=false")
	}
	out, err := run(tf.t, tf.env, "", tf.program, append(flags, args[1:]...)...)
	if got := exitStatus(err); got != status {
		tf.t.Fatalf("%s: status %d, want %d (%v)\n%s", strings.Join(args, " "), got, status, err, out)
	}
	return out
}

// TestTerraform has Terraform and AWS's own provider make, change, import and
// destroy streams. Whatever the provider reads back must be what it sent: a plan
// that follows an apply finds nothing to do.
func TestTerraform(t *testing.T) {
	const untested = "streams were not made with it"
	program := "terraform"
	if _, err := exec.LookPath("tofu"); err == nil {
		program = "tofu"
	}
	program = look(t, program, untested)
	mirror := os.Getenv(providerMirror)
	if mirror == "" {
		t.Skipf("SKIPPED: %s does not name a directory with Terraform's AWS provider: %s", providerMirror, untested)
	}
	const function = "arn:aws:lambda:us-east-1:000000000000:function:f:1"
	c := testConfig(t)
	c.Transforms = []TransformConfig{{ARN: function, URL: "http://127.0.0.1:9/"}}
	s := open(t, c)
	conn := connect(t, s)
	execute1(t, conn, `CREATE TABLE public.tf (n bigint, symbol text)`)
	aws := client(t, s)
	// versions are the streams and the versions of their configurations.
	versions := func() string {
		t.Helper()
		var list struct{ DeliveryStreamNames []string }
		if err := aws.Call(t.Context(), "ListDeliveryStreams", jsonObject{"Limit": 100}, &list); err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, name := range list.DeliveryStreamNames {
			if !strings.HasPrefix(name, "tf-") {
				continue
			}
			var d struct {
				DeliveryStreamDescription struct{ VersionId, DeliveryStreamStatus string } //nolint:revive // as AWS spells it
			}
			if err := aws.Call(t.Context(), "DescribeDeliveryStream", jsonObject{"DeliveryStreamName": name}, &d); err != nil {
				t.Fatal(err)
			}
			out = append(out, name+" "+d.DeliveryStreamDescription.VersionId+" "+d.DeliveryStreamDescription.DeliveryStreamStatus)
		}
		return strings.Join(out, ", ")
	}
	expect := func(when, want string) {
		t.Helper()
		if got := versions(); got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}

	tf := newTerraform(t, s, program, mirror, "")
	tf.run(0, "apply", "-auto-approve")
	expect("created", "tf-least 1 ACTIVE, tf-objects 1 ACTIVE, tf-parquet 1 ACTIVE, tf-partitions 1 ACTIVE, tf-table 1 ACTIVE")
	tf.run(0, "plan", "-detailed-exitcode")
	if got := tf.run(0, "output", "-raw", "executions"); got != "arn:aws:firehose:us-east-1:000000000000:deliverystream/executions" {
		t.Error(got)
	}

	tf.run(2, "plan", "-detailed-exitcode", "-var=changed=true")
	out := tf.run(0, "apply", "-auto-approve", "-var=changed=true")
	if want := "0 added, 5 changed, 0 destroyed"; !strings.Contains(out, want) { // in place: a stream made anew would lose what it holds
		t.Errorf("no %q in\n%s", want, out)
	}
	expect("changed", "tf-least 2 ACTIVE, tf-objects 2 ACTIVE, tf-parquet 2 ACTIVE, tf-partitions 2 ACTIVE, tf-table 2 ACTIVE")
	tf.run(0, "plan", "-detailed-exitcode", "-var=changed=true")
	var tags struct{ Tags []struct{ Key, Value string } }
	if err := aws.Call(t.Context(), "ListTagsForDeliveryStream", jsonObject{"DeliveryStreamName": "tf-objects"}, &tags); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(tags.Tags); got != "[{owner surveillance} {shift night}]" {
		t.Error(got)
	}

	// A state that knows nothing: all of it is read from the server.
	var imports strings.Builder
	for _, name := range []string{"least", "objects", "partitions", "parquet", "table"} {
		fmt.Fprintf(&imports, "import {\n  to = aws_kinesis_firehose_delivery_stream.%s\n  id = \"arn:aws:firehose:us-east-1:000000000000:deliverystream/tf-%s\"\n}\n", name, name)
	}
	fresh := newTerraform(t, s, program, mirror, imports.String())
	out = fresh.run(2, "plan", "-detailed-exitcode", "-var=changed=true")
	if want := "5 to import, 0 to add, 0 to change, 0 to destroy"; !strings.Contains(out, want) {
		t.Errorf("no %q in\n%s", want, out)
	}

	// What was changed behind Terraform's back is found and put right.
	if err := aws.Call(t.Context(), "UpdateDestination", jsonObject{"DeliveryStreamName": "tf-least", "CurrentDeliveryStreamVersionId": "2", "DestinationId": "destinationId-000000000001",
		"ExtendedS3DestinationUpdate": jsonObject{"Prefix": "elsewhere/"}}, nil); err != nil {
		t.Fatal(err)
	}
	if out = tf.run(2, "plan", "-detailed-exitcode", "-var=changed=true"); !strings.Contains(out, `"elsewhere/" -> "some/"`) {
		t.Errorf("the change was not found:\n%s", out)
	}

	// What is not supported fails with the words that say so, and leaves nothing.
	const sealed = "-target=aws_kinesis_firehose_delivery_stream.sealed"
	secret := newTerraform(t, s, program, mirror, sealedStream)
	out = secret.run(1, "apply", "-auto-approve", sealed)
	if want := "Server-side encryption is not supported"; !strings.Contains(strings.Join(strings.Fields(strings.ReplaceAll(out, "│", "")), " "), want) {
		t.Errorf("no %q in\n%s", want, out)
	}
	secret.run(0, "destroy", "-auto-approve", sealed)

	tf.run(0, "destroy", "-auto-approve", "-var=changed=true")
	expect("destroyed", "")
}

// exitStatus is what a program ended with, or -1 if it did not run.
func exitStatus(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}
