// Makes and reads record batches: the generated messages and Node's zlib, nothing else.
import { crc32, gunzipSync, gzipSync } from 'node:zlib';
import { types } from './stubs.mjs';

const recordSet = types['riverrun.v1.RecordSet'];
const numberOf = (codec) => types['riverrun.v1.Codec'].type.value.find(({ name }) => name === codec).number;
const expandedBytesMax = 3 << 20; // no broker takes a larger batch

// Where a key goes when the broker, or any client of ours, may choose.
export const partitionOf = (key, partitions) => crc32(key) % partitions;

// Makes a batch: serialise, compress if asked to, take the CRC-32 of the bytes as they stand.
export function seal(records, codec) {
  const data = recordSet.serialize({ records });
  const packed = codec === 'CODEC_GZIP' ? gzipSync(data) : data;
  return { records: packed, codec, recordsCrc: crc32(packed), recordCount: records.length };
}

// Lays out what placement_crc covers: 108 bytes, little-endian, without padding.
export function placed(topicId, partition, batch) {
  const out = Buffer.alloc(108);
  let at = topicId.copy(out);
  const i32 = (value) => { at = out.writeInt32LE(value, at); };
  const u32 = (value) => { at = out.writeUInt32LE(value, at); };
  const i64 = (value) => { at = out.writeBigInt64LE(BigInt(value), at); };
  i32(partition);
  i32(numberOf(batch.codec));
  u32(batch.recordsCrc);
  i32(batch.recordCount);
  i64(batch.producerId);
  i32(batch.producerEpoch);
  i64(batch.baseSequence);
  i64(batch.firstTimestampMs);
  i64(batch.maxTimestampMs);
  i64(batch.baseOffset);
  i32(batch.lastOffsetDelta);
  i32(batch.leaderEpoch);
  i64(batch.appendTimeMs);
  i64(batch.partitionMaxTimestampMs);
  i32(batch.attributes);
  i32(batch.formatVersion);
  return out;
}

// Checks both checksums of a delivered batch and takes it apart; offsets become BigInts.
export function open(topicId, partition, batch) {
  same('records_crc', batch.recordsCrc, crc32(batch.records));
  same('placement_crc', batch.placementCrc, crc32(placed(topicId, partition, batch)));
  const packed = batch.codec === 'CODEC_GZIP';
  const data = packed ? gunzipSync(batch.records, { maxOutputLength: expandedBytesMax }) : batch.records;
  const rewritten = batch.attributes & 8; // by a broker: offsets are said, not counted
  const byAppend = batch.attributes & 4; // the topic keeps the broker's time, not the producer's
  return recordSet.deserialize(data).records.map((record, index) => ({
    ...record,
    offset: BigInt(batch.baseOffset) + BigInt(rewritten ? record.offsetDelta : index),
    timestampMs: byAppend ? batch.appendTimeMs : record.timestampMs ?? batch.appendTimeMs,
  }));
}

// Opens a delivery's batches and drops what lies outside its offsets: the first batch may begin
// before them and the last may reach beyond.
export function recordsOf(delivery) {
  const [first, next] = [BigInt(delivery.firstOffset), BigInt(delivery.nextOffset)];
  const records = delivery.batches.flatMap((batch) => open(delivery.topicId, delivery.partition, batch));
  return records.filter(({ offset }) => offset >= first && offset < next);
}

export function same(what, actual, expected) {
  if (actual !== expected) throw new Error(`${what} is ${actual}, expected ${expected}`);
}
