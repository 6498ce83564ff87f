// Holds the code of batch.mjs against the golden vectors.
import { readFileSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { open, partitionOf, placed, same } from './batch.mjs';
import { types } from './stubs.mjs';

const unhex = (text) => Buffer.from(text, 'hex');
const camel = (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());

export function vectors(path) {
  const golden = JSON.parse(readFileSync(path, 'utf8'));
  for (const { name, records_hex: records, crc } of golden.records_crc) {
    same(`records_crc of ${name}`, crc32(unhex(records)), crc);
  }
  for (const { key_hex: key, crc, partitions } of golden.key_hash) {
    same(`key_hash of ${key}`, crc32(unhex(key)), crc);
    for (const [count, partition] of Object.entries(partitions)) {
      same(`key_hash of ${key} over ${count}`, partitionOf(unhex(key), Number(count)), partition);
    }
  }
  const codecs = types['riverrun.v1.Codec'].type.value;
  for (const { partition, fields, ...vector } of golden.stamp) {
    const topicId = unhex(vector.topic_id_hex);
    const batch = types['riverrun.v1.RecordBatch'].deserialize(unhex(vector.batch_hex));
    const codec = codecs.find(({ name }) => name === batch.codec).number;
    for (const [name, value] of Object.entries(fields)) {
      same(`stamp field ${name}`, String(name === 'codec' ? codec : batch[camel(name)]), value);
    }
    const bytes = placed(topicId, partition, batch);
    same('stamp layout', bytes.toString('hex'), vector.packed_hex);
    same('stamp placement_crc', crc32(bytes), vector.placement_crc);
    open(topicId, partition, batch);
  }
  return Object.fromEntries(Object.entries(golden).map(([part, list]) => [part, list.length]));
}
