// Writes records for other languages to read, and reads theirs.
import { recordsOf, seal } from './batch.mjs';

// Writes the same records twice, plain and compressed.
export async function produce(broker, topic) {
  const records = [
    { key: Buffer.from('node'), value: Buffer.from('timed'), timestampMs: '1700000000000' },
    { value: Buffer.from([0, 255, 10]) },
    { key: Buffer.from('größe') }, // a tombstone: no value is not an empty one
    {
      key: Buffer.alloc(0), value: Buffer.alloc(0),
      headers: [{ key: 'h', value: Buffer.from('1') }, { key: 'h' }], // a name may repeat, in order
    },
  ];
  const batches = ['CODEC_NONE', 'CODEC_GZIP'].map((codec) => ({ topic, batch: seal(records, codec) }));
  const { results } = await broker.produce({ batches });
  return results.flatMap(({ error }) => (error ? [error.message] : []));
}

// Returns every record of a topic, whoever wrote it, from batches that it checks itself.
export async function read(broker, topic) {
  const found = [];
  const hex = (data) => data?.toString('hex') ?? null;
  const request = { topic, form: 'FORM_BATCHES', acceptCodecs: ['CODEC_GZIP'], stopAtEnd: true };
  for await (const { delivery } of broker.read(request)) {
    for (const { offset, timestampMs, key, value, headers } of delivery ? recordsOf(delivery) : []) {
      found.push({
        offset: String(offset), timestamp_ms: timestampMs, key: hex(key), value: hex(value),
        headers: headers.map((header) => [header.key, hex(header.value)]),
      });
    }
  }
  return found;
}
