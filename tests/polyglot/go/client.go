package main

import (
	"context"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	pb "riverrun/tests/polyglot/go/riverrunv1"
)

// tour does everything that a client does, once, and tells what it saw.
func tour(ctx context.Context, conn *grpc.ClientConn, topic string) any {
	admin, producer := pb.NewAdminServiceClient(conn), pb.NewProducerServiceClient(conn)

	// A topic, and where a key goes in it.
	created := must(admin.CreateTopic(ctx, &pb.CreateTopicRequest{Topic: topic, Partitions: 4})).GetTopic()
	key, id := []byte("user-7"), created.GetTopicId()
	home := partitionOf(key, uint32(created.GetPartitions()))

	// Produce, records form: the broker chooses the partition and builds the batch.
	flat := must(producer.Produce(ctx, &pb.ProduceRequest{
		Topic: topic, Records: []*pb.Record{{Key: key, Value: []byte("v0")}},
	})).GetResults()[0]

	// Produce, batch form, with our own checksum; then once more with a wrong one.
	batch := seal([]*pb.Record{{Key: key, Value: []byte("v1")}, {Value: []byte("v2")}, {Value: []byte("v3")}},
		pb.Codec_CODEC_NONE)
	batches := &pb.ProduceRequest{Batches: []*pb.PartitionBatch{{TopicId: id, Partition: home, Batch: batch}}}
	sealed := must(producer.Produce(ctx, batches)).GetResults()[0]
	*batch.RecordsCrc ^= 1
	damaged := must(producer.Produce(ctx, batches)).GetResults()[0].GetError()

	// Subscribe from the beginning, seek back, commit: all of it on one stream.
	stream := subscribe(ctx, conn, &pb.SubscribeStart{
		Positions: []*pb.StartPosition{{TopicId: id, Partition: home}},
		GroupId:   topic + "-group", Form: pb.Form_FORM_BATCHES,
	})
	first := stream.values(0, 4)
	back := &pb.StartPosition{TopicId: id, Partition: home, At: &pb.StartPosition_Offset{Offset: 2}}
	stream.say(&pb.SubscribeRequest{Kind: &pb.SubscribeRequest_Seek{Seek: &pb.Seek{SeekId: 9, Position: back}}})
	for stream.hear().GetSeekDone().GetSeekId() != 9 {
	}
	again := stream.values(2, 4)
	done := &pb.Commit{CommitId: 11, Offsets: []*pb.OffsetCommit{
		{TopicId: id, Partition: home, Offset: 4, Metadata: "half way"},
	}}
	stream.say(&pb.SubscribeRequest{Kind: &pb.SubscribeRequest_Commit{Commit: done}})
	heard := stream.hear()
	for heard.GetCommitResult().GetCommitId() != 11 {
		heard = stream.hear()
	}
	commit := heard.GetCommitResult().GetResults()[0]

	// A call that fails carries our Error, typed, beside the standard ErrorInfo.
	_, err := producer.Produce(ctx, &pb.ProduceRequest{Topic: topic + "-missing", Records: []*pb.Record{{}}})
	missing := map[string]any{"code": int(status.Code(err))}
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *pb.Error:
			missing["reason"], missing["outcome"] = detail.GetReason().String(), detail.GetOutcome().String()
		case *errdetails.ErrorInfo:
			missing["info"] = detail.GetDomain() + "/" + detail.GetReason()
		}
	}
	return map[string]any{
		"home": home, "flat": place(flat), "sealed": place(sealed),
		"damaged": damaged.GetReason().String(), "damaged_outcome": damaged.GetOutcome().String(),
		"first": first, "again": again, "commit_refused": commit.GetError() != nil, "missing": missing,
	}
}

// place is where an append went.
func place(result *pb.ProduceResult) []int64 {
	return []int64{int64(result.GetPartition()), result.GetBaseOffset(), int64(result.GetRecordCount())}
}

// subscription is one Subscribe stream.
type subscription struct {
	pb.ConsumerService_SubscribeClient
}

func subscribe(ctx context.Context, conn *grpc.ClientConn, start *pb.SubscribeStart) subscription {
	stream := subscription{must(pb.NewConsumerServiceClient(conn).Subscribe(ctx))}
	stream.say(&pb.SubscribeRequest{Kind: &pb.SubscribeRequest_Start{Start: start}})
	return stream
}

func (s subscription) say(request *pb.SubscribeRequest) { check(s.Send(request)) }

// hear waits for the next message; a partition's failure ends this client.
func (s subscription) hear() *pb.SubscribeResponse {
	response := must(s.Recv())
	if failed := response.GetPartitionError().GetError(); failed != nil {
		panic(failed.GetMessage())
	}
	return response
}

// values returns what the records from `next` to before `end` hold.
func (s subscription) values(next, end int64) (found []string) {
	for next < end {
		delivery := s.hear().GetDelivery()
		for _, record := range records(delivery) {
			found = append(found, string(record.GetValue()))
		}
		next = max(next, delivery.GetNextOffset())
	}
	return found
}
