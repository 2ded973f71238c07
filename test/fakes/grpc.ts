import {
  Client,
  credentials,
  Metadata,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js'

const toBytes = (text: string) => Buffer.from(text)
const toText = (bytes: Buffer) => bytes.toString()

const method = (name: string, requestStream: boolean, responseStream: boolean) => ({
  path: `/test.Echo/${name}`,
  requestStream,
  responseStream,
  requestSerialize: toBytes,
  requestDeserialize: toText,
  responseSerialize: toBytes,
  responseDeserialize: toText,
})

/** A service of all four kinds of calls whose messages are texts. */
export const ECHO = {
  Unary: method('Unary', false, false),
  Collect: method('Collect', true, false),
  Count: method('Count', false, true),
  Chat: method('Chat', true, true),
} as const satisfies ServiceDefinition

export interface GrpcServer {
  readonly url: string
  readonly port: number
  readonly server: Server
  stop(): void
}

/** Starts a real server of gRPC. */
export async function startGrpcServer(handlers: UntypedServiceImplementation, port = 0): Promise<GrpcServer> {
  const server = new Server()
  server.addService(ECHO, handlers)
  const bound = await new Promise<number>((resolve, reject) =>
    server.bindAsync(`127.0.0.1:${port}`, ServerCredentials.createInsecure(), (error, used) =>
      error === null ? resolve(used) : reject(error),
    ),
  )
  return { url: `h2c://127.0.0.1:${bound}`, port: bound, server, stop: () => server.forceShutdown() }
}

/** A client of the service; the caller closes it. */
export function openGrpcClient(port: number): Client {
  return new Client(`127.0.0.1:${port}`, credentials.createInsecure())
}

/** Metadata with an access token, and more if wanted. */
export function metadataWith(token: string | undefined, more: Readonly<Record<string, string>> = {}): Metadata {
  const metadata = new Metadata()
  if (token !== undefined) metadata.set('authorization', `Bearer ${token}`)
  for (const [name, value] of Object.entries(more)) metadata.set(name, value)
  return metadata
}
