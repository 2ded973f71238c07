import type { Fault } from './check.ts'
import type { Config } from './schema.ts'

/** Fields that belong to the protocol or to a decision made before; an identity header must not replace them. */
const PROTOCOL_FIELD =
  /^(host|authorization|cookie|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|forwarded|via|x-request-id|(content|proxy|x-forwarded)-.*)$/

/** Names of fields, or beginnings of names, that callers and proxies need; a reserved prefix must not sweep them away. */
const FAMILIES = (
  'accept- access-control- authorization- cache- connection- content- cookie- date- dpop- expect- forwarded- from- host- ' +
  'if- keep- last- max- origin- pragma- priority- proxy- range- referer- sec- trailer- transfer- upgrade- user- via- ' +
  'www- x-forwarded- x-http- x-original- x-real- x-request-'
).split(' ')

type Identity = Pick<Config, 'identity'>

/** A reserved prefix that other fields begin with. */
export function checkPrefix({ identity: { prefix } }: Identity): Fault[] {
  const family = FAMILIES.find((one) => one.startsWith(prefix) || prefix.startsWith(one))
  if (family === undefined) return []
  const problem = `"${prefix}" would remove fields of the protocol (${family}…) from every request.`
  return [{ path: ['identity', 'prefix'], problem, hint: 'Choose one of your own, such as x-auth-.' }]
}

/** Fields that are set twice, or that others need. */
export function checkIdentityFields({ identity }: Identity): Fault[] {
  const seen = new Set<string>()
  return identity.headers.flatMap(({ header }, i): Fault[] => {
    const path = ['identity', 'headers', i, 'header']
    const canonical = header.replaceAll('_', '-')
    if (PROTOCOL_FIELD.test(canonical)) return [{ path, problem: `"${header}" belongs to the protocol.` }]
    if (seen.has(canonical)) return [{ path, problem: `"${header}" is set twice (backends read "_" as "-").` }]
    seen.add(canonical)
    return []
  })
}

/** The field that says which others are encoded. */
export function checkEncodedField({ identity }: Identity): Fault[] {
  return identity.headers.flatMap(({ header }, i): Fault[] => {
    if (header.replaceAll('_', '-') !== `${identity.prefix}encoded`) return []
    return [{ path: ['identity', 'headers', i, 'header'], problem: `"${header}" is set by bearward itself.` }]
  })
}
