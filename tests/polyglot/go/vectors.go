package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "riverrun/tests/polyglot/go/riverrunv1"
)

// testVectors is proto/riverrun/v1/test-vectors.json.
type testVectors struct {
	RecordsCRC []struct {
		Name       string
		RecordsHex string `json:"records_hex"`
		CRC        uint32
	} `json:"records_crc"`
	KeyHash []struct {
		KeyHex     string `json:"key_hex"`
		CRC        uint32
		Partitions map[string]int32
	} `json:"key_hash"`
	Stamp []struct {
		TopicIDHex   string `json:"topic_id_hex"`
		Partition    int32
		Fields       map[string]string
		PackedHex    string `json:"packed_hex"`
		PlacementCRC uint32 `json:"placement_crc"`
		BatchHex     string `json:"batch_hex"`
	}
}

// checkVectors holds the code of batch.go against the golden vectors.
func checkVectors(path string) map[string]any {
	var vectors testVectors
	check(json.Unmarshal(must(os.ReadFile(path)), &vectors))
	for _, v := range vectors.RecordsCRC {
		same("records_crc of "+v.Name, crc32.ChecksumIEEE(unhex(v.RecordsHex)), v.CRC)
	}
	for _, v := range vectors.KeyHash {
		same("key_hash of "+v.KeyHex, crc32.ChecksumIEEE(unhex(v.KeyHex)), v.CRC)
		for count, want := range v.Partitions {
			partition := partitionOf(unhex(v.KeyHex), uint32(must(strconv.Atoi(count))))
			same("key_hash of "+v.KeyHex+" over "+count, partition, want)
		}
	}
	for _, v := range vectors.Stamp {
		batch := &pb.RecordBatch{}
		check(proto.Unmarshal(unhex(v.BatchHex), batch))
		fields := batch.ProtoReflect().Descriptor().Fields()
		for name, want := range v.Fields {
			value := batch.ProtoReflect().Get(fields.ByName(protoreflect.Name(name))).Interface()
			same("stamp field "+name, fmt.Sprint(value), want)
		}
		packed := placed(unhex(v.TopicIDHex), v.Partition, batch)
		same("stamp layout", bytes.Equal(packed, unhex(v.PackedHex)), true)
		same("stamp placement_crc", crc32.ChecksumIEEE(packed), v.PlacementCRC)
		same("stamp placement_crc of the batch", batch.GetPlacementCrc(), v.PlacementCRC)
		open(unhex(v.TopicIDHex), v.Partition, batch)
	}
	return map[string]any{
		"records_crc": len(vectors.RecordsCRC), "key_hash": len(vectors.KeyHash), "stamp": len(vectors.Stamp),
	}
}

func same[T comparable](what string, actual, expected T) {
	if actual != expected {
		panic(fmt.Sprintf("%s is %v, expected %v", what, actual, expected))
	}
}

func unhex(text string) []byte { return must(hex.DecodeString(text)) }
