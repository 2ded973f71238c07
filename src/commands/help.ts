/** The text of `bearward --help`. */
export const HELP = `bearward verifies OAuth 2 bearer access tokens in front of an API.

Usage: bearward COMMAND [OPTIONS]

Commands:
  serve          Run the sidecar.
  check-config   Check a configuration and print every problem with its place.
  probe          Ask a running sidecar whether it is alive, ready or started.
  drain          Tell a running sidecar that its pod is about to end.

Options:
  --help         This text; after a command, the text of that command.
  --version      The version, and that of Node.

Exit codes: 0 success, 1 could not start, not ready, or stopped by a second signal, 64 wrong usage, 78 bad configuration.
`

const ENVIRONMENT = `Environment:
  BEARWARD_ISSUER          Without a file: the issuer, exactly as tokens name it.
  BEARWARD_AUDIENCE        Without a file: the accepted audience; several separated by commas.
  BEARWARD_JWKS_URI        Without a file: where the keys are, if not in the issuer's metadata.
  BEARWARD_UPSTREAM        The backend, such as http://127.0.0.1:3000.
  BEARWARD_PROXY_LISTEN    Address for traffic; default 0.0.0.0:8080.
  BEARWARD_OPS_LISTEN      Address for probes and metrics; default 0.0.0.0:9090.
  BEARWARD_HELPER_LISTEN   Address of the token helper; default 127.0.0.1:8181.
  BEARWARD_LOG_LEVEL       trace, debug, info (default), warn, error, fatal or silent.
  POD_IP                   Addresses of the pod; it warns when the backend answers there, too.

Those from BEARWARD_UPSTREAM to BEARWARD_LOG_LEVEL override the file. config/reference.md describes every setting.
`

const OPS_OPTIONS = `Options:
  --ops HOST:PORT     Where to ask. Default: BEARWARD_OPS_LISTEN, else listen.ops of the file, else 127.0.0.1:9090.
  -c, --config FILE   The configuration of the sidecar; only listen.ops is looked at.
`

/** The commands, each with the text of its \`--help\`. */
export const COMMANDS = {
  serve: `Runs the sidecar until SIGTERM or SIGINT.

Usage: bearward serve [--config FILE]

Options:
  -c, --config FILE   The configuration (YAML). Without it, the environment describes one issuer.

On SIGTERM it stops being ready, goes on serving for drain.delay, lets requests in flight finish within
drain.timeout and exits with 0. On SIGINT it does the same without the delay. A second signal stops it at once.
It takes up changes of the configuration, and of the files it names, by itself and on SIGHUP; what is not valid
changes nothing and is logged.

${ENVIRONMENT}`,
  'check-config': `Checks a configuration and prints every problem at once, each with file and line.

Usage: bearward check-config [--effective] [FILE]

Options:
  --effective   Print the configuration with presets and defaults filled in, instead of reading the files it names.

Without FILE it checks what the environment describes. Opens no port and no connection. Reads the files that
the configuration names. Exit codes: 0 valid, 64 wrong usage, 78 problems found.

${ENVIRONMENT}`,
  probe: `Asks a running sidecar what a kubelet would ask.

Usage: bearward probe live|ready|startup [--ops HOST:PORT] [--config FILE]

${OPS_OPTIONS}
For HEALTHCHECK, and for probes where HTTP is not possible; Kubernetes' httpGet costs less. It waits for 2 s.
Exit codes: 0 yes, 1 no or no answer, 64 wrong usage, 78 the address cannot be told.
`,
  drain: `Tells a running sidecar that its pod is about to end: for the preStop hook of a native sidecar.

Usage: bearward drain [--ops HOST:PORT] [--config FILE]

${OPS_OPTIONS}
The sidecar stops being ready, answers with "Connection: close" and goes on serving, because the app is still there
and load balancers need some seconds to learn of it. SIGTERM, which comes when the app is gone, then stops it: what
has passed since counts as drain.delay. May be called any number of times. Only from the same network namespace.
Exit codes: 0 told, 1 no answer, 64 wrong usage, 78 the address cannot be told.
`,
} as const
