// A containerd of the tests' own, as tests/it/support/engine/containerd.rs has it, with containers of pods, which have the
// annotations of Kubernetes' CRI, and others, which have a name as nerdctl gives it. Nothing is pulled.
import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { until } from './world.mjs';

/** Debian's package busybox-static. */
const BUSYBOX = '/bin/busybox';

/** Starts containerd, and ends it with all of its containers once standard input ends. */
const SUPERVISOR = `
folder=$1
trap '' HUP INT TERM
containerd --config "$folder/configuration" >"$folder/log" 2>&1 </dev/null &
engine=$!
cat >/dev/null
for namespace in default k8s.io; do
  ctr="ctr --address $folder/s --namespace $namespace"
  for id in $($ctr task ls -q); do $ctr task delete --force $id >/dev/null 2>&1; done
done
kill "$engine" 2>/dev/null
wait "$engine"
grep -o " $folder/[^ ]*" /proc/self/mounts | sort -r | xargs -r umount -l
exec rm -rf "$folder"
`;

export class Containerd {
  /** True if it can be started here. Otherwise it says why not. In CI everything is root. */
  static get canRun() {
    if (process.platform === 'linux' && process.geteuid() === 0) return true;
    console.log('NOT RUN: an engine of the tests\' own needs Linux and root');
    return false;
  }

  constructor() {
    // A short path, because the length of a socket's path is limited.
    this.folder = mkdtempSync('/tmp/lspk');
    const below = (name) => JSON.stringify(path.join(this.folder, name));
    const configuration = `version = 2\nroot = ${below('data')}\nstate = ${below('state')}\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = ${below('s')}\n`;
    writeFileSync(path.join(this.folder, 'configuration'), configuration);
    this.supervisor = spawn('setsid', ['-w', 'sh', '-c', SUPERVISOR, 'sh', this.folder], { stdio: ['pipe', 'ignore', 'inherit'] });
  }

  ctr(namespace, ...args) {
    return execFileSync('ctr', ['--address', path.join(this.folder, 's'), '--namespace', namespace, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
  }

  async start() {
    const answers = () => {
      try {
        return this.ctr('default', 'version');
      } catch {
        return false;
      }
    };
    await until('containerd answers', answers, 60_000).catch((error) => {
      throw new Error(readFileSync(path.join(this.folder, 'log'), 'utf8'), { cause: error });
    });
  }

  /** Runs a container of Debian's static busybox, with a shell or of the one program `httpd`. Returns its id. */
  run(name, { pod, image, shell = true }, ...command) {
    const id = randomBytes(32).toString('hex');
    const files = path.join(this.folder, 'rootfs', id);
    for (const one of ['bin', 'srv', 'etc', 'tmp']) mkdirSync(path.join(files, one), { recursive: true });
    writeFileSync(path.join(files, 'srv/index.html'), `hello from ${image}\n`);
    // As each container of a pod has it.
    writeFileSync(path.join(files, 'etc/hosts'), '127.0.0.1 localhost\n');
    cpSync(BUSYBOX, path.join(files, 'bin', shell ? 'busybox' : 'httpd'));
    const names = execFileSync(BUSYBOX, ['--list'], { encoding: 'utf8' }).trim().split('\n').filter((one) => one !== 'busybox');
    if (shell) for (const one of names) symlinkSync('busybox', path.join(files, 'bin', one));
    const annotations = pod
      ? {
          'io.kubernetes.cri.container-type': 'container', 'io.kubernetes.cri.container-name': name, 'io.kubernetes.cri.image-name': image,
          'io.kubernetes.cri.sandbox-id': randomBytes(32).toString('hex'), 'io.kubernetes.cri.sandbox-name': pod.name, 'io.kubernetes.cri.sandbox-namespace': pod.namespace,
        }
      : { 'nerdctl/name': name };
    const options = Object.entries(annotations).flatMap(([key, value]) => ['--annotation', `${key}=${value}`]);
    this.ctr(pod ? 'k8s.io' : 'default', 'run', '--detach', '--null-io', '--cwd', '/srv', '--env', 'PATH=/bin', ...options, '--rootfs', files, id, ...command);
    // A container of its own client has a loopback interface that is down.
    const pid = this.ctr(pod ? 'k8s.io' : 'default', 'task', 'ls').split('\n').map((one) => one.split(/\s+/)).find(([of]) => of === id)[1];
    execFileSync('nsenter', ['--target', pid, '--net', BUSYBOX, 'ip', 'link', 'set', 'lo', 'up']);
    return id;
  }

  exec(id, ...command) {
    return this.ctr('k8s.io', 'task', 'exec', '--exec-id', randomBytes(6).toString('hex'), id, ...command);
  }

  end() {
    const ended = new Promise((resolve) => this.supervisor.once('exit', resolve));
    this.supervisor.stdin.end();
    return ended;
  }
}
