// Does everything that a client does, once, and tells what it saw.
import { partitionOf, recordsOf, seal } from './batch.mjs';
import { detailsOf } from './stubs.mjs';

export async function tour(broker, name) {
  // A topic, and where a key goes in it.
  const { topic } = await broker.createTopic({ topic: name, partitions: 4 });
  const { topicId } = topic;
  const key = Buffer.from('user-7');
  const home = partitionOf(key, topic.partitions);

  // Produce, records form: the broker chooses the partition and builds the batch.
  const flat = await broker.produce({ topic: name, records: [{ key, value: Buffer.from('v0') }] });

  // Produce, batch form, with our own checksum; then once more with a wrong one.
  const batch = seal(['v1', 'v2', 'v3'].map((value) => ({ key, value: Buffer.from(value) })), 'CODEC_NONE');
  const sealed = await broker.produce({ batches: [{ topicId, partition: home, batch }] });
  const wrong = { ...batch, recordsCrc: (batch.recordsCrc ^ 1) >>> 0 };
  const damaged = await broker.produce({ batches: [{ topicId, partition: home, batch: wrong }] });

  // Subscribe from the beginning, seek back, commit: all of it on one stream.
  const stream = broker.subscribe();
  const heard = hear(stream);
  const start = { positions: [{ topicId, partition: home }], groupId: `${name}-group`, form: 'FORM_BATCHES' };
  stream.write({ start });
  const first = await valuesUntil(heard, 4n);
  stream.write({ seek: { seekId: 9, position: { topicId, partition: home, offset: 2 } } });
  await answerTo(heard, ({ seekDone }) => seekDone?.seekId === '9');
  const again = await valuesUntil(heard, 4n);
  const offsets = [{ topicId, partition: home, offset: 4, metadata: 'half way' }];
  stream.write({ commit: { commitId: 11, offsets } });
  const { commitResult } = await answerTo(heard, (said) => said.commitResult?.commitId === '11');
  stream.cancel();

  // A call that fails carries our Error, typed, beside the standard ErrorInfo.
  const failure = await broker.produce({ topic: `${name}-missing`, records: [{}] }).catch((caught) => caught);
  const { code, error, info } = detailsOf(failure);
  const refused = damaged.results[0].error;
  return {
    home, flat: place(flat), sealed: place(sealed), first, again,
    damaged: refused.reason, damaged_outcome: refused.outcome,
    commit_refused: Boolean(commitResult.results[0].error),
    missing: { code, reason: error.reason, outcome: error.outcome, info: `${info.domain}/${info.reason}` },
  };
}

const place = ({ results: [result] }) => [result.partition, Number(result.baseOffset), result.recordCount];

// Yields what the stream says; a partition's failure ends this client.
async function* hear(stream) {
  for await (const message of stream) {
    if (message.partitionError) throw new Error(message.partitionError.error.message);
    yield message;
  }
}

async function answerTo(heard, wanted) {
  for (;;) {
    const { value, done } = await heard.next();
    if (done) throw new Error('the stream ended before its answer');
    if (wanted(value)) return value;
  }
}

// Returns the values of the deliveries until the position is `end`.
async function valuesUntil(heard, end) {
  const found = [];
  await answerTo(heard, ({ delivery }) => {
    if (delivery) found.push(...recordsOf(delivery).map(({ value }) => value.toString()));
    return delivery && BigInt(delivery.nextOffset) >= end;
  });
  return found;
}
