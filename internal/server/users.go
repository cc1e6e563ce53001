package server

import (
	"context"
	"fmt"
	"sync"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/warehouse"
)

// sqlUsers are the SQL users with their SCRAM verifiers, which are derived once
// for each version of the credentials, for all users together: whether a user
// exists cannot be told by the time of an answer.
type sqlUsers struct {
	store *auth.Store

	mu        sync.Mutex
	of        *auth.Credentials // the version that verifiers belongs to
	verifiers map[string]auth.SCRAMVerifier
}

func newSQLUsers(store *auth.Store) (*sqlUsers, error) {
	u := &sqlUsers{store: store}
	_, err := u.current()
	return u, err
}

// current returns the verifiers of the credentials in force; the map is not
// changed any more.
func (u *sqlUsers) current() (map[string]auth.SCRAMVerifier, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := u.store.Credentials()
	if c == u.of {
		return u.verifiers, nil
	}
	out := make(map[string]auth.SCRAMVerifier, len(c.Users))
	for _, user := range c.Users {
		v, err := auth.NewSCRAMVerifier(user.Password)
		if err != nil {
			return nil, fmt.Errorf("derive the verifier of SQL user %s: %w", user.Name, err)
		}
		out[user.Name] = v
	}
	u.of, u.verifiers = c, out
	return out, nil
}

// SCRAMVerifier implements pgwire's Credentials.
func (u *sqlUsers) SCRAMVerifier(_ context.Context, user string) (auth.SCRAMVerifier, bool, error) {
	u.store.Refresh() // a password that was just changed is in force
	verifiers, err := u.current()
	if err != nil {
		return auth.SCRAMVerifier{}, false, err
	}
	v, ok := verifiers[user]
	return v, ok, nil
}

// admit refuses a user who has proved who he is, but may not use SQL.
func (u *sqlUsers) admit(name string) error {
	if !mayConnect(u.store.Credentials(), name) {
		return statementError{&warehouse.Error{Severity: "FATAL", Code: "28000", Message: "role \"" + name + "\" is not permitted to log in",
			Hint: "A user whose credentials allow connect may."}}
	}
	u.store.UsedBy(name)
	return nil
}

// mayConnect reports whether there is a user of that name who may use SQL.
func mayConnect(c *auth.Credentials, name string) bool {
	user, ok := c.User(name)
	return ok && user.Policy.Allows(auth.ServiceSQL, auth.OperationConnect, auth.AnyStream)
}
