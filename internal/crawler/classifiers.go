package crawler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tapehouse/tapehouse/internal/catalog"
)

// classifiersKept bounds the classifiers.
const classifiersKept = 1_000

// CreateClassifier keeps a classifier. Errors: ErrInvalid, ErrExists, ErrTooMany.
func (m *Manager) CreateClassifier(ctx context.Context, c Classifier) error {
	if err := c.check(); err != nil {
		return err
	}
	have, err := m.o.Catalog.ListDocuments(ctx, kindClassifier, "")
	if err != nil {
		return err
	}
	if len(have) >= classifiersKept {
		return fmt.Errorf("%w classifiers: the limit is %d", ErrTooMany, classifiersKept)
	}
	c.Version, c.CreatedAt = 1, m.o.Now().UTC()
	c.UpdatedAt = c.CreatedAt
	err = m.writeClassifier(ctx, &c, 0)
	if errors.Is(err, catalog.ErrConflict) {
		return fmt.Errorf("classifier %s: %w", c.Name(), ErrExists)
	}
	return err
}

func (m *Manager) writeClassifier(ctx context.Context, c *Classifier, ifVersion int64) error {
	body, err := json.Marshal(c)
	if err == nil {
		_, err = m.o.Catalog.PutDocument(ctx, catalog.DocumentWrite{Kind: kindClassifier, Key: c.Name(), IfVersion: ifVersion, Body: body, KeepVersions: versionsKept})
	}
	if err != nil {
		return fmt.Errorf("write classifier %s: %w", c.Name(), err)
	}
	return nil
}

// UpdateClassifier replaces a classifier. The next crawl that uses it reads all files
// again. Errors: ErrInvalid, ErrNotFound, ErrConflict of the catalog.
func (m *Manager) UpdateClassifier(ctx context.Context, c Classifier) error {
	if err := c.check(); err != nil {
		return err
	}
	old, version, err := m.classifier(ctx, c.Name())
	if err != nil {
		return err
	}
	if (old.CSV == nil) != (c.CSV == nil) {
		return fmt.Errorf("%w: classifier %s is of another kind: delete it first", ErrInvalid, c.Name())
	}
	c.Version, c.CreatedAt, c.UpdatedAt = old.Version+1, old.CreatedAt, m.o.Now().UTC()
	return m.writeClassifier(ctx, &c, version)
}

// Classifier returns a classifier; ErrNotFound if there is none of that name.
func (m *Manager) Classifier(ctx context.Context, name string) (Classifier, error) {
	c, _, err := m.classifier(ctx, name)
	return c, err
}

func (m *Manager) classifier(ctx context.Context, name string) (c Classifier, version int64, err error) {
	d, err := m.o.Catalog.GetDocument(ctx, kindClassifier, name)
	if errors.Is(err, catalog.ErrNotFound) {
		return c, 0, fmt.Errorf("classifier %s: %w", name, ErrNotFound)
	}
	if err == nil {
		err = json.Unmarshal(d.Body, &c)
	}
	return c, d.Version, err
}

// Classifiers returns the classifiers, sorted by name.
func (m *Manager) Classifiers(ctx context.Context) ([]Classifier, error) {
	docs, err := m.o.Catalog.ListDocuments(ctx, kindClassifier, "")
	if err != nil {
		return nil, err
	}
	out := make([]Classifier, len(docs))
	for i, d := range docs {
		if err := json.Unmarshal(d.Body, &out[i]); err != nil {
			return nil, fmt.Errorf("classifier %s: %w", d.Key, err)
		}
	}
	return out, nil
}

// DeleteClassifier removes a classifier. A crawler that names it fails until it is
// changed. Errors: ErrNotFound.
func (m *Manager) DeleteClassifier(ctx context.Context, name string) error {
	_, err := m.o.Catalog.PutDocument(ctx, catalog.DocumentWrite{Kind: kindClassifier, Key: name, IfVersion: catalog.AnyVersion, Delete: true, KeepVersions: 1})
	if errors.Is(err, catalog.ErrNotFound) {
		return fmt.Errorf("classifier %s: %w", name, ErrNotFound)
	}
	return err
}
