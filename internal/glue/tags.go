package glue

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"github.com/tapehouse/tapehouse/internal/awsapi"
)

// A database's tags are properties of its namespace, propertyTag; a table's are a
// document of kindTags, by the table's identity.
const (
	kindTags = "glue-tags"
	tagsMax  = 50
)

type tagInput struct {
	ResourceARN  string `json:"ResourceArn"`
	TagsToAdd    map[string]string
	TagsToRemove []string
}

// tagged reads whose tags an ARN means; of a crawler, database is "" and table its
// name.
func (h *Handler) tagged(arn string) (database, table string, err error) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[3] != h.region || parts[4] != h.account && parts[4] != "" { // without an account as Terraform makes it that may not ask for one
		return "", "", notFound("The resource " + arn + " is not here: its ARN begins with arn:aws:glue:" + h.region + ":" + h.account + ":")
	}
	p := strings.Split(parts[5], "/")
	switch {
	case p[0] == "database" && len(p) == 2 && p[1] != "":
		return p[1], "", nil
	case p[0] == "crawler" && len(p) == 2 && p[1] != "" && h.crawlers != nil:
		return "", p[1], nil
	case p[0] == "table" && len(p) == 3 && p[1] != "" && p[2] != "":
		return p[1], p[2], nil
	}
	return "", "", invalid("The ARN " + arn + " is of no database, table or crawler: others have no tags here. Want …:database/NAME, …:table/DATABASE/NAME or …:crawler/NAME.")
}

// tagsOf picks the tags out of a namespace's properties.
func tagsOf(properties map[string]string) map[string]string {
	tags := map[string]string{}
	for k, v := range properties {
		if key, ok := strings.CutPrefix(k, propertyTag); ok {
			tags[key] = v
		}
	}
	return tags
}

func checkTags(tags map[string]string) error {
	if len(tags) > tagsMax {
		return awsapi.BadRequest(codeLimit, fmt.Sprintf("A resource can have up to %d tags, and it would have %d.", tagsMax, len(tags)))
	}
	return nil
}

func (h *Handler) tagResource(ctx context.Context, c *awsapi.Call, in *tagInput) (any, error) {
	return nil, h.changeTags(ctx, c, in)
}

func (h *Handler) changeTags(ctx context.Context, c *awsapi.Call, in *tagInput) error {
	database, table, err := h.tagged(in.ResourceARN)
	if err != nil {
		return err
	}
	change := func(tags map[string]string) error {
		maps.Copy(tags, in.TagsToAdd)
		for _, k := range in.TagsToRemove {
			delete(tags, k)
		}
		return checkTags(tags)
	}
	if database == "" {
		err = h.changeCrawlerTags(ctx, table, change)
	} else if table == "" {
		err = h.changeDatabaseTags(ctx, database, in, change)
	} else if e, found := h.find(ctx, database, table); found != nil {
		err = found
	} else {
		err = edit(ctx, h, kindTags, e.id(), func(tags *map[string]string) error {
			if *tags == nil {
				*tags = map[string]string{}
			}
			return change(*tags)
		}, func(tags *map[string]string) bool { return len(*tags) == 0 })
	}
	if err == nil {
		h.log(c, "glue tags changed", "resource", in.ResourceARN)
	}
	return err
}

func (h *Handler) changeDatabaseTags(ctx context.Context, database string, in *tagInput, change func(map[string]string) error) error {
	h.changes.Lock()
	defer h.changes.Unlock()
	name, p, err := h.findDatabase(ctx, database)
	if err != nil {
		return err
	}
	if err := change(tagsOf(p)); err != nil {
		return err
	}
	set, remove := map[string]string{}, []string{}
	for k, v := range in.TagsToAdd {
		set[propertyTag+k] = v
	}
	for _, k := range in.TagsToRemove {
		remove = append(remove, propertyTag+k)
	}
	return h.catalog.UpdateNamespace(ctx, name, remove, set)
}

func (h *Handler) getTags(ctx context.Context, _ *awsapi.Call, in *tagInput) (any, error) {
	database, table, err := h.tagged(in.ResourceARN)
	if err != nil {
		return nil, err
	}
	out := struct{ Tags map[string]string }{map[string]string{}}
	if database == "" {
		if _, err := h.crawlers.Get(table); err != nil {
			return nil, crawlerError(err)
		}
		tags, _, err := document[map[string]string](ctx, h, kindTags, crawlerTagsKey(table))
		if tags != nil {
			out.Tags = tags
		}
		return out, err
	}
	if table == "" {
		_, p, err := h.findDatabase(ctx, database)
		out.Tags = tagsOf(p)
		return out, err
	}
	e, err := h.find(ctx, database, table)
	if err != nil {
		return nil, err
	}
	tags, _, err := document[map[string]string](ctx, h, kindTags, e.id())
	if tags != nil {
		out.Tags = tags
	}
	return out, err
}
