/** Writes every rendered object as a typed literal, so that the compiler checks it: `node test/deploy/typed.ts > FILE.ts` */
import { readFileSync } from 'node:fs'
import { readManifests } from './manifests.ts'
import { RENDERINGS, renderedFile } from './render.ts'

const OPERATOR = 'monitoring.coreos.com/v1'

for (const { name } of RENDERINGS) {
  readManifests(readFileSync(renderedFile(name), 'utf8')).forEach((manifest, index) => {
    const { apiVersion, kind } = manifest
    const library = apiVersion === OPERATOR ? '@kubernetes-models/prometheus-operator' : 'kubernetes-models'
    const variable = `${name.replaceAll('-', '_')}_${index}`
    process.stdout.write(
      `export const ${variable}: import('${library}/${apiVersion}').I${kind} = ${JSON.stringify(manifest, null, 1)}\n`,
    )
  })
}
