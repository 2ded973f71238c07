import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { loadConfig } from '../../src/config/load.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const DEPLOY = join(ROOT, 'deploy')
const { version, devDependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  version: string
  devDependencies: { node: string }
}

interface Service {
  readonly image: string
  readonly ports?: readonly string[]
  readonly network_mode?: string
  readonly user?: string
  readonly read_only?: boolean
  readonly cap_drop?: readonly string[]
  readonly security_opt?: readonly string[]
  readonly stop_grace_period?: string
}

describe('the example for Docker Compose', () => {
  const { services } = parse(readFileSync(join(DEPLOY, 'compose/compose.yaml'), 'utf8')) as {
    services: { bearward: Service; api: Service }
  }
  const config = loadConfig({ file: join(DEPLOY, 'compose/config/bearward.yaml'), env: {} })

  it('publishes the port for traffic and no other, and gives the API no network of its own', () => {
    expect(services.bearward.ports).toEqual([`8080:${config.listen.proxy.port}`])
    expect(services.api.ports).toBeUndefined()
    expect(services.api.network_mode).toBe('service:bearward')
    expect(config.upstream.url).toBe('http://127.0.0.1:3000')
  })

  it('confines both as the manifests do', () => {
    for (const { read_only: readOnly, cap_drop: drop, security_opt: options } of Object.values(services)) {
      expect({ readOnly, drop, options }).toEqual({
        readOnly: true,
        drop: ['ALL'],
        options: ['no-new-privileges:true'],
      })
    }
    // The image has a user of its own.
    expect([services.bearward.user, services.api.user]).toEqual([undefined, '1000'])
  })

  it('has the versions of the package, and leaves time for a drain', () => {
    expect(services.bearward.image).toBe(`bearward:${version}`)
    expect(services.api.image).toBe(`node:${devDependencies.node}-bookworm-slim`)
    const { delay, timeout } = config.drain
    expect(Number.parseInt(services.bearward.stop_grace_period ?? '', 10) * 1000).toBeGreaterThan(delay + timeout)
  })
})

describe('the unit for systemd', () => {
  const text = readFileSync(join(DEPLOY, 'systemd/bearward.service'), 'utf8')
  const setting = (name: string) => new RegExp(`^${name}=(.*)$`, 'm').exec(text)?.[1] ?? ''

  it('caps the heap at three fifths of its memory, as the image does', () => {
    const heap = Number(/--max-old-space-size=(\d+)/.exec(setting('Environment'))?.[1])
    expect(heap).toBe(Math.floor(Number.parseInt(setting('MemoryMax'), 10) * 0.6))
  })

  it('starts the program as the Dockerfile does', () => {
    const dockerfile = readFileSync(join(ROOT, 'Dockerfile'), 'utf8')
    const [, ...entrypoint] = JSON.parse(/^ENTRYPOINT (.*)$/m.exec(dockerfile)?.[1] as string) as string[]
    const command = JSON.parse(/^CMD (\[.*)$/m.exec(dockerfile)?.[1] as string) as string[]
    const argv = [...entrypoint, ...command].map((word) => word.replace('/app/', '/opt/bearward/'))
    expect(setting('ExecStart')).toBe(`/usr/bin/node ${argv.join(' ')}`)
  })

  const noSystemd = spawnSync('systemd-analyze', ['--version']).status === 0 ? '' : ' (skipped: no systemd-analyze)'
  describe.skipIf(noSystemd !== '')(`for systemd itself${noSystemd}`, () => {
    let folder: string
    let unit: string
    beforeAll(() => {
      folder = mkdtempSync(join(tmpdir(), 'bearward-unit-'))
      unit = join(folder, 'bearward.service')
      // Programs that are not there are complained about.
      writeFileSync(unit, text.replace('ExecStart=/usr/bin/node', `ExecStart=${process.execPath}`))
    })
    afterAll(() => rmSync(folder, { recursive: true }))
    const analyze = (...argv: string[]) => {
      const { status, stdout, stderr } = spawnSync('systemd-analyze', ['--no-pager', ...argv, unit], {
        encoding: 'utf8',
      })
      return { status, text: stdout + stderr }
    }

    it('is a valid unit', () => {
      expect(analyze('verify')).toEqual({ status: 0, text: '' })
    })

    it('is exposed to little: 2 of 10 at most', () => {
      expect(analyze('security', '--offline=true', '--threshold=20')).toMatchObject({ status: 0 })
    })
  })
})
