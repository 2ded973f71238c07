import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import express from 'express'
import fastify from 'fastify'
import { startCommand, type Command } from '../cli/command.ts'
import { freePort } from './free-port.ts'

/**
 * Backends with parsers of their own. Each has routes for `/public`, `/healthz`, `/admin` and everything else, as lenient as
 * it can be told to be, and answers with three fields: which route served the request, the target as it came, and the
 * subject as an application would read it.
 */
export interface Backend {
  readonly port: number
  stop(): void | Promise<void>
}

/** Thrown where a backend is not installed. */
export class MissingError extends Error {
  override readonly name = 'MissingError'
}

export const BACKENDS: Readonly<Record<string, () => Promise<Backend>>> = {
  express: startExpress,
  fastify: startFastify,
  flask: startFlask,
  go: startGo,
  nginx: startNginx,
  php: startPhp,
}

async function startExpress(): Promise<Backend> {
  const app = express()
  const serve = (route: string) => (request: { originalUrl: string; headers: object }, response: Answer) =>
    answer(response, route, request.originalUrl, request.headers)
  for (const route of ['public', 'admin']) app.use(`/${route}`, serve(route))
  app.all('/healthz', serve('healthz'))
  app.use(serve('other'))
  const server = await new Promise<Server>((resolve) => {
    const bound = app.listen(0, '127.0.0.1', () => resolve(bound))
  })
  return { port: (server.address() as AddressInfo).port, stop: () => close(server) }
}

interface Answer {
  writeHead(status: number, fields: Record<string, string>): unknown
  end(): unknown
}

function answer(response: Answer, route: string, target: string, headers: object): void {
  const subject = (headers as Record<string, string>)['x-auth-subject'] ?? ''
  response.writeHead(200, { 'X-Route': route, 'X-Target': target, 'X-Subject': subject, 'Content-Length': '0' })
  response.end()
}

async function startFastify(): Promise<Backend> {
  const routerOptions = {
    caseSensitive: false,
    ignoreTrailingSlash: true,
    ignoreDuplicateSlashes: true,
    useSemicolonDelimiter: true,
  }
  const app = fastify({ routerOptions })
  const paths = { public: ['/public', '/public/*'], admin: ['/admin', '/admin/*'], healthz: ['/healthz'], other: ['*'] }
  for (const [route, urls] of Object.entries(paths)) {
    for (const url of urls) {
      app.all(url, (request, reply) => {
        reply.hijack()
        answer(reply.raw, route, request.raw.url ?? '', request.headers)
      })
    }
  }
  await app.listen({ port: 0, host: '127.0.0.1' })
  return { port: (app.server.address() as AddressInfo).port, stop: () => close(app.server) }
}

const FLASK = `
from flask import Flask, Response, request
from werkzeug.serving import make_server
import logging
logging.getLogger('werkzeug').disabled = True
app = Flask(__name__, static_folder=None)
app.url_map.strict_slashes = False
def serve(route):
    # Its routes know no empty segments, so that /public//x falls through to the last of them.
    if request.path.startswith('/public/'): route = 'public'
    subject = request.environ.get('HTTP_X_AUTH_SUBJECT', '')
    return Response('', headers={'X-Route': route, 'X-Target': request.environ['RAW_URI'], 'X-Subject': subject})
METHODS = ['GET', 'POST', 'PUT', 'DELETE', 'OPTIONS']
for route, paths in {
    'public': ['/public', '/public/<path:rest>'],
    'admin': ['/admin', '/admin/<path:rest>'],
    'healthz': ['/healthz'],
    'other': ['/', '/<path:rest>'],
}.items():
    for path in paths:
        app.add_url_rule(path, route + path, lambda rest='', route=route: serve(route), methods=METHODS)
server = make_server('127.0.0.1', 0, app, threaded=True)
print('port', server.server_port, flush=True)
server.serve_forever()
`

async function startFlask(): Promise<Backend> {
  const python = ['/usr/bin/python3', 'python3'].find((one) => runs(one, '-c', 'import flask'))
  if (python === undefined) throw new MissingError('python3 with Flask (Debian: python3-flask) is not installed')
  return untilPort(startCommand(python, ['-c', FLASK]))
}

const GO = `package main

import (
	"fmt"
	"net"
	"net/http"
)

func main() {
	mux := http.NewServeMux()
	for path, route := range map[string]string{
		"/public": "public", "/public/": "public", "/admin": "admin", "/admin/": "admin", "/healthz": "healthz", "/": "other",
	} {
		mux.HandleFunc(path, func(route string) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Route", route)
				w.Header().Set("X-Target", r.RequestURI)
				w.Header().Set("X-Subject", r.Header.Get("X-Auth-Subject"))
			}
		}(route))
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println("port", listener.Addr().(*net.TCPAddr).Port)
	panic(http.Serve(listener, mux))
}
`

