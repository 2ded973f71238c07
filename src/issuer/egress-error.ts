/** A request to an issuer that brought no response. `code` is a short word for logs; the text holds no URL. */
export class EgressError extends Error {
  readonly code: string
  /** Whether the connection was never made, so that the issuer cannot have seen the request. */
  readonly unsent: boolean

  constructor(code: string, unsent: boolean) {
    super(describe(code))
    this.name = 'EgressError'
    this.code = code
    this.unsent = unsent
  }
}

/** What the codes mean for whoever runs this; others stand for themselves. */
const REASONS: Readonly<Record<string, string>> = {
  timeout: 'it did not answer in time',
  ECONNREFUSED: 'nothing listens at its address',
  ECONNRESET: 'it closed the connection',
  UND_ERR_SOCKET: 'it closed the connection',
  ENOTFOUND: 'its host name is not known',
  EAI_AGAIN: 'its host name cannot be looked up at the moment',
  UND_ERR_CONNECT_TIMEOUT: 'its address cannot be reached',
  UND_ERR_RES_EXCEEDED_MAX_SIZE: 'the answer is larger than 1 MiB',
  response_encoded: 'the answer is compressed, which was not asked for',
  ca_file_unusable: 'the file of ca_file cannot be read or holds no certificate in PEM form',
  client_certificate_unusable: 'the files certificate_file and key_file cannot be read or do not belong together',
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: 'it wants a certificate; use client_authentication: tls_client_auth',
  SELF_SIGNED_CERT_IN_CHAIN: 'its certificate is signed by an authority that is not known; name that in ca_file',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'its certificate is signed by itself; name it in ca_file',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'its certificate is signed by an authority that is not known; name that in ca_file',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    'its certificate is signed by an authority that is not known; name that in ca_file',
  CERT_HAS_EXPIRED: 'its certificate expired',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is for another host name',
}

function describe(code: string): string {
  const reason = Object.hasOwn(REASONS, code) ? `${REASONS[code]} (${code})` : code
  return `no response from the issuer: ${reason}`
}

/** Failures that happen before a connection stands. */
const UNSENT = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
])

/** Keeps the code alone: the library's messages and causes can hold addresses and header fields. */
export function toEgressError(error: unknown): EgressError {
  if (error instanceof EgressError) return error
  const code = readCode(error)
  return new EgressError(code, UNSENT.has(code) || /^ERR_TLS|^UNABLE_TO_|CERT/.test(code))
}

function readCode(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown'
  if (error.name === 'TimeoutError') return 'timeout'
  // Several addresses tried and each failed: the first failure stands for all.
  if (error instanceof AggregateError && error.errors.length > 0) return readCode(error.errors[0])
  const code = (error as { code?: unknown }).code
  return typeof code === 'string' ? code : error.name
}
