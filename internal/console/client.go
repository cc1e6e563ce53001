package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/fsys"
)

// answerSizeBytesMax bounds what a client reads: legsMax legs have about 50 MB.
const answerSizeBytesMax = 256 << 20

// Client calls the API of a running server. It is safe for concurrent use.
type Client struct {
	base     string
	user     auth.SQLUser
	http     *http.Client
	endpoint Endpoints
}

// NewClient returns a client of the server at the endpoints.
func NewClient(e Endpoints, user auth.SQLUser) *Client {
	return &Client{
		base: e.HTTPURL(), user: user, endpoint: e,
		http: &http.Client{
			Transport:     &http.Transport{MaxIdleConnsPerHost: 2, TLSClientConfig: e.TLSConfig()}, // never through a proxy: it is a neighbour
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Dial finds the server that runs on the data directory dir, and makes sure
// that it is that one. The error is ErrNotRunning if none answers.
func Dial(ctx context.Context, files fsys.FS, dir string) (*Client, error) {
	e, err := ReadEndpoints(files, dir)
	if err != nil {
		return nil, err
	}
	credentials, err := auth.Load(files, dir)
	if err != nil {
		return nil, err
	}
	c := NewClient(e, credentials.Users[0])
	info, err := c.Info(ctx)
	switch {
	case err == nil && info.PID == e.PID:
		return c, nil
	case err == nil, IsCode(err, CodeUnauthorized), errors.Is(err, errForeign):
		c.Close()
		return nil, fmt.Errorf("%w %s: another program answers at %s, where the last one listened", ErrNotRunning, dir, e.HTTP)
	case ctx.Err() == nil && errors.As(err, new(*url.Error)):
		c.Close()
		return nil, fmt.Errorf("%w %s: %s says %s, and nobody answers there", ErrNotRunning, dir, EndpointsFile, e.HTTP)
	}
	c.Close()
	return nil, err
}

// Endpoints returns the addresses that the client was made from.
func (c *Client) Endpoints() Endpoints { return c.endpoint }

// Close closes the connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Ready returns nil once the server takes requests.
func (c *Client) Ready(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := c.http.Do(r)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	_ = response.Body.Close() // what matters was read
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return Errorf(CodeUnavailable, "not ready: %s", strings.TrimSpace(string(text)))
	}
	return nil
}

// Info is Backend.Info.
func (c *Client) Info(ctx context.Context) (Info, error) { return get[Info](ctx, c, "info", nil) }

// Status is Backend.Status.
func (c *Client) Status(ctx context.Context, q StatusRequest) (Status, error) {
	v := url.Values{}
	if q.TradeDate != "" {
		v.Set("trade_date", q.TradeDate)
	}
	return get[Status](ctx, c, "status", v)
}

// Seal is Backend.Seal.
func (c *Client) Seal(ctx context.Context, q SealRequest) (Seal, error) {
	return post[Seal](ctx, c, "seal", q)
}

// Waive is Backend.Waive.
func (c *Client) Waive(ctx context.Context, q WaiveRequest) (Waiver, error) {
	return post[Waiver](ctx, c, "waive", q)
}

// Verify is Backend.Verify.
func (c *Client) Verify(ctx context.Context, q VerifyRequest) (Verification, error) {
	return post[Verification](ctx, c, "verify", q)
}

// Statements is Backend.Statements.
func (c *Client) Statements(ctx context.Context, q StatementsRequest) (StatementRun, error) {
	return post[StatementRun](ctx, c, "statements", q)
}

// Explain is Backend.Explain.
func (c *Client) Explain(ctx context.Context, q ExplainRequest) (Explanation, error) {
	v := url.Values{"statement": {q.Statement}, "line": {strconv.FormatInt(q.Line, 10)}}
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return get[Explanation](ctx, c, "explain-charge", v)
}

// Trace is Backend.Trace.
func (c *Client) Trace(ctx context.Context, q TraceRequest) (Trace, error) {
	return get[Trace](ctx, c, "trace", url.Values{"record_id": {q.RecordID}})
}

// Replay is Backend.Replay.
func (c *Client) Replay(ctx context.Context, q ReplayRequest) (Replay, error) {
	return post[Replay](ctx, c, "replay", q)
}

// Crawl is Backend.Crawl.
func (c *Client) Crawl(ctx context.Context, q CrawlRequest) (Crawl, error) {
	return post[Crawl](ctx, c, "crawl", q)
}

// Flush is Backend.Flush.
func (c *Client) Flush(ctx context.Context) (Flushed, error) {
	return post[Flushed](ctx, c, "flush", struct{}{})
}

// PlanMaintenance is Backend.PlanMaintenance.
func (c *Client) PlanMaintenance(ctx context.Context) (MaintainPlan, error) {
	return get[MaintainPlan](ctx, c, "maintenance", nil)
}

// Maintain is Backend.Maintain.
func (c *Client) Maintain(ctx context.Context) (Maintained, error) {
	return post[Maintained](ctx, c, "maintain", struct{}{})
}

// Backup is Backend.Backup.
func (c *Client) Backup(ctx context.Context, q BackupRequest) (Backup, error) {
	return post[Backup](ctx, c, "backup", q)
}

// BackupStatus is Backend.BackupStatus.
func (c *Client) BackupStatus(ctx context.Context) (BackupStatus, error) {
	return get[BackupStatus](ctx, c, "backup-status", nil)
}

func get[A any](ctx context.Context, c *Client, name string, v url.Values) (A, error) {
	u := c.base + "/api/v1/" + name
	if len(v) > 0 {
		u += "?" + v.Encode()
	}
	return call[A](ctx, c, http.MethodGet, u, nil)
}

func post[A any](ctx context.Context, c *Client, name string, q any) (A, error) {
	body, err := json.Marshal(q)
	if err != nil {
		var none A
		return none, fmt.Errorf("%s: encode the request: %w", name, err)
	}
	return call[A](ctx, c, http.MethodPost, c.base+"/api/v1/"+name, body)
}

// errForeign is an answer that no console gives.
var errForeign = errors.New("the answer is not that of a tapehouse server")

func call[A any](ctx context.Context, c *Client, method, u string, body []byte) (a A, err error) {
	r, err := http.NewRequestWithContext(ctx, method, u, bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	r.SetBasicAuth(c.user.Name, c.user.Password)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(r)
	if err != nil {
		return a, err
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, answerSizeBytesMax+1))
	_ = response.Body.Close() // what matters was read, or reading it failed
	if err != nil {
		return a, fmt.Errorf("%s: read the answer: %w", u, err)
	}
	if len(data) > answerSizeBytesMax {
		return a, fmt.Errorf("%s: the answer is longer than %d bytes", u, answerSizeBytesMax)
	}
	if response.StatusCode == http.StatusOK {
		if err := json.Unmarshal(data, &a); err != nil {
			return a, fmt.Errorf("%s: %w", u, errForeign)
		}
		return a, nil
	}
	var e struct {
		Error *Error `json:"error"`
	}
	if json.Unmarshal(data, &e) != nil || e.Error == nil {
		return a, fmt.Errorf("%s: status %s: %w", u, response.Status, errForeign)
	}
	return a, e.Error
}
