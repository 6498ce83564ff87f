package main

import (
	"context"
	"io"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"

	pb "riverrun/tests/polyglot/go/riverrunv1"
)

// member joins the group of a topic, commits what it is given, gives up what it is asked for, and leaves
// when its standard input ends. It tells what it was given.
func member(ctx context.Context, conn *grpc.ClientConn, topic string) any {
	group := &membership{
		subscription: subscribe(ctx, conn, &pb.SubscribeStart{Topics: []string{topic}, GroupId: topic + "-group"}),
	}
	go group.beat()
	go func() {
		io.Copy(io.Discard, os.Stdin)
		group.tell(&pb.SubscribeRequest{Kind: &pb.SubscribeRequest_Leave{Leave: &pb.Leave{}}})
	}()
	for {
		response, err := group.Recv()
		if err == io.EOF {
			return map[string]any{"values": group.values, "revoked": group.revoked, "refused": group.refused}
		}
		check(err)
		group.heard(response)
	}
}

// membership is what a member knows of itself.
type membership struct {
	subscription
	writing    sync.Mutex // a stream takes one message at a time
	epoch      int64
	commits    uint64
	unanswered int
	revoking   *pb.PartitionsRevoking
	values     []string
	revoked    int
	refused    int
}

func (m *membership) tell(request *pb.SubscribeRequest) {
	m.writing.Lock()
	defer m.writing.Unlock()
	m.Send(request) // of a stream that has ended, Recv tells
}

// beat says that the member lives.
func (m *membership) beat() {
	for id := uint64(1); ; id++ {
		time.Sleep(500 * time.Millisecond)
		m.tell(&pb.SubscribeRequest{Kind: &pb.SubscribeRequest_Heartbeat{Heartbeat: &pb.MemberHeartbeat{HeartbeatId: id}}})
	}
}

func (m *membership) heard(response *pb.SubscribeResponse) {
	switch {
	case response.GetPartitionsAssigned() != nil:
		m.epoch = response.GetPartitionsAssigned().GetMemberEpoch()
	case response.GetPartitionsRevoking() != nil:
		m.revoking = response.GetPartitionsRevoking()
		m.epoch = m.revoking.GetMemberEpoch()
		m.revoked += len(m.revoking.GetPartitions())
	case response.GetDelivery() != nil:
		m.take(response.GetDelivery())
	case response.GetCommitResult() != nil:
		m.unanswered--
		for _, result := range response.GetCommitResult().GetResults() {
			if result.GetError() != nil {
				m.refused++
			}
		}
	}
	if m.revoking != nil && m.unanswered == 0 {
		done := &pb.RevocationDone{MemberEpoch: m.revoking.GetMemberEpoch(), Partitions: m.revoking.GetPartitions()}
		m.revoking = nil
		m.tell(&pb.SubscribeRequest{Kind: &pb.SubscribeRequest_RevocationDone{RevocationDone: done}})
	}
}

// take works on a delivery and commits it.
func (m *membership) take(delivery *pb.Delivery) {
	for _, record := range delivery.GetRecords() {
		m.values = append(m.values, string(record.GetValue()))
	}
	m.commits++
	m.unanswered++
	m.tell(&pb.SubscribeRequest{Kind: &pb.SubscribeRequest_Commit{Commit: &pb.Commit{
		CommitId: m.commits, MemberEpoch: &m.epoch,
		Offsets: []*pb.OffsetCommit{{
			TopicId: delivery.GetTopicId(), Partition: delivery.GetPartition(), Offset: delivery.GetNextOffset(),
		}},
	}}})
}
