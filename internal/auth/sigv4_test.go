package auth

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// suite is AWS's published "aws-sig-v4-test-suite": the key, region, service
// and time are suiteKey, us-east-1, service and 2015-08-30T12:36:00Z. Left out
// are the vectors that net/http cannot receive (a raw space in the path, a
// header continued on the next line).
var suite = []struct{ name, line, headers, body, signed, signature string }{
	{"get-header-key-duplicate", "GET /", "My-Header1:value2\nMy-Header1:value2\nMy-Header1:value1", "", "host;my-header1;x-amz-date", "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},
	{"get-header-value-order", "GET /", "My-Header1:value4\nMy-Header1:value1\nMy-Header1:value3\nMy-Header1:value2", "", "host;my-header1;x-amz-date", "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01"},
	{"get-header-value-trim", "GET /", "My-Header1: value1\nMy-Header2: \"a   b   c\"", "", "host;my-header1;my-header2;x-amz-date", "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
	{"get-unreserved", "GET /-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", "", "", "host;x-amz-date", "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
	{"get-vanilla", "GET /", "", "", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
	{"get-vanilla-empty-query-key", "GET /?Param1=value1", "", "", "host;x-amz-date", "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb"},
	{"get-vanilla-query-order-key", "GET /?Param1=value2&Param1=Value1", "", "", "host;x-amz-date", "eedbc4e291e521cf13422ffca22be7d2eb8146eecf653089df300a15b2382bd1"},
	{"get-vanilla-query-order-key-case", "GET /?Param2=value2&Param1=value1", "", "", "host;x-amz-date", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
	{"get-vanilla-query-order-value", "GET /?Param1=value2&Param1=value1", "", "", "host;x-amz-date", "5772eed61e12b33fae39ee5e7012498b51d56abc0abb7c60486157bd471c4694"},
	{"get-vanilla-query-unreserved", "GET /?-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz=-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", "", "", "host;x-amz-date", "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"},
	{"get-vanilla-utf8-query", "GET /?ሴ=bar", "", "", "host;x-amz-date", "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"},
	{"post-header-key-case", "POST /", "", "", "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
	{"post-header-key-sort", "POST /", "My-Header1:value1", "", "host;my-header1;x-amz-date", "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c"},
	{"post-header-value-case", "POST /", "My-Header1:VALUE1", "", "host;my-header1;x-amz-date", "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d"},
	{"post-vanilla-empty-query-value", "POST /?Param1=value1", "", "", "host;x-amz-date", "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11"},
	{"post-x-www-form-urlencoded", "POST /", "Content-Type:application/x-www-form-urlencoded\nContent-Length:13", "Param1=value1", "content-type;host;x-amz-date", "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"},
	{"post-x-www-form-urlencoded-parameters", "POST /", "Content-Type:application/x-www-form-urlencoded; charset=utf8", "Param1=value1", "content-type;host;x-amz-date", "1a72ec8f64bd914b0e42e42607c7fbce7fb2c7465f63e3092b3b0d39fa77a6fe"},
	{"get-relative", "GET /example/..", "", "", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
	{"get-relative-relative", "GET /example1/example2/../..", "", "", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
	{"get-slash", "GET //", "", "", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
	{"get-slash-dot-slash", "GET /./", "", "", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
	{"get-slash-pointless-dot", "GET /./example", "", "", "host;x-amz-date", "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5"},
	{"get-slashes", "GET //example//", "", "", "host;x-amz-date", "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84"},
	{"post-sts-header-before", "POST /", "X-Amz-Security-Token:AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==", "", "host;x-amz-date;x-amz-security-token", "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"},
}

var (
	suiteKey = AccessKey{Name: "suite", ID: "AKIDEXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
	suiteAt  = time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)
)

func keysOf(keys ...AccessKey) *Credentials { return &Credentials{Keys: keys} }

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

// receive parses a request as the server would.
func receive(t testing.TB, raw string) (*http.Request, [32]byte) {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
	if err != nil {
		t.Fatalf("read request: %v\n%s", err, raw)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, sha256.Sum256(body)
}

func verify(v *Verifier, r *http.Request, body [32]byte) error {
	var a Authorization
	if err := v.Parse(r, &a); err != nil {
		return err
	}
	return v.Check(r, &a, body)
}

func TestPublishedSuite(t *testing.T) {
	v := NewVerifier(keysOf(suiteKey), at(suiteAt))
	for _, c := range suite {
		headers := c.headers
		if headers != "" {
			headers = strings.ReplaceAll(headers, "\n", "\r\n") + "\r\n"
		}
		if c.body != "" && !strings.Contains(strings.ToLower(headers), "content-length:") {
			headers += "Content-Length: " + strconv.Itoa(len(c.body)) + "\r\n"
		}
		raw := c.line + " HTTP/1.1\r\nHost: example.amazonaws.com\r\nX-Amz-Date: 20150830T123600Z\r\n" + headers +
			"Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=" +
			c.signed + ", Signature=" + c.signature + "\r\n\r\n" + c.body
		r, sum := receive(t, raw)
		if err := verify(v, r, sum); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if err := verify(v, r, sha256.Sum256([]byte("another body"))); err == nil {
			t.Errorf("%s: accepted with another body", c.name)
		}
	}
}

// botocoreScript signs requests with botocore, which nobody here wrote, and
// prints them one JSON object a line.
const botocoreScript = `
import base64, datetime, json, random, sys
import botocore.auth as A
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
when = datetime.datetime(2026, 11, 23, 14, 30, 5)
if hasattr(A, "get_current_datetime"):
    A.get_current_datetime = lambda *a, **k: when
else:
    class D(datetime.datetime):
        @classmethod
        def utcnow(cls): return when
    A.datetime.datetime = D
rng = random.Random(7)
paths = ["/", "", "/a/b", "/a%20b/c", "/x/../y/", "//z//", "/~u/a-b_c.d", "/%E1%88%B4", "/a=b&c", "/a+b", "/a:b@c,d;e", "/caf%C3%A9/x%2Fy"]
queries = ["", "a=1", "b=2&a=1", "a=2&a=1", "k=%20x&k2=a%2Bb", "empty=", "x=%E1%88%B4&A=~-_.", "a-b=1&a=2&a.b=3&aB=4"]
for i in range(200):
    body = rng.randbytes(rng.choice([0, 1, 63, 64, 65, 1000, 4097]))
    path, query = rng.choice(paths), rng.choice(queries)
    region = rng.choice(["us-east-1", "eu-central-1", "us-gov-west-1"])
    service = rng.choice(["firehose", "glue", "athena"])
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "Firehose_20150804.PutRecord"}
    if rng.random() < .5: headers["My-Header"] = rng.choice(["a  b   c", " lead and trail ", '"q  q"', "plain"])
    if rng.random() < .3: headers["Content-Length"] = str(len(body))
    if rng.random() < .3: headers["User-Agent"] = "x/1.0 (y;  z)"
    token = "tok/en+==" if rng.random() < .3 else None
    url = "http://127.0.0.1:4566" + path + ("?" + query if query else "")
    r = AWSRequest(method=rng.choice(["POST", "GET", "PUT"]), url=url, data=body, headers=headers)
    A.SigV4Auth(Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token), service, region).add_auth(r)
    print(json.dumps({"method": r.method, "target": (path or "/") + ("?" + query if query else ""), "headers": list(r.headers.items()), "body": base64.b64encode(body).decode()}))
`

// python returns an interpreter that can import module, or says loudly that
// the check against it did not run.
func python(t *testing.T, module string) string {
	t.Helper()
	for _, name := range []string{"python3", "python"} {
		path, err := exec.LookPath(name)
		if err == nil && exec.Command(path, "-c", "import "+module).Run() == nil {
			return path
		}
	}
	t.Skipf("SKIPPED: no python3 with %s on this machine: the comparison with AWS's own client did not run", module)
	return ""
}

func TestBotocoreSignatures(t *testing.T) {
	cmd := exec.Command(python(t, "botocore"), "-c", botocoreScript)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("sign with botocore: %v\n%s", err, stderr.String())
	}
	v := NewVerifier(keysOf(suiteKey), at(time.Date(2026, 11, 23, 14, 32, 0, 0, time.UTC)))
	n := 0
	for line := range bytes.Lines(out) {
		var c struct {
			Method, Target, Body string
			Headers              [][2]string
		}
		if err := json.Unmarshal(line, &c); err != nil {
			t.Fatal(err)
		}
		body, err := base64.StdEncoding.DecodeString(c.Body)
		if err != nil {
			t.Fatal(err)
		}
		raw := c.Method + " " + c.Target + " HTTP/1.1\r\nHost: 127.0.0.1:4566\r\n"
		for _, h := range c.Headers {
			if h[0] != "Content-Length" {
				raw += h[0] + ": " + h[1] + "\r\n"
			}
		}
		raw += "Content-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + string(body)
		r, sum := receive(t, raw)
		if err := verify(v, r, sum); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
		sum[0] ^= 1
		if err := verify(v, r, sum); err == nil {
			t.Errorf("accepted with another body: %s", raw)
		}
		n++
	}
	if n != 200 {
		t.Fatalf("botocore signed %d requests, want 200", n)
	}
}

func signed(t testing.TB, key AccessKey, when time.Time, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, "http://127.0.0.1:4566/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "Firehose_20150804.PutRecordBatch")
	NewSigner(key, "us-east-1", "firehose").Sign(r, sha256.Sum256([]byte(body)), when)
	return r
}

func TestVerifyErrors(t *testing.T) {
	now := time.Date(2026, 11, 23, 14, 30, 0, 0, time.UTC)
	body := sha256.Sum256([]byte("{}"))
	cases := []struct {
		name    string
		key     AccessKey
		at      time.Time
		change  func(*http.Request)
		code    string
		message string
	}{
		{"accepted", suiteKey, now, nil, "", ""},
		{"five minutes late", suiteKey, now.Add(-SkewMax), nil, "", ""},
		{"five minutes early", suiteKey, now.Add(SkewMax), nil, "", ""},
		{"expired", suiteKey, now.Add(-SkewMax - time.Second), nil, CodeInvalidSignature, "Signature expired: 20261123T142459Z is now earlier than 20261123T142500Z (20261123T143000Z - 5 min.)"},
		{"early", suiteKey, now.Add(SkewMax + time.Second), nil, CodeInvalidSignature, "Signature not yet current: 20261123T143501Z is still later than 20261123T143500Z (20261123T143000Z + 5 min.)"},
		{"wrong secret", AccessKey{ID: suiteKey.ID, Secret: "another secret"}, now, nil, CodeInvalidSignature, errMismatch.Message},
		{"unknown key", AccessKey{ID: "AKIAUNKNOWN", Secret: suiteKey.Secret}, now, nil, CodeUnrecognizedClient, "The security token included in the request is invalid."},
		{"none", suiteKey, now, func(r *http.Request) { r.Header.Del("Authorization") }, CodeMissingToken, "Missing Authentication Token"},
		{"basic", suiteKey, now, func(r *http.Request) { r.SetBasicAuth("a", "b") }, CodeIncompleteSignature, errAlgorithm.Message},
		{"sigv4a", suiteKey, now, func(r *http.Request) {
			r.Header.Set("Authorization", "AWS4-ECDSA-P256-SHA256 Credential=x")
		}, CodeIncompleteSignature, errAlgorithm.Message},
		{"empty", suiteKey, now, func(r *http.Request) {
			r.Header.Set("Authorization", "AWS4-HMAC-SHA256 ")
		}, CodeIncompleteSignature, "Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter."},
		{"no date", suiteKey, now, func(r *http.Request) { r.Header.Del("X-Amz-Date") }, CodeIncompleteSignature, "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."},
		{"bad date", suiteKey, now, func(r *http.Request) { r.Header.Set("X-Amz-Date", "yesterday") }, CodeIncompleteSignature, "Date must be in ISO-8601 'basic format'. Got 'yesterday'. See http://en.wikipedia.org/wiki/ISO_8601"},
		{"other date", suiteKey, now, func(r *http.Request) { r.Header.Set("X-Amz-Date", "20261124T000000Z") }, CodeInvalidSignature, "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '20261123' != '20261124', from '20261124T000000Z'."},
		{"scope", suiteKey, now, replace("/aws4_request", "/aws4"), CodeIncompleteSignature, "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got 'AKIDEXAMPLE/20261123/us-east-1/firehose/aws4'"},
		{"long scope", suiteKey, now, replace("AKIDEXAMPLE/", "AKIDEXAMPLE/x/"), CodeIncompleteSignature, "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got 'AKIDEXAMPLE/x/20261123/us-east-1/firehose/aws4_request'"},
		{"service", suiteKey, now, replace("/firehose/", "/glue/"), CodeInvalidSignature, errMismatch.Message},
		{"region", suiteKey, now, replace("/us-east-1/", "/us-east-2/"), CodeInvalidSignature, errMismatch.Message},
		{"host unsigned", suiteKey, now, replace("host;", ""), CodeInvalidSignature, errHostUnsigned.Message},
		{"target unsigned", suiteKey, now, replace(";x-amz-target", ""), CodeInvalidSignature, errTargetUnsigned.Message},
		{"unsorted", suiteKey, now, replace("content-type;host", "host;content-type"), CodeIncompleteSignature, "SignedHeaders must be lower-case, sorted and distinct, at 'content-type'"},
		{"short signature", suiteKey, now, replace("Signature=", "Signature=0"), CodeInvalidSignature, errMismatch.Message},
		{"not hexadecimal", suiteKey, now, func(r *http.Request) {
			h := r.Header.Get("Authorization")
			r.Header.Set("Authorization", h[:len(h)-1]+"g")
		}, CodeInvalidSignature, errMismatch.Message},
		{"operation changed", suiteKey, now, func(r *http.Request) {
			r.Header.Set("X-Amz-Target", "Firehose_20150804.DeleteDeliveryStream")
		}, CodeInvalidSignature, errMismatch.Message},
		{"host changed", suiteKey, now, func(r *http.Request) { r.Host = "elsewhere" }, CodeInvalidSignature, errMismatch.Message},
		{"method changed", suiteKey, now, func(r *http.Request) { r.Method = "PUT" }, CodeInvalidSignature, errMismatch.Message},
		{"path changed", suiteKey, now, func(r *http.Request) { r.URL.Path = "/x" }, CodeInvalidSignature, errMismatch.Message},
		{"query added", suiteKey, now, func(r *http.Request) { r.URL.RawQuery = "x=1" }, CodeInvalidSignature, errMismatch.Message},
		{"huge query", suiteKey, now, func(r *http.Request) { r.URL.RawQuery = strings.Repeat("x=1&", 2000) }, CodeInvalidSignature, errMismatch.Message},
		{"hash claimed", suiteKey, now, func(r *http.Request) {
			r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
		}, CodeInvalidSignature, errMismatch.Message},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			v := NewVerifier(keysOf(suiteKey), at(now))
			r := signed(t, c.key, c.at, "{}")
			if c.change != nil {
				c.change(r)
			}
			err := verify(v, r, body)
			if c.code == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var e *Error
			if !errors.As(err, &e) || e.Code != c.code || e.Message != c.message {
				t.Fatalf("got  %v\nwant %s: %s", err, c.code, c.message)
			}
			if len(v.cache) != 0 {
				t.Fatal("a refused request was remembered")
			}
			if strings.Contains(err.Error(), suiteKey.Secret) {
				t.Fatal("the error holds the secret")
			}
		})
	}
}

func replace(from, to string) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), from, to, 1))
	}
}

func TestDateHeaderAndClaimedHash(t *testing.T) {
	// A client may send Date instead of X-Amz-Date, and may state the hash.
	now := time.Date(2026, 11, 23, 14, 30, 0, 0, time.UTC)
	sum := sha256.Sum256([]byte("{}"))
	r := signed(t, suiteKey, now, "{}")
	r.Header.Set("X-Amz-Content-Sha256", "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a")
	NewSigner(suiteKey, "us-east-1", "firehose").Sign(r, sum, now)
	if err := verify(NewVerifier(keysOf(suiteKey), at(now)), r, sum); err != nil {
		t.Fatal(err)
	}
	for claim, ok := range map[string]bool{base64.StdEncoding.EncodeToString(sum[:]): true, "RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o": false,
		"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=": false} { // in base64; without its padding; of no body
		claiming := signed(t, suiteKey, now, "{}")
		claiming.Header.Set("X-Amz-Content-Sha256", claim)
		NewSigner(suiteKey, "us-east-1", "firehose").Sign(claiming, sum, now)
		if err := verify(NewVerifier(keysOf(suiteKey), at(now)), claiming, sum); (err == nil) != ok {
			t.Errorf("%s: %v", claim, err)
		}
	}
	r.Header.Set("Date", now.Format(http.TimeFormat))
	r.Header.Del("X-Amz-Date")
	r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), ";x-amz-date", "", 1))
	var a Authorization
	if err := NewVerifier(keysOf(suiteKey), at(now)).Parse(r, &a); err != nil || a.Time != "20261123T143000Z" {
		t.Fatalf("%v, %q", err, a.Time)
	}
}

