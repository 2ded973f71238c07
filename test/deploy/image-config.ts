/** Writes a configuration with keys of its own into a folder, and prints tokens that it accepts: for containers.sh. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { AUDIENCE, createSigningKey, goodClaims, ISSUER, signJwt } from '../fakes/signer.ts'

const [folder, count] = process.argv.slice(2) as [string, string]
const key = createSigningKey('RS256')
mkdirSync(folder)
writeFileSync(join(folder, 'jwks.json'), JSON.stringify({ keys: [key.jwk] }))
writeFileSync(join(folder, 'secret'), 'not-used')
const config = {
  issuers: [{ name: 'main', issuer: ISSUER, audience: AUDIENCE, jwks_file: './jwks.json' }],
  upstream: 'http://127.0.0.1:3000',
  rules: [{ name: 'health', exact: ['/healthz'], methods: ['GET'], access: 'public' }],
  helper: { clients: { web: { client_id: 'web', client_secret: { file: './secret' } } } },
  drain: { delay: '2s' },
}
writeFileSync(join(folder, 'bearward.yaml'), stringify(config))
const exp = Math.floor(Date.now() / 1000) + 3600
for (let i = 0; i < Number(count); i += 1) {
  process.stdout.write(`${signJwt(key, goodClaims(Date.now(), { exp, sub: `user-${i}` }))}\n`)
}
