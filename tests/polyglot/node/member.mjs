// Joins the group of a topic, commits what it is given, gives up what it is asked for, and leaves when its
// standard input ends. Tells what it was given.
export async function member(broker, topic) {
  const stream = broker.subscribe();
  const seen = { values: [], revoked: 0, refused: 0 };
  let [epoch, commitId, unanswered, revoking, heartbeatId] = ['0', 0, 0, null, 0];
  stream.write({ start: { topics: [topic], groupId: `${topic}-group` } });
  const beats = setInterval(() => stream.write({ heartbeat: { heartbeatId: (heartbeatId += 1) } }), 500);
  process.stdin.resume().on('end', () => stream.write({ leave: {} }));
  try {
    for await (const { partitionsAssigned, partitionsRevoking, delivery, commitResult } of stream) {
      if (partitionsAssigned) epoch = partitionsAssigned.memberEpoch;
      if (partitionsRevoking) {
        revoking = partitionsRevoking;
        epoch = revoking.memberEpoch;
        seen.revoked += revoking.partitions.length;
      }
      if (delivery) {
        seen.values.push(...delivery.records.map(({ value }) => value.toString()));
        const { topicId, partition, nextOffset: offset } = delivery;
        unanswered += 1;
        stream.write({ commit: { commitId: (commitId += 1), memberEpoch: epoch, offsets: [{ topicId, partition, offset }] } });
      }
      if (commitResult) {
        unanswered -= 1;
        seen.refused += commitResult.results.filter(({ error }) => error).length;
      }
      if (revoking && !unanswered) {
        stream.write({ revocationDone: revoking });
        revoking = null;
      }
    }
  } finally {
    clearInterval(beats);
  }
  return seen;
}
