package icebergrest

import (
	"context"
	"encoding/base64"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/tapehouse/tapehouse/internal/catalog"
)

const (
	pageSizeMax = 1000
	// namespaceMark is the catalog's own property of every namespace.
	namespaceMark = "exists"
)

// page cuts a sorted list as the query asks: all of it unless the client says
// that it knows pages. next is nil at the end.
func (c *call) page(names []string) (cut []string, next *string, err error) {
	if !c.query.Has("pageToken") && !c.query.Has("pageSize") {
		return names, nil, nil
	}
	size := pageSizeMax
	if s := c.query.Get("pageSize"); s != "" {
		if size, err = strconv.Atoi(s); err != nil || size < 1 {
			return nil, nil, badRequest("pageSize %q: want a number from 1 on", bounded(s))
		}
		size = min(size, pageSizeMax)
	}
	if token := c.query.Get("pageToken"); token != "" {
		after, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil {
			return nil, nil, badRequest("pageToken %q is not one of this catalog's", bounded(token))
		}
		i, found := slices.BinarySearch(names, string(after))
		if found {
			i++
		}
		names = names[i:]
	}
	if len(names) <= size {
		return names, nil, nil
	}
	token := base64.RawURLEncoding.EncodeToString([]byte(names[size-1]))
	return names[:size], &token, nil
}

type namespacesAnswer struct {
	Namespaces [][]string `json:"namespaces"`
	Next       *string    `json:"next-page-token,omitempty"`
}

func (h *Handler) listNamespaces(ctx context.Context, c *call) error {
	out := namespacesAnswer{Namespaces: [][]string{}}
	if parent := c.query.Get("parent"); parent != "" {
		// No namespace has children.
		if _, err := h.catalog.NamespaceProperties(ctx, parent); err != nil {
			return err
		}
		c.out = out
		return nil
	}
	names, err := h.catalog.Namespaces(ctx)
	if err != nil {
		return err
	}
	if names, out.Next, err = c.page(names); err != nil {
		return err
	}
	for _, n := range names {
		out.Namespaces = append(out.Namespaces, []string{n})
	}
	c.out = out
	return nil
}

type namespaceBody struct {
	Namespace  []string          `json:"namespace"`
	Properties map[string]string `json:"properties"`
}

func (h *Handler) createNamespace(ctx context.Context, c *call) error {
	var b namespaceBody
	if err := c.decode(&b); err != nil {
		return err
	}
	if err := c.authorize("CreateDatabase", b.Namespace, ""); err != nil {
		return err
	}
	if len(b.Namespace) != 1 {
		return badRequest("Namespace %s has %d levels: namespaces have one", quotedNamespace(b.Namespace), len(b.Namespace))
	}
	if err := h.catalog.CreateNamespace(ctx, b.Namespace[0], b.Properties); err != nil {
		return err
	}
	if b.Properties == nil {
		b.Properties = map[string]string{}
	}
	c.out = b
	return nil
}

func (h *Handler) loadNamespace(ctx context.Context, c *call) error {
	p, err := h.catalog.NamespaceProperties(ctx, c.namespace[0])
	if err != nil {
		return err
	}
	delete(p, namespaceMark)
	c.out = namespaceBody{c.namespace, p}
	return nil
}

func (h *Handler) namespaceExists(ctx context.Context, c *call) error {
	c.status = http.StatusNoContent
	_, err := h.catalog.NamespaceProperties(ctx, c.namespace[0])
	return err
}

func (h *Handler) dropNamespace(ctx context.Context, c *call) error {
	c.status = http.StatusNoContent
	err := h.catalog.DropNamespace(ctx, c.namespace[0])
	if errors.Is(err, catalog.ErrConflict) {
		return newError(http.StatusConflict, typeNamespaceNotEmpty, "Namespace %s is not empty", quotedNamespace(c.namespace))
	}
	return err
}

type propertiesAnswer struct {
	Updated []string `json:"updated"`
	Removed []string `json:"removed"`
	Missing []string `json:"missing"`
}

func (h *Handler) updateNamespace(ctx context.Context, c *call) error {
	var b struct {
		Removals []string          `json:"removals"`
		Updates  map[string]string `json:"updates"`
	}
	if err := c.decode(&b); err != nil {
		return err
	}
	before, err := h.catalog.NamespaceProperties(ctx, c.namespace[0])
	if err != nil {
		return err
	}
	out := propertiesAnswer{Updated: slices.AppendSeq([]string{}, maps.Keys(b.Updates)), Removed: []string{}, Missing: []string{}}
	slices.Sort(out.Updated)
	for _, k := range b.Removals {
		if _, ok := b.Updates[k]; ok {
			return newError(http.StatusUnprocessableEntity, typeUnprocessable, "Property %q is both removed and set", bounded(k))
		}
		if _, ok := before[k]; ok && k != namespaceMark {
			out.Removed = append(out.Removed, k)
		} else {
			out.Missing = append(out.Missing, k)
		}
	}
	if err := h.catalog.UpdateNamespace(ctx, c.namespace[0], b.Removals, b.Updates); err != nil {
		return err
	}
	c.out = out
	return nil
}
