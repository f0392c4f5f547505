// open-remote-ssh's way: options from the file, the ProxyCommand without a shell, a standard error that is a pipe and
// that nobody reads. ssh2_unread.cjs FILE HOST

const { spawn } = require('node:child_process')
const fs = require('node:fs')
const { Duplex } = require('node:stream')
const SSHConfig = require('ssh-config-5').default ?? require('ssh-config-5')
const { Client } = require('ssh2')

const [file, host] = process.argv.slice(2)
const include = fs.readFileSync(file, 'utf8').match(/^Include "?([^"\n]*)/m)
const options = SSHConfig.parse(fs.readFileSync(include ? include[1] : file, 'utf8')).compute(host, { ignoreCase: true })
const [program, ...args] = options.proxycommand
  .match(/"[^"]*"|\S+/g)
  .map((word) => word.replace(/^"|"$/g, '').replace('%r', options.user).replace('%h', host))
const proxy = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] })
const client = new Client()
client
  .on('ready', () => client.exec('echo in', (error, stream) => {
    if (error) throw error
    stream.on('close', () => client.end()).pipe(process.stdout)
  }))
  .on('error', (error) => {
    console.error(error.message)
    process.exit(1)
  })
  .on('close', () => process.exit(process.exitCode ?? 0))
  .connect({
    sock: Duplex.from({ readable: proxy.stdout, writable: proxy.stdin }),
    username: options.user,
    privateKey: fs.readFileSync(options.identityfile[0]),
    readyTimeout: 60_000
  })
