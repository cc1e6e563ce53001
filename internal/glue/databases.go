package glue

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/awsapi"
	"github.com/tapehouse/tapehouse/internal/catalog"
)

// The properties of a namespace that a database's members are kept in. Description
// and LocationUri have the names that Iceberg's catalogs over Glue give them. What
// is none of these, and does not begin with "tapehouse.", is a parameter.
const (
	propertyDescription = catalog.PropertyComment
	propertyLocation    = "location"
	propertyMark        = "exists" // of a namespace that has no other; never shown
	propertyOurs        = "tapehouse."
	propertyCreated     = "tapehouse.created-at" // RFC 3339
	propertyPermissions = "tapehouse.glue.default-permissions"
	// propertyParameter comes before the name of a parameter that is one of those above.
	propertyParameter = "tapehouse.glue.parameter."
	propertyTag       = "tapehouse.tag." // before a tag's key
)

const databasesPage = 100

type permission struct {
	Principal   *principal `json:",omitempty"`
	Permissions []string
}

type principal struct {
	ID string `json:"DataLakePrincipalIdentifier"`
}

// everybody is Glue's default: access is IAM's business alone, as it is here.
var everybody = []permission{{&principal{"IAM_ALLOWED_PRINCIPALS"}, []string{"ALL"}}}

type databaseInput struct {
	Name        string
	Description string
	LocationURI string `json:"LocationUri"`
	Parameters  map[string]string
	Permissions *[]permission `json:"CreateTableDefaultPermissions"`
}

type database struct {
	Name        string
	Description string            `json:",omitempty"`
	LocationURI string            `json:"LocationUri,omitempty"`
	Parameters  map[string]string `json:",omitempty"`
	CreateTime  *epoch            `json:",omitempty"`
	Permissions []permission      `json:"CreateTableDefaultPermissions"`
	CatalogID   string            `json:"CatalogId"`
}

func reserved(parameter string) bool {
	return parameter == propertyDescription || parameter == propertyLocation || parameter == propertyMark || strings.HasPrefix(parameter, propertyOurs)
}

// properties are what a database's definition is kept in, without what the
// catalog knows of it beside.
func (d *databaseInput) properties() (map[string]string, error) {
	p := make(map[string]string, len(d.Parameters)+3)
	for k, v := range d.Parameters {
		if reserved(k) {
			k = propertyParameter + k
		}
		p[k] = v
	}
	if d.Description != "" {
		p[propertyDescription] = d.Description
	}
	if d.LocationURI != "" {
		p[propertyLocation] = d.LocationURI
	}
	if d.Permissions == nil {
		return p, nil
	}
	for _, g := range *d.Permissions {
		if g.Principal == nil || g.Principal.ID != everybody[0].Principal.ID || !slices.Equal(g.Permissions, everybody[0].Permissions) {
			return nil, invalid("CreateTableDefaultPermissions other than ALL for IAM_ALLOWED_PRINCIPALS are not supported: give keys grants with `tapehouse credentials create --service glue`.")
		}
	}
	b, err := json.Marshal(*d.Permissions)
	p[propertyPermissions] = string(b)
	return p, err
}

func (h *Handler) database(name string, p map[string]string) (database, error) {
	d := database{Name: name, Description: p[propertyDescription], LocationURI: p[propertyLocation], CatalogID: h.account, Permissions: everybody, Parameters: map[string]string{}}
	for k, v := range p {
		if own, ok := strings.CutPrefix(k, propertyParameter); ok {
			d.Parameters[own] = v
		} else if !reserved(k) {
			d.Parameters[k] = v
		}
	}
	if v := p[propertyCreated]; v != "" {
		if t, err := time.Parse(time.RFC3339Nano, v); err == nil {
			d.CreateTime = epochOf(t)
		}
	}
	if v := p[propertyPermissions]; v != "" {
		d.Permissions = nil
		if err := json.Unmarshal([]byte(v), &d.Permissions); err != nil {
			return database{}, err
		}
	}
	return d, nil
}

// findDatabase returns a namespace's own spelling and its properties.
func (h *Handler) findDatabase(ctx context.Context, name string) (string, map[string]string, error) {
	for _, n := range spellings(name) {
		p, err := h.catalog.NamespaceProperties(ctx, n)
		if !errors.Is(err, catalog.ErrNotFound) {
			return n, p, err
		}
	}
	return "", nil, notFound("Database " + name + " not found.")
}

// spellings are the names that a client may mean: Glue folds names to lower case,
// but a table that was made by SQL or by Iceberg's clients may have other letters.
func spellings(name string) []string {
	if folded := strings.ToLower(name); folded != name {
		return []string{folded, name}
	}
	return []string{name}
}

type createDatabaseInput struct {
	catalogOf
	DatabaseInput databaseInput
	Tags          map[string]string
}