func TestRotatedSecret(t *testing.T) {
	now := time.Date(2026, 11, 23, 14, 30, 0, 0, time.UTC)
	sum := sha256.Sum256([]byte("{}"))
	keys := keysOf(suiteKey)
	v := NewVerifier(keys, at(now))
	if err := verify(v, signed(t, suiteKey, now, "{}"), sum); err != nil {
		t.Fatal(err)
	}
	rotated := AccessKey{ID: suiteKey.ID, Secret: "the secret that came afterwards"}
	keys.Keys[0] = rotated
	if err := verify(v, signed(t, suiteKey, now, "{}"), sum); err == nil {
		t.Fatal("the former secret is still accepted")
	}
	if err := verify(v, signed(t, rotated, now, "{}"), sum); err != nil {
		t.Fatal(err)
	}
}

func TestCacheIsBounded(t *testing.T) {
	now := time.Date(2026, 11, 23, 14, 30, 0, 0, time.UTC)
	v := NewVerifier(keysOf(suiteKey), at(now))
	for i := range 3 * signingKeysMax {
		v.remember(&Authorization{Key: suiteKey, Region: strconv.Itoa(i)}, signingKey{})
	}
	if len(v.cache) > signingKeysMax {
		t.Fatalf("%d keys kept", len(v.cache))
	}
}

