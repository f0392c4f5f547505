// open-remote-ssh's way: options from the file, the ProxyCommand without a shell, a standard error that is a pipe and
// that nobody reads. ssh2_unread.cjs FILE HOST
// With a shell, the way of Claude's desktop app: the ProxyCommand through that shell, ssh2's own patience, and host keys
// from one file, if that is given. ssh2_unread.cjs FILE HOST SHELL [KNOWN_HOSTS]
// With `none` as the shell, the way of VS Code's Agents window, which passes over a ProxyCommand.

const { spawn } = require('node:child_process')
const fs = require('node:fs')
const { Duplex } = require('node:stream')
const SSHConfig = require('ssh-config-5').default ?? require('ssh-config-5')
const { Client } = require('ssh2')

const [file, host, shell, knownHosts] = process.argv.slice(2)
const include = fs.readFileSync(file, 'utf8').match(/^Include "?([^"\n]*)/m)
const options = SSHConfig.parse(fs.readFileSync(include ? include[1] : file, 'utf8')).compute(host, { ignoreCase: true })
const filled = (word) => word.replace('%r', options.user).replace('%h', host)
const isDirect = shell === 'none'
const [program, ...args] = shell && !isDirect
  ? [shell, '-c', filled(options.proxycommand)]
  : options.proxycommand.match(/"[^"]*"|\S+/g).map((word) => filled(word.replace(/^"|"$/g, '')))
const proxy = isDirect ? undefined : spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] })
const isKnown = (key) =>
  fs.readFileSync(knownHosts, 'utf8').split('\n').some((line) => {
    const [names, , known] = line.split(' ')
    return names.split(',').includes(host) && known === key.toString('base64')
  })
const client = new Client()
client
  .on('ready', () => client.exec('echo in', (error, stream) => {
    if (error) throw error
    stream.on('close', () => ((process.exitCode = 0), client.end())).pipe(process.stdout)
  }))
  .on('error', (error) => {
    console.error(error.message)
    process.exit(1)
  })
  .on('close', () => process.exit(process.exitCode ?? 1))
  .connect({
    ...(proxy
      ? { sock: Duplex.from({ readable: proxy.stdout, writable: proxy.stdin }) }
      : { host: options.hostname ?? host, port: Number(options.port ?? 22) }),
    username: options.user,
    privateKey: fs.readFileSync(options.identityfile[0]),
    ...(knownHosts ? { hostVerifier: isKnown } : {}),
    // 20 s are ssh2's default.
    readyTimeout: shell ? 20_000 : 60_000
  })
