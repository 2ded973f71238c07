import { CODES, type Code } from '../errors.ts'
import { findField, type FieldList } from './headers.ts'
import type { ProblemResponse } from './problem.ts'

/** `application/grpc`, `application/grpc+proto`, `application/grpc-web` and the like. */
const GRPC_TYPE = /^application\/grpc(?:[+-][\w.+-]*)?(?=$|[ ;])/i

/** Statuses of gRPC by status of HTTP: what a library of gRPC should make of our refusals. */
const GRPC_STATUS: Readonly<Record<number, number>> = {
  400: 3, // INVALID_ARGUMENT
  401: 16, // UNAUTHENTICATED
  403: 7, // PERMISSION_DENIED
  404: 12, // UNIMPLEMENTED
  408: 4, // DEADLINE_EXCEEDED
  413: 8, // RESOURCE_EXHAUSTED
  417: 3,
  429: 8,
  431: 8,
  499: 1, // CANCELLED
  500: 13, // INTERNAL
  501: 12,
  502: 14, // UNAVAILABLE
  503: 14,
  504: 14,
}
const UNKNOWN = 2

/** The type of a gRPC call, or `undefined` for any other request. */
export function readGrpcType(fields: FieldList): string | undefined {
  const { value } = findField(fields, 'content-type')
  return value === undefined ? undefined : GRPC_TYPE.exec(value)?.[0]
}

/**
 * `grpc-status` and `grpc-message` for a code. The message says what a problem document would; it is ASCII without `%`,
 * so it needs no encoding.
 */
export function toGrpcStatus(code: Code, requestId: string): [string, string][] {
  const { status, description } = CODES[code]
  return [
    ['grpc-status', String(GRPC_STATUS[status] ?? UNKNOWN)],
    ['grpc-message', `${description} (${code}, request ${requestId})`],
  ]
}

/**
 * The response for a code to a gRPC call: the status is in the header, and there is no body (Trailers-Only).
 *
 * @param type - from {@link readGrpcType}
 */
export function toGrpcResponse(code: Code, requestId: string, type: string): ProblemResponse {
  return { status: 200, headers: ['content-type', type, ...toGrpcStatus(code, requestId).flat()], body: '' }
}