func TestHMAC(t *testing.T) {
	for _, kn := range []int{0, 1, 20, 32, 63, 64, 65, 131, 400} {
		for _, mn := range []int{0, 1, 55, 150, 255, 256, 257, 1000} {
			key, message := bytes.Repeat([]byte{0xaa}, kn), bytes.Repeat([]byte{0x5d}, mn)
			h := hmac.New(sha256.New, key)
			h.Write(message)
			if got := hmacSHA256(key, message); !bytes.Equal(got[:], h.Sum(nil)) {
				t.Fatalf("key %d, message %d bytes", kn, mn)
			}
		}
	}
}

func TestParseTime(t *testing.T) {
	for _, s := range []string{"20150830T123600Z", "20240229T235959Z", "19991231T000000Z"} {
		want, err := time.Parse(timeLayout, s)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := parseTime(s); !ok || !got.Equal(want) {
			t.Errorf("%s: %v %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "2015-08-30T12:36:00Z", "20150830T123600", "20150830T1236000", "20151330T123600Z", "20150431T000000Z", "20150830T243600Z", "2015083 T123600Z", "20150230T000000Z"} {
		if got, ok := parseTime(s); ok {
			t.Errorf("%q was read as %v", s, got)
		}
	}
}

func TestVerifyDoesNotAllocate(t *testing.T) {
	now := time.Date(2026, 11, 23, 14, 30, 0, 0, time.UTC)
	v := NewVerifier(keysOf(suiteKey), at(now))
	r := signed(t, suiteKey, now, "{}")
	r.RequestURI = "/"
	sum := sha256.Sum256([]byte("{}"))
	var a Authorization
	n := testing.AllocsPerRun(100, func() {
		if err := v.Parse(r, &a); err != nil {
			t.Fatal(err)
		}
		if err := v.Check(r, &a, sum); err != nil {
			t.Fatal(err)
		}
	})
	if n > 0.5 {
		t.Fatalf("%.1f allocations a request", n)
	}
}

func BenchmarkVerify(b *testing.B) {
	now := time.Date(2026, 11, 23, 14, 30, 0, 0, time.UTC)
	v := NewVerifier(keysOf(suiteKey), at(now))
	r := signed(b, suiteKey, now, "{}")
	r.RequestURI = "/"
	sum := sha256.Sum256([]byte("{}"))
	var a Authorization
	b.ReportAllocs()
	for b.Loop() {
		if err := v.Parse(r, &a); err != nil {
			b.Fatal(err)
		}
		if err := v.Check(r, &a, sum); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSign(b *testing.B) {
	now := time.Date(2026, 11, 23, 14, 30, 0, 0, time.UTC)
	r := signed(b, suiteKey, now, "{}")
	s := NewSigner(suiteKey, "us-east-1", "firehose")
	sum := sha256.Sum256([]byte("{}"))
	b.ReportAllocs()
	for b.Loop() {
		s.Sign(r, sum, now)
	}
}

// FuzzVerify feeds hostile headers: no input may panic, and none but the
// signed request itself may be accepted.
func FuzzVerify(f *testing.F) {
	now := time.Date(2026, 11, 23, 14, 30, 0, 0, time.UTC)
	genuine := signed(f, suiteKey, now, "{}")
	authorization := genuine.Header.Get("Authorization")
	f.Add("POST", "/", authorization, "20261123T143000Z", "Firehose_20150804.PutRecordBatch", "127.0.0.1:4566")
	f.Add("GET", "/a/../b?x=%2", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261123/us-east-1/firehose/aws4_request,SignedHeaders=host;x-amz-date;x-amz-target,Signature="+strings.Repeat("0", 64), "20261123T143000Z", "", "")
	f.Add("POST", "http://x", "AWS4-HMAC-SHA256 Credential=////,SignedHeaders=;;,Signature==", "Mon, 23 Nov 2026 14:30:00 GMT", "x", "h")
	sum := sha256.Sum256([]byte("{}"))
	f.Fuzz(func(t *testing.T, method, uri, authorization, date, target, host string) {
		r := genuine.Clone(t.Context())
		r.Method, r.RequestURI, r.Host = method, uri, host
		r.Header.Set("Authorization", authorization)
		r.Header.Set("X-Amz-Date", date)
		r.Header.Set("X-Amz-Target", target)
		v := NewVerifier(keysOf(suiteKey), at(now))
		err := verify(v, r, sum)
		if err == nil {
			path, query := wirePath(r)
			if method != "POST" || date != "20261123T143000Z" || target != "Firehose_20150804.PutRecordBatch" || strings.TrimSpace(host) != "127.0.0.1:4566" || query != "" && strings.Trim(query, "&") != "" || normalized(path) != "/" && path != "" {
				t.Fatalf("accepted %q %q %q %q %q %q", method, uri, authorization, date, target, host)
			}
			return
		}
		var e *Error
		if !errors.As(err, &e) {
			t.Fatalf("%T: %v", err, err)
		}
	})
}
