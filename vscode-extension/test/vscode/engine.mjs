// A Docker Engine of the tests' own, as tests/it/support/engine.rs has it. It has a network of its own, too, so that it can
// publish ports there and nothing of the computer's network changes. The images are made here; nothing is pulled.
import { execFileSync, spawn } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { until } from './world.mjs';

/** Debian's package busybox-static. */
const BUSYBOX = '/bin/busybox';

/** Starts the engine, and ends it with all of its containers once standard input ends. */
const SUPERVISOR = `
folder=$1
trap '' HUP INT TERM
unshare --net sh -c 'busybox ip link set lo up; exec "$@"' sh dockerd --iptables=false --ip-masq=false --ip-forward=false \\
  --data-root "$folder/data" --exec-root "$folder/exec" -p "$folder/pid" -H "unix://$folder/s" >"$folder/log" 2>&1 </dev/null &
engine=$!
cat >/dev/null
running=$(docker ps --quiet)
[ -z "$running" ] || docker unpause $running >/dev/null 2>&1
[ -z "$running" ] || docker kill $running >/dev/null 2>&1
kill "$engine" 2>/dev/null
wait "$engine"
grep -o " $folder/[^ ]*" /proc/self/mounts | sort -r | xargs -r umount -l
exec rm -rf "$folder"
`;

export class Engine {
  /** True if an engine can be started here. Otherwise it says why not. In CI everything is root. */
  static get canRun() {
    if (process.platform === 'linux' && process.geteuid() === 0) return true;
    console.log('NOT RUN: an engine of the tests\' own needs Linux and root');
    return false;
  }

  constructor() {
    // A short path, because the length of a socket's path is limited.
    this.folder = mkdtempSync('/tmp/lspd');
    this.socket = path.join(this.folder, 's');
    this.env = { ...process.env, DOCKER_HOST: `unix://${this.socket}`, HOME: this.folder };
    this.supervisor = spawn('setsid', ['-w', 'sh', '-c', SUPERVISOR, 'sh', this.folder], { env: this.env, stdio: ['pipe', 'ignore', 'inherit'] });
  }

  /** Runs a command of Docker's client. Returns its output. */
  docker(...args) {
    return execFileSync('docker', args, { env: this.env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
  }

  async start() {
    const answers = () => {
      try {
        return this.docker('info');
      } catch {
        return false;
      }
    };
    await until('the engine answers', answers, 60_000).catch((error) => {
      throw new Error(readFileSync(path.join(this.folder, 'log'), 'utf8'), { cause: error });
    });
  }

  /** Makes an image of Debian's static busybox: with a shell, or of the one program \`app\`, a web server. */
  image(name, { shell, changes = [] }) {
    const files = mkdtempSync(path.join(this.folder, 'rootfs'));
    mkdirSync(path.join(files, 'srv'));
    writeFileSync(path.join(files, 'srv/index.html'), `hello from ${name}\n`);
    mkdirSync(path.join(files, 'bin'));
    cpSync(BUSYBOX, path.join(files, 'bin', shell ? 'busybox' : 'httpd'));
    if (shell) {
      const names = execFileSync(BUSYBOX, ['--list'], { encoding: 'utf8' }).trim().split('\n').filter((one) => one !== 'busybox');
      for (const one of names) symlinkSync('busybox', path.join(files, 'bin', one));
    }
    const archive = execFileSync('tar', ['--numeric-owner', '-c', '-C', files, '.'], { maxBuffer: 1 << 26 });
    const all = ['WORKDIR /srv', 'CMD ["httpd", "-f", "-p", "80"]', ...changes].flatMap((change) => ['--change', change]);
    execFileSync('docker', ['import', ...all, '-', name], { env: this.env, input: archive, stdio: ['pipe', 'ignore', 'pipe'] });
  }

  end() {
    const ended = new Promise((resolve) => this.supervisor.once('exit', resolve));
    this.supervisor.stdin.end();
    return ended;
  }
}
