package icebergrest

import (
	"context"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/tapehouse/tapehouse/internal/auth"
)

// signingName is the service of the credential scope, and of grants: that of
// AWS's own Iceberg REST endpoint.
const signingName = "glue"

// authenticate finds out who asks, and reads the body on the way: what is signed
// is the body that arrived.
func (h *Handler) authenticate(w http.ResponseWriter, c *call, o *operation) error {
	header := c.r.Header.Get("Authorization")
	scheme, token, _ := strings.Cut(header, " ")
	if strings.EqualFold(scheme, "Bearer") {
		var err error
		if c.key, err = h.o.Tokens.Check(strings.TrimSpace(token)); err != nil {
			return err
		}
		return h.read(w, c, o.bodyMax)
	}
	if header == "" {
		return newError(http.StatusUnauthorized, typeNotAuthorized, "No credentials: sign the request (Signature Version 4, name %s), or send a bearer token from %s/v1/oauth/tokens", signingName, Mount)
	}
	var a auth.Authorization
	if err := h.o.Verifier.Parse(c.r, &a); err != nil {
		return err
	}
	if a.Service != signingName {
		return newError(http.StatusUnauthorized, typeNotAuthorized, "The request is signed for the service %q: set the client's rest.signing-name to %s", bounded(a.Service), signingName)
	}
	if err := h.read(w, c, o.bodyMax); err != nil {
		return err
	}
	if err := h.o.Verifier.Check(c.r, &a, auth.PayloadSum(c.body)); err != nil {
		return err
	}
	c.key = a.Key
	return nil
}

// anyTable is the table of an operation that is about all of a namespace.
const anyTable = "*"

// authorize refuses the action unless the key's policy allows it on the table,
// or on the namespace if table is "". It runs before any state is looked at, so
// that what does not exist and what is not allowed are refused alike.
func (c *call) authorize(action string, namespace []string, table string) error {
	p := c.key.Policy
	if p.Allows(signingName, action, auth.AnyStream) {
		return nil
	}
	resource := auth.AnyStream
	if len(namespace) == 1 {
		resource = namespace[0]
		// A name that is a pattern, or parts of one, means nothing to a grant.
		sound := plain(resource)
		if table != "" {
			resource += "." + table
			sound = sound && (plain(table) || table == anyTable && c.operation.all)
		}
		if sound && p.Allows(signingName, action, resource) {
			return nil
		}
	}
	return newError(http.StatusForbidden, typeForbidden, "%s is not authorized to perform %s:%s on %s, because no grant of its key allows it", c.key.Name, signingName, action, bounded(resource))
}

// plain reports whether s is made of the characters of a catalog's name.
func plain(s string) bool {
	for i := range len(s) {
		switch b := s[i]; {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9', b == '_', b == '-':
		default:
			return false
		}
	}
	return s != ""
}

// oauthError is an error of the token endpoint, in OAuth 2.0's form (RFC 6749,
// section 5.2).
type oauthError struct {
	status      int
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

func (e *oauthError) Error() string { return e.Code + ": " + e.Description }

// Unwrap gives the status to refuse.
func (e *oauthError) Unwrap() error { return &apiError{e.status, typeNotAuthorized, e.Description} }

type tokenAnswer struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int64  `json:"expires_in"`
	IssuedType  string `json:"issued_token_type"`
	Scope       string `json:"scope,omitempty"`
}

// token exchanges an access key for a bearer token: OAuth 2.0's client
// credentials, in the body or by HTTP Basic.
func (h *Handler) token(_ context.Context, c *call) error {
	kind, _, _ := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if kind != "application/x-www-form-urlencoded" {
		return &oauthError{http.StatusBadRequest, "invalid_request", "Want a form: Content-Type application/x-www-form-urlencoded"}
	}
	form, err := url.ParseQuery(string(c.body))
	if err != nil {
		return &oauthError{http.StatusBadRequest, "invalid_request", "The form cannot be read"}
	}
	if g := form.Get("grant_type"); g != "client_credentials" {
		return &oauthError{http.StatusBadRequest, "unsupported_grant_type", "Only client_credentials is served: a token is not exchanged for another. Set token-exchange-enabled=false"}
	}
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if user, password, ok := c.r.BasicAuth(); ok && id == "" {
		id, _ = url.QueryUnescape(user)
		secret, _ = url.QueryUnescape(password)
	}
	text, life, err := h.o.Tokens.Issue(id, secret)
	if err != nil {
		return &oauthError{http.StatusUnauthorized, "invalid_client", "client_id and client_secret are not an access key of this server"}
	}
	c.out = tokenAnswer{text, "bearer", int64(life.Seconds()), "urn:ietf:params:oauth:token-type:access_token", form.Get("scope")}
	return nil
}

type configAnswer struct {
	Defaults  map[string]string `json:"defaults"`
	Overrides map[string]string `json:"overrides"`
	Endpoints []string          `json:"endpoints"`
}

// config says how the catalog is to be used. Whoever has proved who he is may
// ask: the answer tells nothing of what is in it.
func (h *Handler) config(_ context.Context, c *call) error {
	switch w := c.query.Get("warehouse"); w {
	case "", Warehouse, h.o.AccountID:
	default:
		return newError(http.StatusNotFound, typeNoSuchWarehouse, "Warehouse %q does not exist: leave it out, or say %s", bounded(w), Warehouse)
	}
	c.out = configAnswer{
		// A client asks for a new token with its credentials, and so stops when
		// they are revoked.
		Defaults:  map[string]string{"token-exchange-enabled": "false"},
		Overrides: map[string]string{"prefix": Warehouse},
		Endpoints: endpoints(),
	}
	return nil
}
