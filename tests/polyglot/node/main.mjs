// A Riverrun client in Node: the stubs that gRPC makes and Node itself, no helper. It prints what
// it saw as JSON, and the tests in Python judge that.
import { tour } from './client.mjs';
import { produce, read } from './exchange.mjs';
import { member } from './member.mjs';
import { connect } from './stubs.mjs';
import { vectors } from './vectors.mjs';

const deeds = { tour, produce, read, member };
const [deed, where, topic] = process.argv.slice(2);

async function main() {
  if (deed === 'vectors' && where && !topic) return vectors(where);
  if (!(deed in deeds) || !topic) {
    console.error('usage: main.mjs vectors FILE | (tour | produce | read | member) HOST:PORT TOPIC');
    process.exit(2);
  }
  const broker = connect(where);
  try {
    return await deeds[deed](broker, topic);
  } finally {
    broker.close();
  }
}

console.log(JSON.stringify(await main()));
