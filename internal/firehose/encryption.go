package firehose

import (
	"context"
	"errors"
	"fmt"

	"github.com/tapehouse/tapehouse/internal/awsapi"
	"github.com/tapehouse/tapehouse/internal/record"
)

const encryptInstead = "nothing should claim that they are. Encrypt the file system under the data directory, and the lake's bucket."

// refuseEncryption answers every wish for encryption: first in AWS's words
// where it is none, then with what to do instead.
func refuseEncryption(e *encryptionInput) error {
	customer := e.KeyType != nil && *e.KeyType == "CUSTOMER_MANAGED_CMK"
	switch {
	case customer && e.KeyARN == nil:
		return invalid("KeyARN has to be specified when KeyType is CUSTOMER_MANAGED_CMK")
	case customer:
		return awsapi.BadRequest(codeInvalidKMS, "The key "+*e.KeyARN+" cannot be used: records are not encrypted at rest here, and "+encryptInstead)
	case e.KeyARN != nil:
		return invalid("KeyARN cannot be specified when KeyType is AWS_OWNED_CMK")
	}
	return invalid("Server-side encryption is not supported: records are not encrypted at rest here, and " + encryptInstead)
}

func (h *Handler) startEncryption(ctx context.Context, c *awsapi.Call) error {
	var in startEncryptionInput
	if err := decode(c.Body, &in); err != nil {
		return err
	}
	var v violations
	v.streamName("deliveryStreamName", in.DeliveryStreamName, true)
	v.encryptionInput("deliveryStreamEncryptionConfigurationInput", in.Encryption)
	if err := v.err(); err != nil {
		return err
	}
	if _, err := h.find(ctx, record.StreamName(*in.DeliveryStreamName)); err != nil {
		return err
	}
	if in.Encryption == nil {
		in.Encryption = &encryptionInput{}
	}
	return refuseEncryption(in.Encryption)
}

// stopEncryption has nothing to do: it leaves a stream that is not encrypted
// as it is, which is what was asked for.
func (h *Handler) stopEncryption(ctx context.Context, c *awsapi.Call) error {
	var in stopEncryptionInput
	if err := decode(c.Body, &in); err != nil {
		return err
	}
	var v violations
	v.streamName("deliveryStreamName", in.DeliveryStreamName, true)
	if err := v.err(); err != nil {
		return err
	}
	_, err := h.find(ctx, record.StreamName(*in.DeliveryStreamName))
	return err
}

// find describes a stream; its error is for the client.
func (h *Handler) find(ctx context.Context, name record.StreamName) (StreamInfo, error) {
	info, err := h.streams.Describe(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return info, h.notFound(name)
	}
	if err != nil {
		return info, answerTo(fmt.Errorf("describe %s: %w", name, err))
	}
	return info, nil
}
