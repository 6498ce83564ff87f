package main

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "riverrun/tests/polyglot/go/riverrunv1"
)

// produce writes the same records twice, plain and compressed, for other languages to read.
func produce(ctx context.Context, conn *grpc.ClientConn, topic string) any {
	written := []*pb.Record{
		{Key: []byte("go"), Value: []byte("timed"), TimestampMs: proto.Int64(1_700_000_000_000)},
		{Value: []byte{0, 255, 10}},
		{Key: []byte("größe")}, // a tombstone: no value is not an empty one
		{Key: []byte{}, Value: []byte{}, Headers: []*pb.Header{{Key: "h", Value: []byte("1")}, {Key: "h"}}},
	}
	request := &pb.ProduceRequest{}
	for _, codec := range []pb.Codec{pb.Codec_CODEC_NONE, pb.Codec_CODEC_GZIP} {
		request.Batches = append(request.Batches, &pb.PartitionBatch{Topic: topic, Batch: seal(written, codec)})
	}
	errs := []string{}
	for _, result := range must(pb.NewProducerServiceClient(conn).Produce(ctx, request)).GetResults() {
		if result.GetError() != nil {
			errs = append(errs, result.GetError().GetMessage())
		}
	}
	return errs
}

// read returns every record of a topic, whoever wrote it, from batches that it checks itself.
func read(ctx context.Context, conn *grpc.ClientConn, topic string) any {
	stream := must(pb.NewConsumerServiceClient(conn).Read(ctx, &pb.ReadRequest{
		Topic: topic, Form: pb.Form_FORM_BATCHES, AcceptCodecs: []pb.Codec{pb.Codec_CODEC_GZIP}, StopAtEnd: true,
	}))
	found := []map[string]any{}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return found
		}
		check(err)
		for _, r := range records(response.GetDelivery()) {
			headers := [][]string{}
			for _, h := range r.GetHeaders() {
				headers = append(headers, []string{h.GetKey(), hex.EncodeToString(h.GetValue())})
			}
			found = append(found, map[string]any{
				"offset": strconv.FormatInt(r.GetOffset(), 10), "timestamp_ms": strconv.FormatInt(r.GetTimestampMs(), 10),
				"key": hexOrNull(r.Key), "value": hexOrNull(r.Value), "headers": headers,
			})
		}
	}
}

func hexOrNull(data []byte) any {
	if data == nil {
		return nil
	}
	return hex.EncodeToString(data)
}