func (h *Handler) createDatabase(ctx context.Context, c *awsapi.Call, in *createDatabaseInput) (any, error) {
	name := strings.ToLower(in.DatabaseInput.Name)
	p, err := in.DatabaseInput.properties()
	if err != nil {
		return nil, err
	}
	p[propertyCreated] = h.now().UTC().Truncate(time.Millisecond).Format(time.RFC3339Nano)
	for k, v := range in.Tags {
		p[propertyTag+k] = v
	}
	err = h.catalog.CreateNamespace(ctx, name, p)
	if errors.Is(err, catalog.ErrExists) {
		return nil, awsapi.BadRequest(codeExists, "Database already exists.")
	}
	if err != nil {
		return nil, err
	}
	h.log(c, "glue database created", "database", name)
	return nil, nil
}

type databaseOf struct {
	catalogOf
	Name string
}

func (h *Handler) getDatabase(ctx context.Context, _ *awsapi.Call, in *databaseOf) (any, error) {
	name, p, err := h.findDatabase(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	d, err := h.database(name, p)
	return struct{ Database database }{d}, err
}

type getDatabasesInput struct {
	catalogOf
	NextToken         string
	MaxResults        *int
	ResourceShareType string
	AttributesToGet   []string
}

func (h *Handler) getDatabases(ctx context.Context, _ *awsapi.Call, in *getDatabasesInput) (any, error) {
	var out struct {
		DatabaseList []any
		NextToken    string `json:",omitempty"`
	}
	out.DatabaseList = []any{}
	after := ""
	if err := readToken(in.NextToken, &after); err != nil {
		return nil, err
	}
	if in.ResourceShareType == "FOREIGN" || in.ResourceShareType == "FEDERATED" {
		return out, nil
	}
	names, err := h.catalog.Namespaces(ctx)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n <= after })
	if limit := pageOf(in.MaxResults, databasesPage); len(names) > limit {
		names = names[:limit]
		if out.NextToken, err = tokenOf(names[limit-1]); err != nil {
			return nil, err
		}
	}
	for _, n := range names {
		if len(in.AttributesToGet) > 0 { // a database here has no target
			out.DatabaseList = append(out.DatabaseList, struct{ Name string }{n})
			continue
		}
		p, err := h.catalog.NamespaceProperties(ctx, n)
		if errors.Is(err, catalog.ErrNotFound) {
			continue // dropped meanwhile
		}
		if err != nil {
			return nil, err
		}
		d, err := h.database(n, p)
		if err != nil {
			return nil, err
		}
		out.DatabaseList = append(out.DatabaseList, d)
	}
	return out, nil
}

type updateDatabaseInput struct {
	catalogOf
	Name          string
	DatabaseInput databaseInput
}

func (h *Handler) updateDatabase(ctx context.Context, c *awsapi.Call, in *updateDatabaseInput) (any, error) {
	h.changes.Lock()
	defer h.changes.Unlock()
	name, before, err := h.findDatabase(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	if !strings.EqualFold(in.DatabaseInput.Name, name) {
		return nil, invalid("A database cannot be renamed: DatabaseInput.Name must be " + name + ". Create another, and move the tables.")
	}
	p, err := in.DatabaseInput.properties()
	if err != nil {
		return nil, err
	}
	var remove []string
	for k := range maps.Keys(before) {
		others := strings.HasPrefix(k, propertyOurs) && k != propertyPermissions && !strings.HasPrefix(k, propertyParameter)
		if _, stays := p[k]; !stays && !others && k != propertyMark {
			remove = append(remove, k)
		}
	}
	if err := h.catalog.UpdateNamespace(ctx, name, remove, p); err != nil {
		return nil, err
	}
	h.log(c, "glue database changed", "database", name)
	return nil, nil
}

// deleteDatabase deletes the database's tables with it, as Glue does; but all of
// them stay if one is needed.
func (h *Handler) deleteDatabase(ctx context.Context, c *awsapi.Call, in *databaseOf) (any, error) {
	h.changes.Lock()
	defer h.changes.Unlock()
	name, _, err := h.findDatabase(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	if err := h.guard.NeededDatabase(ctx, name); err != nil {
		var needed *NeededError
		if errors.As(err, &needed) {
			err = invalid("The database " + name + " cannot be deleted: " + needed.Reason + ".")
		}
		return nil, err
	}
	managed, err := h.catalog.List(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, t := range managed {
		if err := h.guard.Needed(ctx, t); err != nil {
			var needed *NeededError
			if errors.As(err, &needed) {
				err = invalid("The database " + name + " cannot be deleted: the table " + t.String() + " must stay, " + needed.Reason + ".")
			}
			return nil, err
		}
	}
	external, err := h.catalog.Externals(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, e := range external {
		if err := h.drop(ctx, entry{external: &e}); err != nil && !errors.Is(err, catalog.ErrNotFound) {
			return nil, err
		}
	}
	for _, t := range managed {
		loaded, err := h.catalog.Load(ctx, t)
		if err == nil {
			err = h.drop(ctx, entry{managed: loaded})
		}
		if err != nil && !errors.Is(err, catalog.ErrNotFound) {
			return nil, err
		}
	}
	if err := h.catalog.DropNamespace(ctx, name); err != nil && !errors.Is(err, catalog.ErrNotFound) {
		return nil, err // of a table that was made meanwhile: ErrConflict
	}
	h.log(c, "glue database deleted", "database", name, "tables", len(external)+len(managed))
	return nil, nil
}