async function startGo(): Promise<Backend> {
  const go = ['go', '/usr/lib/go/bin/go', '/usr/local/go/bin/go'].find((one) => runs(one, 'version'))
  if (go === undefined) throw new MissingError('go (Debian: golang-go) is not installed')
  const folder = mkdtempSync(join(tmpdir(), 'bearward-go-'))
  writeFileSync(join(folder, 'main.go'), GO)
  const env = { ...process.env, GO111MODULE: 'off', GOTOOLCHAIN: 'local', GOFLAGS: '', CGO_ENABLED: '0' }
  const built = spawnSync(go, ['build', '-o', 'backend', 'main.go'], { cwd: folder, env, encoding: 'utf8' })
  if (built.status !== 0) {
    rmSync(folder, { recursive: true })
    throw new Error(`go build failed:\n${built.stderr}`)
  }
  const started = await untilPort(startCommand(join(folder, 'backend'), []))
  // It runs on without its file.
  rmSync(folder, { recursive: true })
  return started
}

const nginxConfig = (folder: string, port: number) => {
  const serve = (route: string) => `{
      add_header X-Route ${route} always;
      add_header X-Target $request_uri always;
      add_header X-Subject $http_x_auth_subject always;
      return 200 "";
    }`
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (kind) => `  ${kind}_temp_path ${folder}/${kind};`,
  )
  return `daemon off;
master_process off;
pid ${folder}/pid;
error_log stderr crit;
events { worker_connections 256; }
http {
  access_log off;
  underscores_in_headers on;
${temporary.join('\n')}
  server {
    listen 127.0.0.1:${port};
    location = /healthz ${serve('healthz')}
    location ~* ^/admin(/|$) ${serve('admin')}
    location ~* ^/public(/|$) ${serve('public')}
    location / ${serve('other')}
  }
}
`
}

async function startNginx(): Promise<Backend> {
  const nginx = ['nginx', '/usr/sbin/nginx'].find((one) => runs(one, '-v'))
  if (nginx === undefined) throw new MissingError('nginx is not installed')
  const folder = mkdtempSync(join(tmpdir(), 'bearward-nginx-'))
  const port = await freePort()
  writeFileSync(join(folder, 'nginx.conf'), nginxConfig(folder, port))
  const command = startCommand(nginx, ['-c', join(folder, 'nginx.conf'), '-p', folder, '-e', 'stderr'])
  await untilOpen(command, port)
  return {
    port,
    async stop() {
      await end(command)
      rmSync(folder, { recursive: true })
    },
  }
}

/** The path in the two ways in which scripts read it; where they differ, both are told. */
const PHP = `<?php
function route_of($path) {
  $path = strtolower(preg_replace('~/+~', '/', $path));
  foreach (['public', 'admin'] as $route) if (preg_match("~^/$route(/|$)~", $path)) return $route;
  return rtrim($path, '/') === '/healthz' ? 'healthz' : 'other';
}
$uri = $_SERVER['REQUEST_URI'];
$routes = array_unique([route_of(rawurldecode((string) parse_url($uri, PHP_URL_PATH))), route_of($_SERVER['PHP_SELF'])]);
header('X-Route: ' . implode('|', $routes));
header('X-Target: ' . $uri);
header('X-Subject: ' . ($_SERVER['HTTP_X_AUTH_SUBJECT'] ?? ''));
`

async function startPhp(): Promise<Backend> {
  if (!runs('php', '-v')) throw new MissingError('php (Debian: php-cli) is not installed')
  const folder = mkdtempSync(join(tmpdir(), 'bearward-php-'))
  const port = await freePort()
  writeFileSync(join(folder, 'router.php'), PHP)
  const command = startCommand('php', ['-S', `127.0.0.1:${port}`, '-t', folder, join(folder, 'router.php')])
  await untilOpen(command, port)
  return {
    port,
    async stop() {
      await end(command)
      rmSync(folder, { recursive: true })
    },
  }
}

function runs(program: string, ...argv: string[]): boolean {
  return spawnSync(program, argv, { stdio: 'ignore' }).status === 0
}

/** Waits for the line `port N`. */
async function untilPort(command: Command): Promise<Backend> {
  await command.until(() => /port \d+\n/.test(command.stdout()))
  return { port: Number(/port (\d+)\n/.exec(command.stdout())?.[1]), stop: () => end(command) }
}

async function untilOpen(command: Command, port: number): Promise<void> {
  const early = command.ended.then((how) => {
    throw new Error(`ended (${how}) too early:\n${command.stdout()}${command.stderr()}`)
  })
  const open = async () => {
    for (;;) {
      const answers = await fetch(`http://127.0.0.1:${port}/healthz`).catch(() => undefined)
      if (answers !== undefined) return
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
  early.catch(() => undefined)
  await Promise.race([open(), early])
}

async function end(command: Command): Promise<void> {
  command.child.kill('SIGKILL')
  await command.ended
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve())
    server.closeAllConnections()
  })
}
