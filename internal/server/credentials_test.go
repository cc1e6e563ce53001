package server

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/producer"
)

func issue(t *testing.T, s *Server, kind auth.Kind, name string, g ...auth.Grant) auth.Issued {
	t.Helper()
	made, err := (&auth.Keeper{FS: fsys.OS, Dir: s.cfg.Data}).Create(t.Context(), kind, name, g...)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func as(t *testing.T, s *Server, key auth.Issued) *producer.Client {
	t.Helper()
	c, err := producer.New(producer.Config{Endpoint: "http://" + s.Addresses().AWS, Region: s.cfg.Region, AccessKey: key.ID, Secret: key.Secret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// signed sends one operation with the key and returns the error's code, or "".
func signed(t *testing.T, s *Server, key auth.Issued, operation, body string) (code, message string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.Addresses().AWS+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Amz-Target", "Firehose_20150804."+operation)
	auth.NewSigner(auth.AccessKey{ID: key.ID, Secret: key.Secret}, s.cfg.Region, "firehose").Sign(r, sha256.Sum256([]byte(body)), time.Now())
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	var e struct {
		Type    string `json:"__type"`
		Message string // of AccessDeniedException; other errors spell it message, which this takes too
	}
	if answer.StatusCode == http.StatusOK {
		return "", ""
	}
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return e.Type, e.Message
}

// Every operation with every scope, on a running server: what a key was not
// made for is denied in AWS's words, and what it was made for is not denied.
// The streams are named, and those of the bodies that are allowed do not exist,
// so that nothing is changed: an answer of the service itself is enough.
func TestRedTeamOperations(t *testing.T) {
	s := open(t, testConfig(t))
	put, read, admin := map[string]bool{}, map[string]bool{}, map[string]bool{}
	groups := map[string]map[string]bool{auth.GroupPut: put, auth.GroupRead: read, auth.GroupAdmin: admin}
	operations := auth.Operations("firehose")
	if len(operations) != 12 {
		t.Fatalf("%d operations", len(operations))
	}
	for name, group := range operations {
		groups[group][name] = true
	}
	firehose := func(operations, streams string) auth.Grant {
		return auth.Grant{Service: "firehose", Operations: []string{operations}, Streams: []string{streams}}
	}
	scopes := []struct {
		name   string
		grants []auth.Grant
		all    map[string]bool // allowed on every stream
		one    map[string]bool // allowed on feed-1
	}{
		{"putter", []auth.Grant{firehose("put", "feed-*")}, nil, put},
		{"putter-everywhere", []auth.Grant{firehose("put", "*")}, put, put},
		{"reader", []auth.Grant{firehose("read", "*")}, read, read},
		{"reader-of-one", []auth.Grant{firehose("read", "feed-1")}, nil, read},
		{"admin-of-streams", []auth.Grant{firehose("admin", "*")}, admin, admin},
		{"describer", []auth.Grant{firehose("DescribeDeliveryStream", "feed-1")}, nil, map[string]bool{"DescribeDeliveryStream": true}},
		{"of-the-console", []auth.Grant{{Service: auth.ServiceConsole, Operations: []string{"*"}, Streams: []string{"*"}}}, nil, nil},
	}
	for _, scope := range scopes {
		key := issue(t, s, auth.KindAWS, scope.name, scope.grants...)
		for operation := range operations {
			for stream, allowed := range map[string]bool{"feed-1": scope.one[operation] || scope.all[operation], "executions": scope.all[operation]} {
				if operation == "ListDeliveryStreams" {
					stream, allowed = "*", scope.all[operation]
				}
				for shape, body := range map[string]string{
					"plain":        `{"DeliveryStreamName":"` + stream + `"}`,
					"name last":    `{"Records":[{"Data":"e30="}],"Limit":1,"DeliveryStreamName":"` + stream + `"}`,
					"nested decoy": `{"Tags":[{"DeliveryStreamName":"feed-1"}],"DeliveryStreamName":"` + stream + `"}`,
				} {
					if stream == "executions" && allowed {
						continue // would change it
					}
					code, message := signed(t, s, key, operation, body)
					denied := code == "AccessDeniedException"
					if denied == allowed {
						t.Errorf("%s: %s on %s (%s): %s %s", scope.name, operation, stream, shape, code, message)
					}
					want := fmt.Sprintf("User: arn:aws:iam::000000000000:user/%s is not authorized to perform: firehose:%s on resource: arn:aws:firehose:us-east-1:000000000000:deliverystream/%s",
						scope.name, operation, stream)
					if denied && !strings.HasPrefix(message, want) {
						t.Errorf("%s, want %s", message, want)
					}
				}
				if stream != "executions" || allowed {
					continue
				}
				// Bodies that would mean one stream to one decoder and another to the next.
				for _, body := range []string{
					`{"DeliveryStreamName":"feed-1","DeliveryStreamName":"executions"}`,
					`{"DeliveryStreamName":"executions","DeliveryStreamName":"feed-1"}`,
					`{"DeliveryStreamName":"feed-1","deliverystreamname":"executions"}`,
					`{"DeliveryStreamName":"feed-1","Delivery\u0053treamName":"executions"}`,
					"{\"DeliveryStreamName\":\"feed-1\",\"Delivery\u017ftreamName\":\"executions\"}",
					`{"DeliveryStreamName":"\u0065xecutions"}`,
					`{"DeliveryStreamName":null,"x":"feed-1"}`,
					`{"DeliveryStreamName":"feed-1"} {"DeliveryStreamName":"executions"}`,
					`[{"DeliveryStreamName":"feed-1"}]`,
					``,
				} {
					if code, message := signed(t, s, key, operation, body); code != "AccessDeniedException" {
						t.Errorf("%s: %s %s: %s %s", scope.name, operation, body, code, message)
					}
				}
			}
		}
		// An access key is no login anywhere else.
		for _, user := range []string{key.ID, key.Name} {
			if _, err := pgx.Connect(t.Context(), "postgres://"+user+":"+key.Secret+"@"+s.Addresses().SQL+"/tapehouse"); err == nil {
				t.Errorf("%s logs in to SQL", user)
			}
			c := console.NewClient(console.Endpoints{HTTP: s.Addresses().HTTP}, auth.SQLUser{Name: user, Password: key.Secret})
			if _, err := c.Info(t.Context()); !console.IsCode(err, console.CodeUnauthorized) {
				t.Errorf("%s at the console: %v", user, err)
			}
			c.Close()
		}
	}
	admins := s.Credentials().Keys[0]
	if code, message := signed(t, s, auth.Issued{ID: admins.ID, Secret: admins.Secret}, "ListDeliveryStreams", "{}"); code != "" {
		t.Errorf("the first start's key: %s %s", code, message)
	}
}

func TestRedTeamUsers(t *testing.T) {
	s := open(t, testConfig(t))
	user := func(name string, operations ...string) auth.SQLUser {
		t.Helper()
		made := issue(t, s, auth.KindSQL, name, auth.Grant{Service: "*", Operations: operations, Streams: []string{"*"}})
		return auth.SQLUser{Name: name, Password: made.Secret}
	}
	ctx := t.Context()
	day := "2026-11-20"
	calls := map[string]func(*console.Client) error{
		"info": func(c *console.Client) error { _, err := c.Info(ctx); return err },
		"status": func(c *console.Client) error {
			_, err := c.Status(ctx, console.StatusRequest{TradeDate: day})
			return err
		},
		"explain-charge": func(c *console.Client) error {
			_, err := c.Explain(ctx, console.ExplainRequest{Statement: "none", Line: 1})
			return err
		},
		"verify": func(c *console.Client) error {
			_, err := c.Verify(ctx, console.VerifyRequest{TradeDate: day})
			return err
		},
		"statements": func(c *console.Client) error {
			_, err := c.Statements(ctx, console.StatementsRequest{TradeDate: day})
			return err
		},
		"seal": func(c *console.Client) error {
			_, err := c.Seal(ctx, console.SealRequest{TradeDate: day, By: "red"})
			return err
		},
		"waive": func(c *console.Client) error {
			_, err := c.Waive(ctx, console.WaiveRequest{TradeDate: day})
			return err
		},
	}
	groups := auth.Operations(auth.ServiceConsole)
	for _, c := range []struct {
		user    auth.SQLUser
		sql     bool
		console map[string]bool // by group
	}{
		{user("analyst", "connect"), true, nil},
		{user("watcher", "read"), false, map[string]bool{auth.GroupRead: true}},
		{user("closer", "connect", "read", "admin"), true, map[string]bool{auth.GroupRead: true, auth.GroupAdmin: true}},
		{user("putter", "put"), false, nil},
		{s.Credentials().Users[0], true, map[string]bool{auth.GroupRead: true, auth.GroupAdmin: true}},
	} {
		conn, err := pgx.Connect(ctx, "postgres://"+c.user.Name+":"+c.user.Password+"@"+s.Addresses().SQL+"/tapehouse")
		if c.sql != (err == nil) {
			t.Errorf("%s: SQL: %v", c.user.Name, err)
		}
		if err == nil {
			if got := text(t, conn, "SELECT current_user"); got != c.user.Name {
				t.Errorf("current_user is %s", got)
			}
			_ = conn.Close(ctx)
		} else if p, ok := errors.AsType[*pgconn.PgError](err); !ok || p.Code != "28000" || !strings.Contains(p.Message, "is not permitted to log in") {
			t.Errorf("%s: %v", c.user.Name, err)
		}
		client := console.NewClient(console.Endpoints{HTTP: s.Addresses().HTTP}, c.user)
		for name, call := range calls {
			if forbidden := console.IsCode(call(client), console.CodeForbidden); forbidden == c.console[groups[name]] {
				t.Errorf("%s: %s: forbidden %v", c.user.Name, name, forbidden)
			}
		}
		client.Close()
	}

	// A changed password is in force at once, a revoked user within the poll.
	k := &auth.Keeper{FS: fsys.OS, Dir: s.cfg.Data}
	login := func(name, password string) error {
		conn, err := pgx.Connect(ctx, "postgres://"+name+":"+password+"@"+s.Addresses().SQL+"/tapehouse")
		if err == nil {
			_ = conn.Close(ctx)
		}
		return err
	}
	made, err := k.Rotate(ctx, auth.KindSQL, "analyst", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := login("analyst", made.Secret); err != nil {
		t.Errorf("the new password: %v", err)
	}
	open, err := pgx.Connect(ctx, "postgres://analyst:"+made.Secret+"@"+s.Addresses().SQL+"/tapehouse")
	if err != nil {
		t.Fatal(err)
	}
	busy, err := pgx.Connect(ctx, "postgres://analyst:"+made.Secret+"@"+s.Addresses().SQL+"/tapehouse")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := busy.Exec(ctx, "SELECT count(*) FROM generate_series(1, 100000) AS a(x), generate_series(1, 100000) AS b(y), generate_series(1, 1000) AS c(z) WHERE x * y % 7 = z")
		ended <- err
	}()
	waitFor(t, "the statement runs", func() bool { return gauge(t, s, "tapehouse_engine_open_queries", "") > 0 })
	other := connect(t, s)
	if err := k.Revoke(ctx, auth.KindSQL, "analyst", "", false); err != nil {
		t.Fatal(err)
	}
	// The session ends too, and only that one.
	waitFor(t, "the session of a revoked user ends", func() bool { return open.Ping(ctx) != nil })
	_ = open.Close(ctx)
	if p, ok := errors.AsType[*pgconn.PgError](<-ended); !ok || p.Code != "57P01" {
		t.Errorf("the statement that ran: %v", p)
	}
	if got := text(t, other, "SELECT 1"); got != "1" {
		t.Errorf("another user's session answers %s", got)
	}
	if err := login("analyst", made.Secret); err == nil {
		t.Error("a revoked user logs in")
	}
}

// The aws CLI with a producer's key, which can do nothing but put.
func TestAWSCLIWithAProducersKey(t *testing.T) {
	program := look(t, "aws", "a producer's key was not tried with AWS's own command line")
	s := open(t, testConfig(t))
	key := issue(t, s, auth.KindAWS, "notes-feed", auth.Grant{Service: "firehose", Operations: []string{"put"}, Streams: []string{"execution*"}})
	env := append(environ(t, s), "AWS_ACCESS_KEY_ID="+key.ID, "AWS_SECRET_ACCESS_KEY="+key.Secret)
	file := filepath.Join(t.TempDir(), "record.json")
	if err := os.WriteFile(file, newLeg("A", 1).document(t), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, env, "", program, "firehose", "put-record", "--delivery-stream-name", "executions", "--record", "Data@=fileb://"+file)
	if err != nil || !strings.Contains(out, "RecordId") {
		t.Fatalf("put: %v\n%s", err, out)
	}
	const denied = "An error occurred (AccessDeniedException) when calling the %s operation: User: arn:aws:iam::000000000000:user/notes-feed is not authorized to perform: firehose:%[1]s on resource: arn:aws:firehose:us-east-1:000000000000:deliverystream/%s"
	for _, c := range []struct {
		operation, stream string
		args              []string
	}{
		{"ListDeliveryStreams", "*", []string{"list-delivery-streams"}},
		{"DescribeDeliveryStream", "executions", []string{"describe-delivery-stream", "--delivery-stream-name", "executions"}},
		{"DeleteDeliveryStream", "executions", []string{"delete-delivery-stream", "--delivery-stream-name", "executions"}},
		{"PutRecord", "markers", []string{"put-record", "--delivery-stream-name", "markers", "--record", "Data@=fileb://" + file}},
		{"CreateDeliveryStream", "execution-notes", []string{"create-delivery-stream", "--delivery-stream-name", "execution-notes", "--iceberg-destination-configuration", notesStream}},
	} {
		out, err := run(t, env, "", program, append([]string{"firehose"}, c.args...)...)
		if want := fmt.Sprintf(denied, c.operation, c.stream); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v\n got %s\nwant %s", c.operation, err, out, want)
		}
	}
	if got := text(t, connect(t, s), "SELECT count(*) FROM executions"); got != "1" {
		t.Errorf("%s rows", got)
	}
}

// A rotation under load: producers that change over one after another never see
// a put fail, the old key's last use can be read, and it ends.
func TestRotationUnderLoad(t *testing.T) {
	s := open(t, testConfig(t))
	ctx := t.Context()
	grant := auth.Grant{Service: "firehose", Operations: []string{"put"}, Streams: []string{"executions"}}
	key := issue(t, s, auth.KindAWS, "feed", grant)
	k := &auth.Keeper{FS: fsys.OS, Dir: s.cfg.Data}

	const producers = 6
	var current atomic.Pointer[auth.Issued] // what producers are told to use
	current.Store(&key)
	var uses [producers]atomic.Pointer[auth.Issued]
	var puts atomic.Int64
	var wg sync.WaitGroup
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	for p := range producers {
		wg.Go(func() {
			mine := current.Load()
			c := as(t, s, *mine)
			uses[p].Store(mine)
			for n := int64(1); stop.Err() == nil; n++ {
				// Producers change over at different times, some while the rotation is young.
				if now := current.Load(); now != mine && n%int64(p+2) == 0 {
					mine, c = now, as(t, s, *now)
					uses[p].Store(mine)
				}
				// PutBatch retries nothing that is denied or unknown: such an error ends it.
				if _, err := c.PutBatch(ctx, "executions", [][]byte{newLeg(fmt.Sprint("P", p), n).document(t)}); err != nil {
					t.Errorf("producer %d, put %d: %v", p, n, err)
					return
				}
				puts.Add(1)
			}
		})
	}
	rotations := 0
	for range 4 {
		before := puts.Load()
		next, err := k.Rotate(ctx, auth.KindAWS, "feed", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		old := *current.Load()
		current.Store(&next)
		waitFor(t, "producers change over", func() bool {
			for p := range uses {
				if uses[p].Load() != &next {
					return false
				}
			}
			return puts.Load() > before+100
		})
		// All have moved: the old key may end, whatever its last use says a minute late.
		if err := k.Revoke(ctx, auth.KindAWS, "feed", old.ID, true); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the old key is refused", func() bool {
			code, _ := signed(t, s, old, "PutRecord", `{"DeliveryStreamName":"executions"}`)
			return code == "UnrecognizedClientException"
		})
		rotations++
	}
	cancel()
	wg.Wait()
	if got := text(t, connect(t, s), "SELECT count(*) FROM executions"); got != fmt.Sprint(puts.Load()) {
		t.Errorf("%s rows of %d puts after %d rotations", got, puts.Load(), rotations)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	list, err := k.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		if l.Name == "feed" && (l.ID != current.Load().ID || time.Since(l.LastUsedAt) > time.Minute) {
			t.Errorf("%+v", l)
		}
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
