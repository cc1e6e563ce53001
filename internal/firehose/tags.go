package firehose

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tapehouse/tapehouse/internal/awsapi"
	"github.com/tapehouse/tapehouse/internal/record"
)

// tagsMax is how many tags a stream may have.
const tagsMax = 50

// addTags returns tags with more added, or in place of those of the same key,
// in ascending order of the keys' bytes. It changes neither.
func addTags(tags, more []Tag) []Tag {
	byKey := map[string]Tag{}
	for _, t := range tags {
		byKey[t.Key] = t
	}
	for _, t := range more {
		byKey[t.Key] = t
	}
	out := make([]Tag, 0, len(byKey))
	for _, t := range byKey {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b Tag) int { return strings.Compare(a.Key, b.Key) })
	return out
}

func (h *Handler) tag(ctx context.Context, c *awsapi.Call) error {
	var in tagInput
	if err := decode(c.Body, &in); err != nil {
		return err
	}
	var v violations
	v.streamName("deliveryStreamName", in.DeliveryStreamName, true)
	if in.Tags == nil {
		v.missing("tags")
	}
	v.tags("tags", in.Tags)
	if err := v.err(); err != nil {
		return err
	}
	return h.changeTags(ctx, c, record.StreamName(*in.DeliveryStreamName), func(tags []Tag) ([]Tag, error) {
		all := addTags(tags, *in.Tags)
		if len(all) > tagsMax {
			return nil, &Refusal{ErrLimit, fmt.Sprintf("Cannot add the tags: a Firehose can have up to %d tags, and it would have %d.", tagsMax, len(all))}
		}
		return all, nil
	})
}

// untag ignores keys that the stream does not have, as AWS does.
func (h *Handler) untag(ctx context.Context, c *awsapi.Call) error {
	var in untagInput
	if err := decode(c.Body, &in); err != nil {
		return err
	}
	var v violations
	v.streamName("deliveryStreamName", in.DeliveryStreamName, true)
	if in.TagKeys == nil {
		v.missing("tagKeys")
	} else {
		v.length("tagKeys", fmt.Sprintf("'[%d members]'", len(*in.TagKeys)), len(*in.TagKeys), 1, tagsMax)
		for i, key := range *in.TagKeys {
			v.string(member("tagKeys", i), &key, true, 1, 128, tagKeyPattern)
		}
	}
	if err := v.err(); err != nil {
		return err
	}
	return h.changeTags(ctx, c, record.StreamName(*in.DeliveryStreamName), func(tags []Tag) ([]Tag, error) {
		return slices.DeleteFunc(slices.Clone(tags), func(t Tag) bool { return slices.Contains(*in.TagKeys, t.Key) }), nil
	})
}

func (h *Handler) changeTags(ctx context.Context, c *awsapi.Call, name record.StreamName, change func([]Tag) ([]Tag, error)) error {
	err := h.streams.ChangeTags(ctx, name, change)
	if errors.Is(err, ErrNotFound) {
		return h.notFound(name)
	}
	if err != nil {
		return answerTo(fmt.Errorf("change the tags of %s: %w", name, err))
	}
	h.logger.Info("delivery stream tags changed", "delivery_stream", string(name), "principal", c.Principal, "request_id", c.RequestID)
	return nil
}

// listTags pages by key: the start need not be a key that is there.
func (h *Handler) listTags(ctx context.Context, c *awsapi.Call) error {
	var in listTagsInput
	if err := decode(c.Body, &in); err != nil {
		return err
	}
	var v violations
	v.streamName("deliveryStreamName", in.DeliveryStreamName, true)
	v.string("exclusiveStartTagKey", in.ExclusiveStartTagKey, false, 1, 128, tagKeyPattern)
	v.integer("limit", in.Limit, false, 1, tagsMax)
	if err := v.err(); err != nil {
		return err
	}
	info, err := h.find(ctx, record.StreamName(*in.DeliveryStreamName))
	if err != nil {
		return err
	}
	tags := addTags(nil, info.Config.Tags)
	if after := in.ExclusiveStartTagKey; after != nil {
		tags = slices.DeleteFunc(tags, func(t Tag) bool { return t.Key <= *after })
	}
	limit := tagsMax
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	out := listTagsOutput{Tags: tags}
	if len(tags) > limit {
		out.Tags, out.HasMoreTags = tags[:limit], true
	}
	return answerJSON(c, out)
}
