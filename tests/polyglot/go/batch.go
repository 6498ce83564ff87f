package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"google.golang.org/protobuf/proto"

	pb "riverrun/tests/polyglot/go/riverrunv1"
)

// covered is what placement_crc covers: 108 bytes, little-endian, without padding.
type covered struct {
	TopicID                                                    [16]byte
	Partition, Codec                                           int32
	RecordsCRC                                                 uint32
	RecordCount                                                int32
	ProducerID                                                 int64
	ProducerEpoch                                              int32
	BaseSequence, FirstTimestampMs, MaxTimestampMs, BaseOffset int64
	LastOffsetDelta, LeaderEpoch                               int32
	AppendTimeMs, PartitionMaxTimestampMs                      int64
	Attributes, FormatVersion                                  int32
}

// placed lays out a stamped batch and where it stands, as docs/format.md has it.
func placed(topicID []byte, partition int32, b *pb.RecordBatch) []byte {
	return must(binary.Append(nil, binary.LittleEndian, covered{
		[16]byte(topicID), partition, int32(b.GetCodec()), b.GetRecordsCrc(), b.GetRecordCount(),
		b.GetProducerId(), b.GetProducerEpoch(), b.GetBaseSequence(), b.GetFirstTimestampMs(),
		b.GetMaxTimestampMs(), b.GetBaseOffset(), b.GetLastOffsetDelta(), b.GetLeaderEpoch(),
		b.GetAppendTimeMs(), b.GetPartitionMaxTimestampMs(), b.GetAttributes(), b.GetFormatVersion(),
	}))
}

// partitionOf is where a key goes when the broker, or any client of ours, may choose.
func partitionOf(key []byte, partitions uint32) int32 {
	return int32(crc32.ChecksumIEEE(key) % partitions)
}

// seal makes a batch: serialise, compress if asked to, take the CRC-32 of the bytes as they stand.
func seal(records []*pb.Record, codec pb.Codec) *pb.RecordBatch {
	data := must(proto.Marshal(&pb.RecordSet{Records: records}))
	if codec == pb.Codec_CODEC_GZIP {
		var packed bytes.Buffer
		writer := gzip.NewWriter(&packed)
		must(writer.Write(data))
		check(writer.Close())
		data = packed.Bytes()
	}
	crc := crc32.ChecksumIEEE(data)
	return &pb.RecordBatch{Records: data, Codec: codec, RecordsCrc: &crc, RecordCount: int32(len(records))}
}

// open checks both checksums of a delivered batch and takes it apart.
func open(topicID []byte, partition int32, b *pb.RecordBatch) []*pb.ReceivedRecord {
	if crc := crc32.ChecksumIEEE(b.GetRecords()); crc != b.GetRecordsCrc() {
		panic(fmt.Sprintf("records_crc is %#x, the records have %#x", b.GetRecordsCrc(), crc))
	}
	if crc := crc32.ChecksumIEEE(placed(topicID, partition, b)); crc != b.GetPlacementCrc() {
		panic(fmt.Sprintf("placement_crc is %#x, the header in its place has %#x", b.GetPlacementCrc(), crc))
	}
	data := b.GetRecords()
	if b.GetCodec() == pb.Codec_CODEC_GZIP {
		data = must(io.ReadAll(must(gzip.NewReader(bytes.NewReader(data)))))
	}
	set := &pb.RecordSet{}
	check(proto.Unmarshal(data, set))
	received := make([]*pb.ReceivedRecord, 0, len(set.GetRecords()))
	for i, r := range set.GetRecords() {
		delta, time := int64(i), b.GetAppendTimeMs()
		if b.GetAttributes()&8 != 0 { // a broker has rewritten the batch
			delta = int64(r.GetOffsetDelta())
		}
		if r.TimestampMs != nil && b.GetAttributes()&4 == 0 {
			time = r.GetTimestampMs()
		}
		received = append(received, &pb.ReceivedRecord{
			Offset: b.GetBaseOffset() + delta, TimestampMs: time, Key: r.Key, Value: r.Value, Headers: r.Headers,
		})
	}
	return received
}

// records opens a delivery's batches and drops what lies outside its offsets: the first batch may
// begin before them and the last may reach beyond.
func records(delivery *pb.Delivery) (inside []*pb.ReceivedRecord) {
	for _, batch := range delivery.GetBatches() {
		for _, record := range open(delivery.GetTopicId(), delivery.GetPartition(), batch) {
			if record.GetOffset() >= delivery.GetFirstOffset() && record.GetOffset() < delivery.GetNextOffset() {
				inside = append(inside, record)
			}
		}
	}
	return inside
}
