// The stubs, made from the .proto files when the program starts, as grpc.io recommends for Node.
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const files = [
  'riverrun/v1/admin.proto', 'riverrun/v1/producer.proto', 'riverrun/v1/consumer.proto',
  'google/rpc/status.proto', 'google/rpc/error_details.proto',
];

// Offsets do not fit into a Number, so 64-bit integers are strings; enums go by name.
export const types = loader.loadSync(files, {
  includeDirs: [here('../../../proto'), here('.')],
  longs: String, enums: String, defaults: true, oneofs: true,
});
const { riverrun } = grpc.loadPackageDefinition(types);

// Opens one channel with a client for each service on it; unary calls become promises.
export function connect(address) {
  const credentials = grpc.credentials.createInsecure();
  const channel = new grpc.Channel(address, credentials, {});
  const open = (Service) => new Service(address, credentials, { channelOverride: channel });
  const { AdminService, ProducerService, ConsumerService } = riverrun.v1;
  const [admin, producer, consumer] = [AdminService, ProducerService, ConsumerService].map(open);
  const unary = (client, method) => {
    const call = promisify(client[method]).bind(client);
    return (request) => call(request, { deadline: Date.now() + 30_000 });
  };
  return {
    createTopic: unary(admin, 'createTopic'),
    produce: unary(producer, 'produce'),
    read: (request) => consumer.read(request),
    subscribe: () => consumer.subscribe(),
    close: () => channel.close(),
  };
}

// Returns the typed details of a failed call: our Error, and the standard ErrorInfo.
export function detailsOf(failure) {
  const [packed] = failure.metadata.get('grpc-status-details-bin');
  const { details } = types['google.rpc.Status'].deserialize(packed);
  const unpack = (type) => {
    const { value } = details.find((detail) => detail.type_url.endsWith(`/${type}`));
    return types[type].deserialize(value);
  };
  return { code: failure.code, error: unpack('riverrun.v1.Error'), info: unpack('google.rpc.ErrorInfo') };
}
